"""Formulas with exponentials in a form that neither they nor their derivatives overflow.

``1/(1 + exp(-u))`` is finite for every u, but its derivative ``exp(-u)/(1 + exp(-u))**2`` is inf/inf
in floating point from u < -355 on, and over a wide ball Arb finds no enclosure. Written with
``S(u) = 1/(1 + exp(-u))`` the derivative is ``S(u) S(-u)``. The class of products
``S(u)**p S(-u)**q`` is closed under multiplication by ``exp(k u)``, because ``exp(u) S(-u) = S(u)``,
and under differentiation with unchanged exponents; with p, q >= 0 none of its members can overflow.
`stable_form` rewrites, exactly and once, before anything is differentiated:

* ``(c₁ exp(u₁) + … + c_m exp(u_m))**p`` for positive numbers c and p < 0 or broken (softmax included),
  ``log`` of such a sum, ``cosh(u)**p`` for p < 0 and ``log(cosh(u))``;
* products of exponentials and S, ``k - k S(u) = k S(-u)`` and logarithms of products with S.
"""

from __future__ import annotations

from functools import lru_cache

import sympy


class Logistic(sympy.Function):
    """S(u) = 1/(1 + exp(-u)); S' = S(u) S(-u)."""

    nargs = 1
    is_positive = True

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Return the derivative."""
        return Logistic(self.args[0]) * Logistic(-self.args[0])


class Softplus(sympy.Function):
    """log(1 + exp(u)); its derivative is S(u)."""

    nargs = 1
    is_positive = True

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Return the derivative."""
        return Logistic(self.args[0])


@lru_cache(maxsize=4096)
def stable_form(expression: sympy.Expr) -> sympy.Expr:
    """Return an expression of equal value, for real variables, in terms of `Logistic` and `Softplus`."""
    if not expression.args:
        return expression
    result = expression.func(*(stable_form(argument) for argument in expression.args))
    if result.is_Pow:
        return _power(*result.as_base_exp())
    if result.is_Mul:
        return _absorb(result)
    if result.is_Add:
        return _complement(result)
    if isinstance(result, sympy.log):
        return _logarithm(result.args[0])
    return result


def _exponential_terms(base: sympy.Expr) -> list[sympy.Expr] | None:
    """Return the exponents u_i + log c_i of a sum Σ c_i exp(u_i), c_i > 0; None for other expressions."""
    exponents: list[sympy.Expr] = []
    varies = False
    for term in sympy.Add.make_args(base):
        coefficient, exponent = sympy.S.One, sympy.S.Zero
        for factor in sympy.Mul.make_args(term):
            if isinstance(factor, sympy.exp):
                exponent += factor.args[0]
            elif factor.is_number and factor.is_positive:
                coefficient *= factor
            else:
                return None
        varies = varies or bool(exponent.free_symbols)
        exponents.append(exponent + sympy.log(coefficient))
    if len(exponents) < 2 or not varies:
        return None
    return sorted(exponents, key=lambda u: (bool(u.free_symbols), sympy.default_sort_key(u)))


def _log_sum(exponents: list[sympy.Expr]) -> sympy.Expr:
    """Return log Σ exp(u_i), one term after the other."""
    total = exponents[0]
    for exponent in exponents[1:]:
        total = total + Softplus(exponent - total)
    return total


def _power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    unchanged = sympy.Pow(base, exponent)
    if not exponent.is_Rational or (exponent.is_Integer and exponent.is_positive):
        return unchanged
    if isinstance(base, sympy.cosh) and exponent.is_negative:
        u = 2 * base.args[0]
        return 2 ** (-exponent) * (Logistic(u) * Logistic(-u)) ** (-exponent / 2)
    terms = _exponential_terms(base)
    if terms is None:
        return unchanged
    first = _log_sum(terms[:-1])
    return _absorb(sympy.exp(sympy.expand(exponent * first)) * Logistic(first - terms[-1]) ** (-exponent))


def _absorb(product: sympy.Expr) -> sympy.Expr:
    """Use exp(u) S(-u) = S(u), and its mirror image, as often as it goes."""
    exponent, rest = sympy.S.Zero, []
    powers: dict[sympy.Expr, sympy.Expr] = {}
    for factor in sympy.Mul.make_args(product):
        base, power = factor.as_base_exp()
        if isinstance(factor, sympy.exp):
            exponent += factor.args[0]
        elif isinstance(base, Logistic) and power.is_Rational:
            powers[base.args[0]] = powers.get(base.args[0], sympy.S.Zero) + power
        else:
            rest.append(factor)
    if exponent == 0 or not powers:
        return product
    for u in list(powers):
        ratio = _multiple(exponent, u)
        if ratio is None:
            continue
        gaining, losing = (u, -u) if ratio > 0 else (-u, u)
        moved = sympy.Min(abs(ratio), powers.get(losing, sympy.S.Zero))
        if moved > 0:
            powers[losing] -= moved
            powers[gaining] = powers.get(gaining, sympy.S.Zero) + moved
            exponent = sympy.expand(exponent - moved * gaining)
    return sympy.Mul(*rest, sympy.exp(exponent), *(Logistic(u) ** p for u, p in powers.items()))


def _multiple(exponent: sympy.Expr, u: sympy.Expr) -> sympy.Expr | None:
    """Return the rational α for which exponent - α u no longer holds the variable terms of u."""
    have = sympy.expand(exponent).as_coefficients_dict()
    wanted = {term: c for term, c in sympy.expand(u).as_coefficients_dict().items() if term.free_symbols}
    ratios = {have.get(term, sympy.S.Zero) / c for term, c in wanted.items()}
    if len(ratios) != 1:
        return None
    ratio = ratios.pop()
    return ratio if ratio.is_Rational and ratio != 0 else None


def _complement(total: sympy.Expr) -> sympy.Expr:
    """Replace k - k S(u) by k S(-u)."""
    terms = list(sympy.Add.make_args(total))
    for term in list(terms):
        factors = list(sympy.Mul.make_args(term))
        logistics = [factor for factor in factors if isinstance(factor, Logistic)]
        if len(logistics) != 1:
            continue
        factors.remove(logistics[0])
        constant = -sympy.Mul(*factors)
        if constant in terms and term in terms:
            terms.remove(constant)
            terms.remove(term)
            terms.append(constant * Logistic(-logistics[0].args[0]))
    return sympy.Add(*terms)


def _logarithm(argument: sympy.Expr) -> sympy.Expr:
    if isinstance(argument, sympy.cosh):
        u = argument.args[0]
        return u + Softplus(-2 * u) - sympy.log(2)
    terms = _exponential_terms(argument)
    if terms is not None:
        return _log_sum(terms)
    parts, rest = [], []
    for factor in sympy.Mul.make_args(argument):
        base, power = factor.as_base_exp()
        if isinstance(base, Logistic) and power.is_Rational:
            parts.append(-power * Softplus(-base.args[0]))
        elif isinstance(factor, sympy.exp):
            parts.append(factor.args[0])
        else:
            rest.append(factor)
    remaining = sympy.Mul(*rest)
    if not parts or not remaining.is_positive:
        return sympy.log(argument)
    return sympy.Add(*parts, sympy.log(remaining))
