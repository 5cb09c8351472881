"""The generator of a process with coefficients as polynomials, only as accurate as the functions at hand need.

Accuracy costs degrees: of the interpolants, and so of A w, whose range must be proved.
"""

from __future__ import annotations

import time

from fpsolve.theory.balls import above
from fpsolve.theory.certified.coefficients import Coefficients
from fpsolve.theory.certified.generator import Coefficient, Generator
from fpsolve.theory.certified.polynomial import Polynomial, tensor
from fpsolve.theory.certified.surrogate import Surrogate, surrogates

COARSE, FINEST = 1e-9, 1e-26
# what errors of coefficients may cost, relative to the asked width, and the further digits of a sharper approximation
SHARE, SPARE = 0.02, 0.1


class Approximation:
    """Polynomials near f and a on a box, with proved errors, which get smaller on demand.

    Attributes
    ----------
    generator : Generator
    """

    def __init__(
        self,
        coefficients: Coefficients,
        lower: tuple[float, ...],
        upper: tuple[float, ...],
        width: float,
        seconds: float,
    ) -> None:
        """Raise ValueError where f or a is not proved to be analytic around the box."""
        self._coefficients, self._box, self._seconds = coefficients, (lower, upper), seconds
        self._allowed = SHARE * width
        self._relative = min(COARSE, 1e-3 * width)
        self.generator = self._made(self._relative)

    def sharpen(self, w: Polynomial, deadline: float) -> bool:
        """Make the coefficients more accurate if their errors matter for w; tell whether that was done."""
        error = above(self.generator.error(w))
        if error <= self._allowed or self._relative <= FINEST or time.monotonic() >= deadline:
            return False
        self._relative = max(FINEST, self._relative * min(SPARE, SPARE * self._allowed / error))
        try:
            self.generator = self._made(self._relative)
        except ValueError:  # what was proved before still stands
            self._relative = FINEST
            return False
        return True

    def _made(self, relative: float) -> Generator:
        lower, upper = self._box
        found = surrogates(self._coefficients, lower, upper, relative=relative, budget_seconds=self._seconds)
        return Generator([self._coefficient(s) for s in found.drift], [self._coefficient(s) for s in found.diffusion])

    def _coefficient(self, s: Surrogate) -> Coefficient:
        return Coefficient(Polynomial(*self._box, tensor(s.coefficients, tuple(s.shape))), s.error)
