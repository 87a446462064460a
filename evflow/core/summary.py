"""A run's line in the index of runs: what lists show without reading its log."""

from evflow.core.state import RunState

OVER = frozenset({"succeeded", "failed", "cancelled"})
"""The statuses of runs that are over."""


def summary(state: RunState) -> dict[str, object]:
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
