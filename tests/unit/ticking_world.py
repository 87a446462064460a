"""A flow with a schedule, deployed in a simulated log whose clock a test sets, and processes that may die at any act."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from evflow import FlowSpec, Parameter, schedule, step
from evflow.core import flow_events
from evflow.core.codec import decode_report
from evflow.core.deployments import Deployment, Deployments, fold, tick_of
from evflow.core.events import Event, RunStarted
from evflow.core.flow_events import FlowDeployed, FlowRecord, RunRequested, ScheduleTicked
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.deployments.book import Book
from evflow.deployments.catalog import Reference, change, deployed, existing
from evflow.log.errors import LogConnectionLost
from evflow.log.flow_commands import NumbersUnknown
from evflow.log.keys import shared_shard
from evflow.log.protocol import LogClient, RunEntry
from evflow.testing.faults import Crash
from evflow.testing.simulated_log import SimulatedLogClient
from evflow.testing.simulated_server import SimulatedServer
from tests.unit.deploy_world import NOW_US, World

TICKING = FlowName("Ticking")
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
NOON_US = NOW_US
"""A full hour."""
NO_EVENT = b"\xc0"
"""What a test puts into the log where only what is beside it matters."""
CHANGING = frozenset({"request_run", "append_flow", "index_run", "report", "look_at"})


class Plain(FlowSpec):
    """A flow whose runs can begin by themselves."""

    size = Parameter("size", default=3)

    @step
    def start(self) -> None:
        """Begin."""
        self.next(self.end)

    @step
    def end(self) -> None:
        """End."""


def ticking(**fields: Any) -> type:
    """The flow with a schedule; each full hour if nothing is said."""
    said: dict[str, Any] = {"cron": "0 * * * *", **fields}
    return schedule(**said)(type(TICKING, (Plain,), {"__module__": __name__}))


class Mortal:
    """A client whose process dies, or whose connection breaks, before or after one of the acts that change something.

    Each act has two such points; what has fewer acts than that lives.
    """

    def __init__(self, log: SimulatedLogClient, point: int, kind: Literal["crash", "lost", "none"] = "crash") -> None:
        self._log = log
        self._left = point
        self._kind = kind
        self.struck = False

    def __getattr__(self, name: str) -> Any:
        act: Callable[..., Any] = getattr(self._log, name)
        if name not in CHANGING:
            return act

        def struck(*given: Any, **named: Any) -> Any:
            self._pass(name)
            try:
                found = act(*given, **named)
            except NumbersUnknown:  # asked again with the number: only that is an act
                self._left += 1
                raise
            self._pass(name)
            return found

        return struck

    def offer_run(self, entry: RunEntry, payload: bytes, *, patience_s: float = 60.0) -> bool:
        """Two acts in one exchange, which may end between them."""
        self.index_run(entry)
        return bool(self.report(entry.shard, entry.run, payload, patience_s=patience_s))

    def _pass(self, act: str) -> None:
        self._left -= 1
        if self._left == -1 and self._kind != "none":
            self.struck = True
            if self._kind == "crash":
                raise Crash(act, 0)
            raise LogConnectionLost("simulation", act)


class Overtaken(Mortal):
    """A client whose process is slow: somebody else acts right before it asks for a run."""

    def __init__(self, log: SimulatedLogClient, others: Callable[[], object]) -> None:
        super().__init__(log, 0, "none")
        self._others = others

    def __getattr__(self, name: str) -> Any:
        if name == "request_run":
            self._others()
        return super().__getattr__(name)


class TickWorld(World):
    """The world of deployments, with a clock."""

    flow = TICKING

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.now_us = NOON_US
        self.server = SimulatedServer(lambda: self.now_us)
        self.log = SimulatedLogClient(self.server)

    def book(self, log: "LogClient | Mortal | None" = None) -> Book:
        """What a process that has just begun knows."""
        return Book(cast("LogClient", log or self.log), "box")

    def look(self, book: Book | None = None) -> float:
        """Let a process look, a new one if none is given."""
        return (book or self.book()).look(lambda _: True)

    def schedule(self, **fields: Any) -> None:
        """Deploy the flow."""
        self.deploy(ticking(**fields))

    def change(self, event: Event) -> None:
        """Pause, unpause, undeploy."""
        wanted = Reference(self.flow)
        change(self.log, wanted, existing(self.log, wanted, event), user="ada")

    @property
    def deployment(self) -> Deployment:
        """What is deployed."""
        return deployed(self.log, self.flow)["default"]

    @property
    def records(self) -> list[FlowRecord]:
        """The flow's log."""
        return [flow_events.decode(*stored) for stored in self.log.flow_events(self.flow) if stored.payload != NO_EVENT]

    @property
    def folded(self) -> Deployments:
        """What the log makes of it."""
        return fold(self.records)

    @property
    def decisions(self) -> list[tuple[int, str]]:
        """Each tick, in hours after noon, and `run` or the reason why it is skipped."""
        found: list[tuple[int, str]] = []
        for record in self.records:
            tick_us = tick_of(record.event)
            if tick_us is not None:
                reason = record.event.reason if isinstance(record.event, ScheduleTicked) else "run"
                found.append(((tick_us - NOON_US) // HOUR_US, reason))
        return found

    @property
    def requested(self) -> list[RunId]:
        """The runs that were asked for."""
        return [RunId(self.flow, RunNumber(record.event.number)) for record in self.records if isinstance(record.event, RunRequested)]

    def offers(self, run: RunId) -> list[RunStarted]:
        """The offers of a run that wait in its shard's inbox."""
        waiting = [entry for entry in self.server.state.shard(shared_shard(run)).inbox.values() if entry[0] == str(run)]
        events = [decode_report(payload)[0] for _, payload in waiting]
        return [event for event in events if isinstance(event, RunStarted)]

    def check(self) -> None:
        """Each tick is decided once, each run offered, and what is deployed is what the log says."""
        assert deployed(self.log, TICKING) == self.folded.current
        last: tuple[Any, int] = (None, 0)
        for record in self.records:
            tick_us = tick_of(record.event)
            if isinstance(record.event, FlowDeployed) and record.event.schedule != last[0]:
                last = (record.event.schedule, 0)
            elif tick_us is not None:
                since_us = getattr(record.event, "since_us", 0) or tick_us
                assert last[1] < since_us <= tick_us, record
                last = (last[0], tick_us)
        for run in self.requested:
            offers = self.offers(run)
            assert offers, f"{run} was not offered"
            assert all(offer == offers[0] for offer in offers), run
            assert self.log.run(run) is not None
