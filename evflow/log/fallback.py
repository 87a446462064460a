"""The log as it is wherever its parts are: what is not at the server any more is read from its archive.

This is the one place that knows the difference. Commands, client, replay and the scheduler ask `head`, `read`, `follow`, `dropped` and
`flow_events`, and are not told where the answer is from. An archive costs nothing until something is missing at the server.
"""

from abc import ABC, abstractmethod

from evflow.core.ids import FlowName, RunId
from evflow.log.archived import SEGMENT_EVENTS, Archived, Archives
from evflow.log.protocol import FlowEvent, Head, StoredEvent


class Fallback(ABC):
    """These five questions, answered from the server, else from an archive. `hot_` is what the server alone says.

    Attributes:
        archives: Reads archives.
    """

    archives: Archives

    @abstractmethod
    def hot_head(self, shard: str, run: RunId) -> Head:
        """As `LogClient.head`."""

    @abstractmethod
    def hot_read(self, shard: str, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """As `LogClient.read`."""

    @abstractmethod
    def hot_follow(self, shard: str, run: RunId, after: int, timeout_s: float) -> list[StoredEvent]:
        """As `LogClient.follow`."""

    @abstractmethod
    def hot_dropped(self, shard: str, run: RunId) -> dict[str, int]:
        """As `LogClient.dropped`."""

    @abstractmethod
    def hot_flow_events(self, flow: FlowName, after: int, limit: int) -> list[FlowEvent]:
        """As `LogClient.flow_events`."""

    @abstractmethod
    def archived(self, run: RunId) -> Archived | None:
        """As `LogKeeper.archived`."""

    @abstractmethod
    def gone(self, shard: str, run: RunId) -> Archived | None:
        """As `archived`, but None where the server has events of the run."""

    @abstractmethod
    def segment(self, flow: FlowName, number: int) -> Archived | None:
        """Where a segment of a flow's own log is, or None."""

    def head(self, shard: str, run: RunId) -> Head:
        """See `LogClient.head`."""
        found = self.hot_head(shard, run)
        if found.seq:
            return found
        archived = self.archived(run)
        return found if archived is None else archived.head

    def read(self, shard: str, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """See `LogClient.read`."""
        found = self.hot_read(shard, run, after, limit)
        if found:
            return found
        archived = self.gone(shard, run)
        return [] if archived is None else self.archives.read(str(run), archived, after, limit)

    def follow(self, shard: str, run: RunId, after: int, timeout_s: float) -> list[StoredEvent]:
        """See `LogClient.follow`."""
        if after == 0:  # else one waited for a run that is over
            found = self.read(shard, run)
            if found:
                return found
        return self.hot_follow(shard, run, after, timeout_s) or self.read(shard, run, after)

    def dropped(self, shard: str, run: RunId) -> dict[str, int]:
        """See `LogClient.dropped`."""
        found = self.hot_dropped(shard, run)
        if found:
            return found
        archived = self.gone(shard, run)
        return {} if archived is None else dict(self.archives.about(str(run), archived).get("dropped", {}))

    def flow_events(self, flow: FlowName, after: int = 0, limit: int = 5_000) -> list[FlowEvent]:
        """See `LogClient.flow_events`; fewer than `limit` where a segment ends, none only where the log does."""
        found = self.hot_flow_events(flow, after, limit)
        if not found or found[0].seq == after + 1:
            return found
        number = after // SEGMENT_EVENTS
        archived = self.segment(flow, number)
        if archived is None:  # events are missing and nobody knows where they are: what is left is shown
            return found
        begin = number * SEGMENT_EVENTS
        return [
            FlowEvent(begin + seq, payload) for seq, payload, _ in self.archives.read(f"{flow}'s own log", archived, after - begin, limit)
        ]
