"""A run on the pure core, fact by fact: for tests that say exactly what happens.

run = CoreRun(node("start", "a"), node("a", "end"), node("end"))
run.begin(1); run.done(1, "a")
"""

from typing import Any

from evflow.core import canonical, chain, events as ev
from evflow.core.apply import apply
from evflow.core.codec import Record, encode
from evflow.core.decide import LOGIC, settle
from evflow.core.graph import Graph, Node, Policy
from evflow.core.ids import Micros, Seq
from evflow.core.state import RunState, Task
from evflow.log.protocol import Head, StoredEvent

SECOND = 1_000_000


def node(name: str, *out: str, kind: str = "", **policy: Any) -> Node:
    """A step; one whose name begins with `join` takes inputs, one that leads nowhere is the end."""
    joins = name.startswith("join")
    usual = "join" if joins else "end" if not out else "linear" if len(out) == 1 else "split"
    variable = "xs" if kind == "foreach" else None
    return Node(name, kind or usual, out, joins, foreach=variable, policy=Policy(**policy))


def fan(*between: Node) -> tuple[Node, ...]:
    """start -foreach-> body -> join -> end, or other steps in place of the body."""
    body = between or (node("body", "join"),)
    return node("start", body[0].name, kind="foreach"), *body, node("join", "end"), node("end")


class CoreRun:
    """A run, turn by turn.

    Attributes:
        state: What its events fold to.
        records: Its events.
        now: The instant of the last turn, in microseconds.
    """

    def __init__(self, *nodes: Node, logic: int = LOGIC, **options: Any) -> None:
        self.state = RunState()
        self.records: list[Record] = []
        self.now = 1_000 * SECOND
        end = "end" if any(item.name == "end" for item in nodes) else nodes[-1].name
        graph = Graph({item.name: item for item in nodes}, end=end)
        self.turn(ev.RunStarted("TestFlow", 1, logic, graph.to_plain(), b"p" * 32, {}, options, {}, "ada", ""))

    def turn(self, *facts: ev.Event, later_us: int = 1_000) -> list[ev.Event]:
        """A turn of these facts; returns what was decided."""
        self.now += later_us
        number = self.state.turn + 1
        for fact in facts:
            record = Record(Seq(self.state.seq + 1), number, Micros(self.now), "test", 0, fact)
            apply(self.state, record)
            self.records.append(record)
        decided = settle(self.state, number, self.now)
        self.records += decided
        return [record.event for record in decided]

    def wait(self, later_us: int) -> list[ev.Event]:
        """Let time pass, and a turn without facts happen."""
        return self.turn(later_us=later_us)

    def grant(self, *tasks: int) -> list[ev.Event]:
        """Give slots."""
        return self.turn(*(ev.SlotGranted(task, self.number(task), slot, "for a test") for slot, task in enumerate(tasks)))

    def begin(self, *tasks: int) -> list[ev.Event]:
        """Give slots and start the attempts."""
        self.grant(*tasks)
        return self.turn(*(ev.AttemptStarted(task, self.number(task), "box", 100 + task, self.now) for task in tasks))

    def success(self, task: int, *steps: str, kind: str = "", splits: int = 0, **fields: Any) -> ev.AttemptSucceeded:
        """A worker's report of a body that came to its end; no steps mean the end of the run."""
        kind = kind or ("foreach" if splits else "end" if not steps else "linear" if len(steps) == 1 else "split")
        items, variable = (b"i" * 32, "xs") if kind == "foreach" else (None, None)
        manifest = f"{task}.{self.number(task)}".encode().ljust(32, b".")
        return ev.AttemptSucceeded(task, self.number(task), manifest, kind, steps, splits, items, variable, **fields)

    def done(self, task: int, *steps: str, kind: str = "", splits: int = 0) -> list[ev.Event]:
        """The task's attempt ends well; it is started first where it was not."""
        if self.state.tasks[task].status == "queued":
            self.begin(task)
        return self.turn(self.success(task, *steps, kind=kind, splits=splits))

    def fail(self, task: int, kind: str = "exception", **fields: Any) -> list[ev.Event]:
        """The task's attempt raises; it is started first where it was not."""
        if self.state.tasks[task].status == "queued":
            self.begin(task)
        return self.turn(ev.AttemptFailed(task, self.number(task), kind, "ValueError", "as told", **fields))

    def exit(self, task: int, *, code: int | None = None, signal: int | None = None, why: str = "") -> list[ev.Event]:
        """The task's process ends without a report."""
        if self.state.tasks[task].status == "queued":
            self.begin(task)
        return self.turn(ev.AttemptExited(task, self.number(task), code, signal, why))

    def cancel(self, *, forced: bool = False) -> list[ev.Event]:
        """Somebody asks for the end."""
        return self.turn(ev.RunCancelRequested("Ctrl-C", forced))

    def seal(self) -> "CoreRun":
        """End the log."""
        self.now += 1_000
        payloads = self.payloads()
        digest = chain.links(chain.START, payloads)[-1]
        seal = ev.RunSealed(canonical.digest(self.state), digest, self.state.seq, self.state.late)
        record = Record(Seq(self.state.seq + 1), self.state.turn + 1, Micros(self.now), "scheduler", self.state.seq, seal)
        apply(self.state, record)
        self.records.append(record)
        return self

    def task(self, number: int) -> Task:
        """A task."""
        return self.state.tasks[number]

    def number(self, task: int) -> int:
        """The number of the task's current attempt."""
        attempts = self.state.tasks[task].attempts
        return attempts[-1].number if attempts else 0

    def steps(self) -> list[str]:
        """The steps of all tasks, by task."""
        return [task.step for task in self.state.all_tasks()]

    def payloads(self) -> list[bytes]:
        """The log's events as bytes."""
        return [pack(record) for record in self.records]

    def stored(self) -> list[StoredEvent]:
        """The log."""
        return stored(self.payloads())

    def head(self) -> Head:
        """Where the log ends."""
        return head_of(self.payloads(), sealed=self.state.sealed)


def pack(record: Record) -> bytes:
    """A record as bytes."""
    return encode(record.event, turn=record.turn, at_us=record.at_us, principal=record.principal, cause=record.cause)


def stored(payloads: list[bytes]) -> list[StoredEvent]:
    """A log with these events, its chain computed anew."""
    links = chain.links(chain.START, payloads)
    return [StoredEvent(seq, payload, link[: chain.LINK_BYTES]) for seq, (payload, link) in enumerate(zip(payloads, links, strict=True), 1)]


def head_of(payloads: list[bytes], *, sealed: bool = True) -> Head:
    """The head of a log with these events."""
    return Head(len(payloads), chain.links(chain.START, payloads)[-1], "sealed" if sealed else "active")


def kinds(events: list[ev.Event]) -> list[str]:
    """The names of the events' classes."""
    return [type(event).__name__ for event in events]
