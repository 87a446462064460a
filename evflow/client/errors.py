"""What can be wrong with a question to the client."""

from collections.abc import Collection

from evflow.errors import EnvironmentProblem, UsageError, did_you_mean
from evflow.exception import EvflowInvalidPathspec, EvflowNamespaceMismatch, EvflowNotFound, EvflowTaggingError

__all__ = [
    "CodeMissing",
    "DataElsewhere",
    "EvflowInvalidPathspec",
    "EvflowNamespaceMismatch",
    "EvflowNotFound",
    "EvflowTaggingError",
    "NoSuchArtifact",
    "NoSuchChild",
]

MOST_NAMES = 20
"""How many names a message lists."""


class NoSuchChild(UsageError, KeyError):
    """`run['x']`, `step['x']`, `task['x']`: there is no x in there."""

    code = "no-such-child"

    def __init__(self, owner: object, kind: str, name: object, existing: Collection[str]) -> None:
        super().__init__(f"{owner!r} has no {kind} {str(name)!r}.", _choice(str(name), existing))
        self.name = name


class NoSuchArtifact(UsageError, AttributeError):
    """`task.data.x`: the task left no artifact x behind."""

    code = "no-such-artifact"

    def __init__(self, task: str, name: str, existing: Collection[str], why: str) -> None:
        super().__init__(f"Task '{task}' has no artifact '{name}'.{why}", _choice(name, existing))


class NoSuchAttempt(UsageError):
    """The task has no such attempt."""

    code = "attempt-not-found"

    def __init__(self, task: str, attempt: object, attempts: int) -> None:
        super().__init__(f"Task '{task}' has no attempt {attempt!r}.", f"It has {attempts}, counted from 0.")


class DataElsewhere(EnvironmentProblem):
    """What the log names lies on the disk of another machine."""

    code = "data-elsewhere"

    def __init__(self, what: str, host: str, where: str, missing: str) -> None:
        super().__init__(
            f"{what} is not on this machine: there is no '{missing}'. It was written on the host '{host}', to {where}.",
            "Ask for it there, or let both machines use one store (EVFLOW_STORE) from the next run on.",
        )
        self.host = host


class CodeMissing(EnvironmentProblem):
    """The code that an artifact's class is from cannot be had."""

    code = "code-missing"

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"The class was defined in `__main__`, the file '{file}', and its code cannot be had: {why}.")


def _choice(name: str, existing: Collection[str]) -> str:
    if not existing:
        return "It has none."
    listed = ", ".join(list(existing)[:MOST_NAMES]) + (", …" if len(existing) > MOST_NAMES else "")
    return f"It has: {listed}.{did_you_mean(name, existing)}"
