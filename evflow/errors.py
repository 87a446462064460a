"""Every error that evflow raises on purpose, sorted by who must act.

An error says what happened, where, the value seen and what to do next. The text is built in the
class's `__init__`, so that one condition reads the same wherever it is raised. Modules define their own
classes below one of the four families here; the command line prints `message` and `hint` and nothing else.
"""

from collections.abc import Iterable
from typing import ClassVar


class EvflowError(Exception):
    """The base of all errors of evflow.

    Attributes:
        code: A stable name of the condition, for programs (`--json`) and searches.
        message: What happened and where, in one or more full sentences.
        hint: What to do next, or an empty string.
        exit_code: What a command that raises it ends with: 2 where what was typed is wrong, whatever the log or the flow has.
    """

    code: ClassVar[str] = "evflow-error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(EvflowError):
    """The flow, the command or the call is wrong: its author mends it."""

    code = "usage"


class EnvironmentProblem(EvflowError):
    """The machine, the server or the credentials are wrong: whoever runs them mends it."""

    code = "environment"


class Conflict(EvflowError):
    """Somebody else wrote first: read again, decide again."""

    code = "conflict"


class InternalError(EvflowError):
    """A defect of evflow: please report it."""

    code = "internal"


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A hint at the name that was probably meant, with a space before it; an empty string where none comes close."""
    import difflib  # only a mistake pays for it

    close = difflib.get_close_matches(name, list(candidates)[:500], n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
