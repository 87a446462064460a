"""The simulated log for those who look after its life: `LogKeeper` on a simulated server."""

from collections.abc import Mapping, Sequence

from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.log import archived as notes
from evflow.log.archived import LINGER_S, Archived, Archives, Projection
from evflow.log.fallback import Fallback
from evflow.log.flow_commands import look_at_us
from evflow.log.protocol import FlowEvent, Head, Inbound, RunEntry, StoredEvent
from evflow.testing.simulated_log import SimulatedLogClient, line_of, received
from evflow.testing.simulated_server import SimulatedServer

_SEGMENT = "log:"


class SimulatedLogKeeper(Fallback, SimulatedLogClient):
    """`evflow.log.archived.LogKeeper` on a simulated server."""

    def __init__(self, server: SimulatedServer, archives: Archives) -> None:
        super().__init__(server)
        self.archives = archives

    def hot_head(self, shard: str, run: RunId) -> Head:
        """See `LogKeeper.hot_head`."""
        return SimulatedLogClient.head(self, shard, run)

    def hot_read(self, shard: str, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """See `LogKeeper.hot_read`."""
        return SimulatedLogClient.read(self, shard, run, after, limit)

    def hot_follow(self, shard: str, run: RunId, after: int, timeout_s: float) -> list[StoredEvent]:
        """See `Fallback`."""
        return SimulatedLogClient.follow(self, shard, run, after, timeout_s)

    def hot_dropped(self, shard: str, run: RunId) -> dict[str, int]:
        """See `Fallback`."""
        return SimulatedLogClient.dropped(self, shard, run)

    def hot_flow_events(self, flow: FlowName, after: int, limit: int) -> list[FlowEvent]:
        """See `Fallback`."""
        return SimulatedLogClient.flow_events(self, flow, after, limit)

    def gone(self, shard: str, run: RunId) -> Archived | None:
        """See `Fallback`."""
        return None if self._live().state.run(shard, run).events else self.archived(run)

    def segment(self, flow: FlowName, number: int) -> Archived | None:
        """See `Fallback`."""
        return self.segments(flow).get(number)

    def archived(self, run: RunId) -> Archived | None:
        """See `LogKeeper.archived`."""
        return self.all_archived(run.flow).get(run.number)

    def all_archived(self, flow: FlowName) -> dict[RunNumber, Archived]:
        """See `LogKeeper.all_archived`."""
        kept = self._flow(flow).archives.items()
        return {RunNumber(int(name)): notes.unpacked(packed) for name, packed in kept if not name.startswith(_SEGMENT)}

    def segments(self, flow: FlowName) -> dict[int, Archived]:
        """See `LogKeeper.segments`."""
        kept = self._flow(flow).archives.items()
        return {int(name.removeprefix(_SEGMENT)): notes.unpacked(packed) for name, packed in kept if name.startswith(_SEGMENT)}

    def hot(self, flows: Sequence[FlowName], until_us: int | None, limit: int) -> list[list[RunNumber]]:
        """See `LogKeeper.hot`."""

        def of(flow: FlowName) -> list[RunNumber]:
            waiting = sorted(self._flow(flow).hot.items(), key=lambda item: (item[1], str(item[0])))
            return [RunNumber(number) for number, at_us in waiting if until_us is None or at_us <= until_us][:limit]

        return [of(flow) for flow in flows]

    def look_again(self, run: RunId, at_us: int | None) -> None:
        """See `LogKeeper.look_again`."""
        if at_us is None:
            self._live().write(lambda state: state.flow(run.flow).hot.pop(run.number, None))
        else:
            self._live().write(lambda state: state.flow(run.flow).hot.update({run.number: at_us}))

    def drop_run(self, shard: str, run: RunId, head: Head, linger_s: float = LINGER_S) -> bool:
        """See `LogKeeper.drop_run`."""
        return self._live().write(lambda state: state.drop_run(shard, run, head, lingers=linger_s > 0))

    def trim_flow(self, flow: FlowName, segment: int, archived: Archived) -> None:
        """See `LogKeeper.trim_flow`."""
        self._live().write(lambda state: state.trim_flow(flow, segment, notes.pack(archived)))

    def inbox(self, shard: str, after: bytes = b"0") -> list[Inbound]:
        """See `LogKeeper.inbox`."""
        return received(self._live(), shard, after)

    def list_run(self, entry: RunEntry, *, only_missing: bool) -> bool:
        """See `LogKeeper.list_run`."""
        missing = entry.run.number not in self._flow(entry.run.flow).lines
        if missing or not only_missing:
            self._live().write(lambda state: state.index_run(entry.run, line_of(entry)))
        return missing

    def heat(self, entry: RunEntry) -> None:
        """See `LogKeeper.heat`."""
        look = look_at_us(entry)
        self._live().write(lambda state: state.flow(entry.run.flow).hot.setdefault(entry.run.number, look[0] if look else 0))

    def unlist(self, run: RunId) -> None:
        """See `LogKeeper.unlist`."""
        self._live().write(lambda state: state.unlist(run))

    def note(self, flow: FlowName, found: Mapping[RunNumber, Archived]) -> None:
        """See `LogKeeper.note`."""
        packed = {str(number): notes.pack(archived) for number, archived in found.items()}
        self._live().write(lambda state: state.note(flow, packed))

    def project(self, flow: FlowName, expected: Seq, projection: Projection) -> None:
        """See `LogKeeper.project`."""
        if projection.backfills:
            self._live().write(lambda state: state.register_backfilled(flow))
        self._live().write(lambda state: state.project(flow, expected, projection))
