"""What goes wrong before a run is there. What goes wrong in a run is no exception: its `status` says it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evflow.deployments.own_process import ANOTHER_LOG, ProcessFailed
from evflow.errors import EnvironmentProblem, UsageError


class ArgumentUnfit(UsageError):
    """A value cannot be handed to a flow."""

    code = "argument-unfit"

    def __init__(self, name: str, value: object, why: str = "") -> None:
        shown = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        super().__init__(
            f"{name}: a value of type {shown} cannot be given to a flow{f': {why}' if why else ''}.",
            "Give a text, a number, a bool, a path, or what JSON can hold; larger things belong into a file, or are made by the first step.",
        )


class RunNotStarted(ProcessFailed):
    """The flow's process ended before there was a run. Message and hint are those of `python flow.py`."""

    code = "run-not-started"

    def __init__(self, file: Path, returncode: int, stderr: str) -> None:
        super().__init__(f"'{file}' started no run", returncode, stderr)


class RunStartLate(EnvironmentProblem, TimeoutError):
    """The flow's process did not begin a run in time; it was ended."""

    code = "run-start-late"

    def __init__(self, file: Path, timeout_s: float) -> None:
        super().__init__(
            f"'{file}' has not begun a run within {timeout_s:g} s; its process was ended.",
            "What its file does while it is imported may take so long; file_read_timeout is how long a Runner waits.",
        )


class RunElsewhere(EnvironmentProblem):
    """The run is in a log that this process does not use."""

    code = "run-elsewhere"

    def __init__(self, pathspec: str, there: str, here: str) -> None:
        super().__init__(
            f"'{pathspec}' is in the log {there}; this process uses {here}.",
            ANOTHER_LOG,
        )


class TaskNotKept(UsageError):
    """A task was run again, and nothing of it was kept."""

    code = "task-not-kept"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"What running '{origin}' again gave was not kept.", "Keep it with spin(…, persist=True); its `outcome` says what became of it."
        )


class TaskSpunFailed(UsageError):
    """A task that was run again failed, and the program was written for Metaflow, whose `spin` raises then."""

    code = "task-spun-failed"

    def __init__(self, outcome: Mapping[str, Any], stdout: str) -> None:
        shown = f"\n{stdout.rstrip()}" if stdout.strip() else ""
        super().__init__(f"Step '{outcome['step']}' of '{outcome['origin']}' failed when it ran again: {outcome['reason']}{shown}")


class NoNotebook(UsageError):
    """There is no notebook, or the class is not of one."""

    code = "no-notebook"
