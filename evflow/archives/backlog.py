"""How much of what should be in the store is at the server only: the events of runs that are over and not archived.

A log that is sealed never changes, so each is read once, a long one in part; and where all is archived nothing is read. What is due is known (see
`evflow.archives.keeping`).
"""

from collections.abc import Collection, Sequence
from typing import Final

from evflow.core.ids import FlowName, RunId
from evflow.log.archived import LogKeeper

MOST_RUNS: Final = 10_000
"""Runs of a flow that are counted."""
READ_AT_ONCE: Final = 50
"""Logs that are read in one look; the others count as those that are known, on average."""
_SAMPLE: Final = 1_000
"""Events that are read of a log; the rest counts as they do."""


class Backlog:
    """What was measured so far. Blocking.

    Args:
        log: The log.
    """

    def __init__(self, log: LogKeeper) -> None:
        self._log = log
        self._sizes: dict[RunId, int] = {}

    def bytes(self, flows: Sequence[FlowName], also: Collection[RunId] = ()) -> int:
        """The size of the events that wait to be archived.

        Args:
            flows: The flows.
            also: Runs that are not due, because they could not be archived.

        Raises:
            LogUnavailable: The server is away.
        """
        due = self._log.hot(flows, self._log.now_us(), MOST_RUNS)
        runs = {RunId(flow, number) for flow, numbers in zip(flows, due, strict=True) for number in numbers} | set(also)
        self._sizes = {run: size for run, size in self._sizes.items() if run in runs}
        unknown = sorted(runs - self._sizes.keys())
        for run in unknown[:READ_AT_ONCE]:
            size = self._measured(run)
            if size is not None:
                self._sizes[run] = size
        known = sum(self._sizes.values())
        return known + len(unknown[READ_AT_ONCE:]) * known // max(1, len(self._sizes))

    def _measured(self, run: RunId) -> int | None:
        """The size of a run's events; None where the run goes on, or has none at the server."""
        line = self._log.run(run)
        if line is None:
            return None
        head = self._log.hot_head(line.shard, run)
        if head.status != "sealed":
            return None
        events = self._log.hot_read(line.shard, run, 0, _SAMPLE)
        return sum(len(event.payload) for event in events) * int(head.seq) // max(1, len(events))
