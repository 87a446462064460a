"""Whose rules of the flow language are in force in this process: evflow's own, or Metaflow's where those are stricter.

Under Metaflow's, a join does not read what `merge_artifacts` did not merge, and a function on `self` is no artifact, silently. A process speaks it
from its first `import metaflow` that evflow answers (`evflow.compat.metaflow`). The run records it, so that whoever loads the flow's file for the run,
on whatever machine, answers that import too.
"""

import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Final

METAFLOW: Final = "metaflow"
OPTION: Final = "dialect"
"""The option of a run that names it; left out for evflow's own."""

_SYSTEM_TAGS: Final = ("evflow_version:", "metaflow_version:", "project:", "project_branch:", "python_version:", "runtime:", "user:")

_MODULE: Final = "evflow.compat.metaflow"

_spoken = ""
_taught = False
"""Whether a run's record was what brought the module here, and not how the process was started."""


def speak(name: str) -> None:
    """Put a dialect in force: `METAFLOW`, or an empty string for evflow's own."""
    global _spoken
    _spoken = name


def is_metaflow() -> bool:
    """Whether Metaflow's rules are in force."""
    return _spoken == METAFLOW


def recorded() -> dict[str, str]:
    """The option for a run that begins in this process."""
    return {OPTION: _spoken} if _spoken else {}


def tags_of(tags: Iterable[str]) -> tuple[str, ...]:
    """What `current.tags` has of a run's tags: all, or under Metaflow's rules those that people gave it."""
    return tuple(tag for tag in tags if not (is_metaflow() and tag.startswith(_SYSTEM_TAGS)))


def temporary_folder() -> str | None:
    """The folder for temporary files that Metaflow's settings name, under its rules."""
    if not is_metaflow():
        return None
    found: str | None = import_module("evflow.compat.metaflow.settings").temporary_folder()  # by name, as below
    return found


def understand(options: Mapping[str, Any]) -> None:
    """Get ready to load the flow's file of a run with these options.

    Raises:
        UsageError: The process uses the module that the dialect stands for itself.
    """
    global _taught
    if options.get(OPTION) == METAFLOW:
        _taught = _taught or _MODULE not in sys.modules
        # By name: that package stands above the flow language, and only this asks upwards.
        import_module(_MODULE).install()


def needs_module(options: Mapping[str, Any]) -> bool:
    """Whether `python FILE`, typed where this process was, would not find the `metaflow` of a run with these options."""
    return options.get(OPTION) == METAFLOW and (_taught or _MODULE not in sys.modules)
