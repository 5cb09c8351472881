"""The exceptions that end a run with a message for people, and their exit codes."""

from __future__ import annotations


class FpsolveError(Exception):
    """Base of all errors that are reported as one message without a traceback."""

    exit_code = 3


class InputError(FpsolveError, ValueError):
    """Something the user gave cannot be used.

    Parameters
    ----------
    key : str
        The name of the input, e.g. ``"domain.radius"``.
    value : object
        What was received.
    expected : str
        What would have been right.
    remedy : str, optional
        What to do next.
    """

    exit_code = 2

    def __init__(self, key: str, value: object, expected: str, remedy: str = "") -> None:
        self.key, self.value, self.expected, self.remedy = key, value, expected, remedy
        shown = repr(value)
        shown = shown if len(shown) <= 200 else shown[:197] + "..."
        text = f"{key} = {shown}: expected {expected}."
        super().__init__(text + (f" {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling: the error is broadcast between MPI ranks."""
        return type(self), (self.key, self.value, self.expected, self.remedy)


class NoFiniteAnswer(FpsolveError):
    """The question has no finite answer, e.g. the process cannot leave the domain."""

    exit_code = 4


class NotConverged(FpsolveError):
    """A solver failed or an asked accuracy was not reached."""

    exit_code = 3


class MissingPackage(FpsolveError, ImportError):
    """An optional package is needed; the message names what to install."""

    exit_code = 2
