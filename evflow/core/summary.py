"""A run's line in the index of runs: what lists show without reading its log."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evflow.core.state import RunState

ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""The statuses of runs that began and are over."""
REFUSED = "refused"
"""The status of a run that was asked for and never begins: no scheduler can carry it out."""
GIVEN_UP = "given-up"
"""The status of a run that a server lost, and whose owner did not write it again."""
GONE = frozenset({REFUSED, GIVEN_UP})
"""The statuses of runs that have no log and never get one. One that has a log all the same is what that says."""
OVER = ENDED | GONE
"""The statuses of runs that nothing more happens to."""


def summary(state: "RunState") -> dict[str, object]:
    """The line that the state of a run makes."""
    header = state.header
    return {
        "status": state.phase,
        "started_us": state.started_us,
        "finished_us": state.finished_us,
        "user": header.get("user", ""),
        "host": header.get("host", ""),
        "store": header.get("store", ""),
        "namespace": header.get("namespace", ""),
        "tags": list(header.get("tags", ())),
        "system_tags": list(header.get("system_tags", ())),
        "origin": header.get("origin"),
        "file": header.get("code", {}).get("file", ""),
        "tasks": len(state.tasks) - 1,
        "events": state.seq,
        "reason": state.outcome.reason[:300] if state.outcome else "",
        "priority": state.priority,
    }
