"""What goes wrong before a run is there. What goes wrong in a run is no exception: its `status` says it."""

from pathlib import Path
from typing import Final

from evflow.errors import EnvironmentProblem, UsageError

_ERROR: Final = "Error: "
_MOST_LINES: Final = 30
"""How much of what a flow's file printed an error repeats: its traceback's end."""


class FlowFileMissing(UsageError):
    """There is no such file."""

    code = "flow-file-missing"

    def __init__(self, file: Path) -> None:
        super().__init__(f"There is no file '{file}'.", "Runner takes the path of a flow's file; NBRunner takes a class of a notebook.")


class ArgumentUnfit(UsageError):
    """A value cannot be handed to a flow."""

    code = "argument-unfit"

    def __init__(self, name: str, value: object, why: str = "") -> None:
        shown = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        super().__init__(
            f"{name}: a value of type {shown} cannot be given to a flow{f': {why}' if why else ''}.",
            "Give a text, a number, a bool, a path, or what JSON can hold; larger things belong into a file, or are made by the first step.",
        )


class RunNotStarted(UsageError):
    """The flow's process ended before there was a run. Message and hint are those of `python flow.py`.

    Attributes:
        returncode: The exit code of that process; negative for a signal.
        stderr: All that it said.
    """

    code = "run-not-started"

    def __init__(self, file: Path, returncode: int, stderr: str) -> None:
        said = stderr.strip().splitlines()
        begin = max((index for index, line in enumerate(said) if line.startswith(_ERROR)), default=None)
        if begin is not None:
            super().__init__(said[begin].removeprefix(_ERROR), "\n".join(said[begin + 1 :]))
        else:
            end = "\n".join(said[-_MOST_LINES:])
            super().__init__(f"'{file}' started no run: its process ended with exit code {returncode}.", end)
        self.returncode = returncode
        self.stderr = stderr


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
            "An evflow.toml above the flow's file, or `env`, names another log. Set EVFLOW_REDIS_URL or EVFLOW_HOME for both.",
        )


class TaskNotKept(UsageError):
    """A task was run again, and nothing of it was kept."""

    code = "task-not-kept"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"What running '{origin}' again gave was not kept.", "Keep it with spin(…, persist=True); its `outcome` says what became of it."
        )


class NoNotebook(UsageError):
    """There is no notebook, or the class is not of one."""

    code = "no-notebook"
