"""A flow's file that somebody runs from Python in a process of its own: how it is called, and what goes wrong before it does what it should."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from evflow import config
from evflow.errors import UsageError

ANOTHER_LOG: Final = "An evflow.toml above the flow's file, or `env`, names another log. Set EVFLOW_REDIS_URL or EVFLOW_HOME for both."
"""The hint where the process and the one that started it use two logs."""
_ERROR: Final = "Error: "
_MOST_LINES: Final = 30
"""How much of what a flow's file printed an error repeats: its traceback's end."""


class FlowFileMissing(UsageError):
    """There is no such file."""

    code = "flow-file-missing"

    def __init__(self, file: Path, hint: str) -> None:
        super().__init__(f"There is no file '{file}'.", hint)


class ProcessFailed(UsageError):
    """A flow's process ended before it had done what it was started for. Message and hint are those that it printed.

    Args:
        what: What did not happen, for a process that printed no error of evflow's: `'flow.py' started no run`.

    Attributes:
        returncode: The exit code of that process; negative for a signal.
        stderr: All that it said.
    """

    def __init__(self, what: str, returncode: int, stderr: str) -> None:
        said = stderr.strip().splitlines()
        begin = max((index for index, line in enumerate(said) if line.startswith(_ERROR)), default=None)
        if begin is not None:
            super().__init__(said[begin].removeprefix(_ERROR), "\n".join(said[begin + 1 :]))
        else:
            super().__init__(f"{what}: its process ended with exit code {returncode}.", "\n".join(said[-_MOST_LINES:]))
        self.returncode = returncode
        self.stderr = stderr


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of such a process: that of this one, the log that this one uses, and what its caller gave it."""
    return {**os.environ, "EVFLOW_HOME": config.get("home"), "EVFLOW_REDIS_URL": config.get("redis_url") or "", **own}
