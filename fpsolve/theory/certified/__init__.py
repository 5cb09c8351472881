"""Enclosures of exit times, and of other answers, by polynomials whose inequalities are proved in Arb balls."""
