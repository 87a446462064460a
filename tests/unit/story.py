"""A run told by its facts: the real core decides and folds, a view (or a list) listens.

story = Story(graph(...)).start()
story.succeed(1, foreach("train", 24))
story.fail(7, "ValueError", "nope", "train.py:31")
"""

from collections.abc import Callable

from evflow.core import canonical, chain, events as ev, flow_events
from evflow.core.apply import apply
from evflow.core.codec import Record, encode
from evflow.core.decide import settle
from evflow.core.graph import Graph, Node, Policy
from evflow.core.ids import FlowName, Micros, RunId, RunNumber, Seq
from evflow.core.state import RunState
from evflow.core.summary import summary
from evflow.log.protocol import AppendCall, Head, RunEntry
from evflow.testing.simulated_log import SimulatedLogClient
from evflow.testing.simulated_server import SimulatedServer

NOON_US = 1_795_435_200_000_000
"""2026-11-23 12:00:00 UTC."""
SECOND = 1_000_000


def graph(*nodes: Node) -> Graph:
    """A graph of these nodes, in their order."""
    return Graph({node.name: node for node in nodes})


def cross_validation(*, retries: int = 0, delay_s: float = 0) -> Graph:
    """start -> foreach train -> join -> end."""
    policy = Policy(retry_times=retries, retry_explicit=bool(retries), retry_delay_us=int(delay_s * SECOND))
    return graph(
        Node("start", "foreach", ("train",), foreach="folds", file="/flows/cv.py", line=10, doc="Load the data."),
        Node("train", "linear", ("join",), file="/flows/cv.py", line=20, policy=policy, decorators=("@retry(times=2)",) if retries else ()),
        Node("join", "join", ("end",), takes_inputs=True, file="/flows/cv.py", line=30),
        Node("end", "end", file="/flows/cv.py", line=40),
    )


class Story:
    """A run, turn by turn.

    Args:
        shape: The flow's graph.
        slots: Attempts at once.
        listener: Called with each record after it was folded, and the state.
        store: The URL of the run's store.
    """

    def __init__(
        self,
        shape: Graph,
        *,
        slots: int = 4,
        flow: str = "TrainFlow",
        number: int = 3,
        listener: Callable[[Record, RunState], None] | None = None,
        store: str = "",
    ) -> None:
        self.state = RunState()
        self.records: list[Record] = []
        self.now_us = NOON_US
        self._shape, self._slots, self._flow, self._number = shape, slots, flow, number
        self._listener = listener
        self._store = store
        self._turn = 0

    def start(self) -> "Story":
        """Begin the run; its first task gets a slot."""
        header = ev.RunStarted(
            self._flow, self._number, 1, self._shape.to_plain(), bytes(32), {}, {"max_splits": 0}, {}, "ada", "user:ada",
            store=self._store,
        )  # fmt: skip
        return self.turn(header)

    def wait(self, seconds: float) -> "Story":
        """Let time pass; what is due by then happens."""
        self.now_us += int(seconds * SECOND)
        return self.turn()

    def succeed(self, task: int, *steps: str, kind: str = "linear", splits: int = 0, took_s: float = 1.0) -> "Story":
        """The task's attempt ends well; no steps mean the end."""
        took = int(took_s * SECOND)
        event = ev.AttemptSucceeded(
            task, self._attempt(task), bytes(32), kind if steps else "end", steps, splits,
            started_us=self.now_us - took, ended_us=self.now_us,
        )  # fmt: skip
        return self.turn(event)

    def fail(self, task: int, error: str = "builtins.ValueError", message: str = "nope", where: str = "") -> "Story":
        """The task's attempt raises."""
        return self.turn(ev.AttemptFailed(task, self._attempt(task), "exception", error, message, where))

    def exit(self, task: int, *, signal: int | None = None, code: int | None = None) -> "Story":
        """The task's process ends without a report."""
        return self.turn(ev.AttemptExited(task, self._attempt(task), code, signal))

    def cancel(self, reason: str = "Ctrl-C") -> "Story":
        """Somebody cancels the run."""
        return self.turn(ev.RunCancelRequested(reason))

    def turn(self, *facts: ev.Event) -> "Story":
        """A turn of these facts, then turns for the slots that they freed, until nothing follows."""
        while True:
            self._turn += 1
            for fact in facts:
                self._fold(Record(Seq(self.state.seq + 1), self._turn, Micros(self.now_us), "worker:box:1", 0, fact))
            for record in settle(self.state, self._turn, self.now_us):
                self._tell(record)
            facts = self._grants()
            if not facts:
                return self

    def _grants(self) -> tuple[ev.Event, ...]:
        state = self.state
        free = [] if state.stopping else list(state.waiting)[: self._slots - len(state.live)]
        granted: list[ev.Event] = [ev.SlotGranted(task, self._attempt(task), slot) for slot, task in enumerate(free)]
        started = [task for task in state.live if state.tasks[task].status == "launched"]
        return (*granted, *(ev.AttemptStarted(task, self._attempt(task), "box", 4000 + task, self.now_us) for task in started))

    def _attempt(self, task: int) -> int:
        return self.state.tasks[task].attempt.number

    def _fold(self, record: Record) -> None:
        apply(self.state, record)
        self._tell(record)

    def _tell(self, record: Record) -> None:
        self.records.append(record)
        if self._listener is not None:
            self._listener(record, self.state)

    # --- the log that the story leaves ---------------------------------------------------------------------

    @property
    def run(self) -> RunId:
        """The run's name."""
        return RunId(FlowName(self._flow), RunNumber(self._number))

    def seal(self) -> "Story":
        """End the log."""
        before = self._payloads()
        event = ev.RunSealed(canonical.digest(self.state), ([chain.START, *chain.links(chain.START, before)])[-1], len(before))
        self._turn += 1
        self._fold(Record(Seq(self.state.seq + 1), self._turn, Micros(self.now_us), "scheduler", 0, event))
        return self

    def write_to(self, server: SimulatedServer, *, owned: bool = False) -> "Story":
        """Put the log and the run's line in the index into a server.

        Args:
            server: The server.
            owned: Somebody holds the shard's lease.
        """
        shard = f"run:{self._flow}:{self._number}"
        call = self.call()
        lease = server.write(lambda state: state.take(shard, "box:1", 30.0, server.now_us()))
        server.write(lambda state: state.append(lease, call))
        if not owned:
            server.write(lambda state: state.release(lease))
        client = SimulatedLogClient(server)
        client.index_run(RunEntry(self.run, shard, summary(self.state)))
        requested = flow_events.encode(flow_events.RunRequested(0, "ada"), at_us=NOON_US, principal="user:ada")
        while client.request_run(self.run.flow, requested) < self._number:
            continue
        return self

    def call(self) -> AppendCall:
        """All that happened so far, as its owner appends it."""
        payloads = self._payloads()
        status = "sealed" if self.state.sealed else "active"
        return AppendCall(self.run, Head(), payloads, chain.links(chain.START, payloads), status=status)

    def _payloads(self) -> list[bytes]:
        return [encode(r.event, turn=r.turn, at_us=r.at_us, principal=r.principal, cause=r.cause) for r in self.records]
