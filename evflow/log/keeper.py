"""The log at a server, for all that read and those who look after its life: what is not there any more is read from its archive."""

from collections.abc import Mapping, Sequence

from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.log import keeping
from evflow.log.archived import LINGER_S, Archived, Archives, Projection
from evflow.log.client import RedisLogClient
from evflow.log.fallback import Fallback
from evflow.log.protocol import FlowEvent, Head, Inbound, RunEntry, StoredEvent
from evflow.log.transport import Connector, connect_blocking


class RedisLogKeeper(Fallback, RedisLogClient):
    """`evflow.log.archived.LogKeeper` over Redis.

    Args:
        url: The server.
        archives: Reads what is not there any more.
        connector: Makes connections.
    """

    def __init__(self, url: str, archives: Archives, connector: Connector = connect_blocking) -> None:
        super().__init__(url, connector)
        self.archives = archives

    # --- at the server ------------------------------------------------------------------------------------

    def hot_head(self, shard: str, run: RunId) -> Head:
        """See `LogKeeper.hot_head`."""
        return RedisLogClient.head(self, shard, run)

    def hot_read(self, shard: str, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """See `LogKeeper.hot_read`."""
        return RedisLogClient.read(self, shard, run, after, limit)

    def hot_follow(self, shard: str, run: RunId, after: int, timeout_s: float) -> list[StoredEvent]:
        """See `Fallback`."""
        return RedisLogClient.follow(self, shard, run, after, timeout_s)

    def hot_dropped(self, shard: str, run: RunId) -> dict[str, int]:
        """See `Fallback`."""
        return RedisLogClient.dropped(self, shard, run)

    def hot_flow_events(self, flow: FlowName, after: int, limit: int) -> list[FlowEvent]:
        """See `Fallback`."""
        return RedisLogClient.flow_events(self, flow, after, limit)

    def gone(self, shard: str, run: RunId) -> Archived | None:
        """See `Fallback`."""
        return self._do(keeping.gone(shard, run))

    def segment(self, flow: FlowName, number: int) -> Archived | None:
        """See `Fallback`."""
        return self._do(keeping.segment(flow, number))

    def archived(self, run: RunId) -> Archived | None:
        """See `LogKeeper.archived`."""
        return self._do(keeping.archived(run))

    def all_archived(self, flow: FlowName) -> dict[RunNumber, Archived]:
        """See `LogKeeper.all_archived`."""
        return self._do(keeping.all_archived(flow))

    def segments(self, flow: FlowName) -> dict[int, Archived]:
        """See `LogKeeper.segments`."""
        return self._do(keeping.segments(flow))

    def hot(self, flows: Sequence[FlowName], until_us: int | None, limit: int) -> list[list[RunNumber]]:
        """See `LogKeeper.hot`."""
        return self._do(keeping.hot(flows, until_us, limit)) if flows else []

    def look_again(self, run: RunId, at_us: int | None) -> None:
        """See `LogKeeper.look_again`."""
        self._do(keeping.look_again(run, at_us))

    def drop_run(self, shard: str, run: RunId, head: Head, linger_s: float = LINGER_S) -> bool:
        """See `LogKeeper.drop_run`."""
        return self._do(keeping.drop_run(shard, run, head, linger_s))

    def trim_flow(self, flow: FlowName, segment: int, archived: Archived) -> None:
        """See `LogKeeper.trim_flow`."""
        self._do(keeping.trim_flow(flow, segment, archived))

    def inbox(self, shard: str, after: bytes = b"0") -> list[Inbound]:
        """See `LogKeeper.inbox`."""
        return self._do(keeping.inbox(shard, after))

    def list_run(self, entry: RunEntry, *, only_missing: bool) -> bool:
        """See `LogKeeper.list_run`."""
        return self._do(keeping.list_run(entry, only_missing=only_missing))

    def heat(self, entry: RunEntry) -> None:
        """See `LogKeeper.heat`."""
        self._do(keeping.heat(entry))

    def unlist(self, run: RunId) -> None:
        """See `LogKeeper.unlist`."""
        self._do(keeping.unlist(run))

    def note(self, flow: FlowName, found: Mapping[RunNumber, Archived]) -> None:
        """See `LogKeeper.note`."""
        self._do(keeping.note(flow, found))

    def project(self, flow: FlowName, expected: Seq, projection: Projection) -> None:
        """See `LogKeeper.project`."""
        self._do(keeping.project(flow, expected, projection))
