"""What a run's tags may be."""

from collections.abc import Mapping
from typing import Any

MOST_TAGS = 50
"""User tags of a run."""
MOST_TAG_CHARS = 500

SCHEDULER = "scheduler"
"""The runtime of runs that schedulers carry out, in their system tag `runtime:`."""


def is_of_scheduler(about: Mapping[str, Any]) -> bool:
    """Whether schedulers carry a run out: by the fields of its `RunStarted`, or by its line in the index."""
    return f"runtime:{SCHEDULER}" in about.get("system_tags", ())


def fault(tag: str) -> str | None:
    """Why no run can have this tag, as a sentence; None where one can."""
    if not tag:
        return "A tag cannot be empty."
    if len(tag) > MOST_TAG_CHARS:
        return f"The tag that begins with {tag[:40]!r} has {len(tag)} characters; {MOST_TAG_CHARS} are the most that one may have."
    if not tag.isprintable():  # neither is a byte of the command line that is no UTF-8
        return f"The tag {tag!r} has characters that cannot be shown."
    return None
