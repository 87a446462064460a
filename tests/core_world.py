"""A run of a random flow on the pure core: no server, no process, any order of events that a world may bring."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

from evflow.core import events as ev
from evflow.core.admit import Capacity, Slots, Waiting, admit
from evflow.core.chain import LINK_BYTES, extend
from evflow.core.codec import Record
from evflow.core.decide import LOGIC
from evflow.core.gangs import lead_of, nodes_of
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.core.state import RunState, Task
from evflow.log.protocol import Head, StoredEvent
from evflow_scheduler.run import OwnedRun
from tests.random_flows import RandomFlow, choose

RUN = RunId(FlowName("RandomFlow"), RunNumber(1))
TASK_BUDGET = 300
"""Of a run: one that loops for ever ends."""


@dataclass
class CoreWorld:
    """Brings about what happens to a run, in an order drawn from `random`.

    Attributes:
        stored: The log.
        lossy: Attempts may also be lost, crash, report twice or report late.
        controlled: What fails is held, and somebody pauses, resumes, retries and skips at random moments.
    """

    flow: RandomFlow
    random: Random
    lossy: bool = False
    controlled: bool = False
    slots: int = 4
    max_splits: int = 100
    run: OwnedRun = field(default_factory=lambda: OwnedRun(RUN))
    stored: list[StoredEvent] = field(default_factory=list)
    now: int = 1_000_000
    turn_digests: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._digest = Head().digest
        self._slots = Slots(Capacity(self.slots))
        self._late: list[ev.Event] = []

    def start(self) -> None:
        """Append the first turn."""
        options = {
            "max_splits": self.max_splits,
            "task_budget": TASK_BUDGET,
            "retry_scale": 0,
            "on_failure": "pause" if self.controlled else "fail",
        }
        self.turn(ev.RunStarted("RandomFlow", 1, LOGIC, self.flow.graph().to_plain(), b"p" * 32, {}, options, {}, "ada", ""))

    def play(self, limit: int = 5_000) -> None:
        """Let things happen until the run is sealed.

        Raises:
            AssertionError: It is not over, and nothing is left that could wake it (I10).
        """
        self.start()
        for _ in range(limit):
            if self.run.state.over:
                self._keep(self.run.seal(self.now))
                return
            self.step()
        raise AssertionError(f"not over after {limit} events: {self.run.state.status}")

    @property
    def outgrown(self) -> bool:
        """The flow has more tasks than its budget: the run failed for that, whatever its steps did."""
        state = self.run.state
        return state.failing is not None and state.failing.code == "task-budget" and sum(1 for _ in state.all_tasks()) >= TASK_BUDGET

    @property
    def holds_what_failed(self) -> bool:
        """All that failed is held; in a run that was failing itself, for its budget or its form, what failed meanwhile is not."""
        state = self.run.state
        failed = {task.id for task in state.all_tasks() if task.status == "failed"}
        return state.held.keys() == failed or (state.failing is not None and state.held.keys() < failed)

    def step(self) -> None:
        """One thing that may happen now."""
        self.now += self.random.randint(0, 2_000)
        state = self.run.state
        self._free()
        ways = []
        if state.takes_slots and self._slots.unused:
            ways.append(self._grant)
        if state.live:
            ways += [self._report] * 3
        if self._late:
            ways.append(self._repeat)
        if self.controlled and (state.paused or self.random.random() < 0.2):
            ways.append(self._interfere)
        if not ways:
            due = state.next_timer_us()
            assert due is not None, "nothing will ever wake the run"
            self.now = max(self.now, due)
            self.turn()
            return
        self.random.choice(ways)()

    def turn(self, *facts: ev.Event) -> None:
        """Append one turn."""
        self._keep(self.run.turn([(fact, "test", 0) for fact in facts], self.now))

    def _grant(self) -> None:
        state = self.run.state
        waiting = [Waiting(AttemptId(RUN, TaskId(n), state.tasks[n].attempt.number)) for n in state.waiting]
        grants = admit(self._slots, _together(state, waiting)).grants
        self.turn(*(ev.SlotGranted(g.attempt.task, g.attempt.attempt, g.slot, g.reason) for g in grants))

    def _free(self) -> None:
        state = self.run.state
        for attempt in list(self._slots.taken):
            if attempt.task not in state.live or state.tasks[attempt.task].attempt.number != attempt.attempt:
                self._slots.free(attempt)

    def _report(self) -> None:
        task = self.run.state.tasks[self.random.choice(list(self.run.state.live))]
        number = task.attempt.number
        if task.status == "launched" and self.random.random() < 0.8:
            self.turn(ev.AttemptStarted(task.id, number, "host", 100 + task.id, self.now))
            return
        if task.attempt.cancel:
            self.turn(ev.AttemptExited(task.id, number, None, 15))
            return
        if self.lossy and self.random.random() < 0.08:
            self.turn(ev.AttemptExited(task.id, number, *self.random.choice([(None, 9, ""), (3, None, ""), (None, None, "owner-died")])))
            self._late.append(self._result(task, number))
            return
        result = self._result(task, number)
        if self.lossy and self.random.random() < 0.2:
            self._late.append(result)
        self.turn(result)

    def _interfere(self) -> None:
        """Somebody asks for something; whether it has an effect is not looked at, unless nothing else can go on."""
        state, random = self.run.state, self.random
        tasks = [task.id for task in state.all_tasks()]
        number = next(iter(state.held), None) if state.held and random.random() < 0.7 else random.choice(tasks)
        assert number is not None
        node = state.graph[state.tasks[number].step]
        chosen = random.choice(["", *node.out]) if len(node.out) > 1 else ""
        asked: list[ev.Fact] = [
            ev.RunPauseRequested("a look at it"),
            ev.RunResumeRequested(),
            ev.RunPriorityRequested(random.randint(-3, 3)),
            ev.TaskRetryRequested(number),
            ev.TaskSkipRequested(number, chosen),
        ]
        if state.stuck is not None and random.random() < 0.05:
            asked = [ev.RunCancelRequested("in despair")]
        self.turn(*random.choices(asked, (1, 3, 1, 3, 3) if len(asked) > 1 else None, k=random.choice((1, 1, 1, 2))))

    def _repeat(self) -> None:
        self.turn(self._late.pop(self.random.randrange(len(self._late))))

    def _result(self, task: Task, attempt: int) -> ev.Event:
        step = self.flow[task.step]
        caught = step.caught and task.failures >= (step.retries or 0)
        index = task.frame.index if task.frame is not None else 0
        if step.fails_at(attempt - task.losses, index) and task.attempt.mode == "run" and not caught:
            return ev.AttemptFailed(task.id, attempt, "exception", "ValueError", "as told")
        kind, steps, splits = self._transition(task)
        manifest = f"{task.id}.{attempt}".encode().ljust(32, b".")
        return ev.AttemptSucceeded(task.id, attempt, manifest, kind, steps, splits, None, None, None, 1, 10, self.now, self.now)

    def _transition(self, task: Task) -> tuple[str, tuple[str, ...], int]:
        step = self.flow[task.step]
        place = tuple(frame.index for frame in task.frames() if frame.split.kind == "foreach")
        if step.kind == "end":
            return "end", (), 0
        if step.kind in ("foreach", "parallel"):
            return step.kind, step.out, step.items
        if step.kind == "split":
            return "split", step.out, 0
        if step.kind == "loop":
            back = task.iteration + 1 < step.items
            return "linear", (step.out[0] if back else step.out[1],), 0
        if step.kind in ("switch", "conditional"):
            return "linear", (step.out[choose(step.name, place, len(step.out))],), 0
        return "linear", step.out, 0

    def _keep(self, records: list[Record]) -> None:
        payloads = [payload for call in self.run.pending((), {}) for payload in call.events]
        for record, payload in zip(records, payloads, strict=True):
            self._digest = extend(self._digest, payload)
            self.stored.append(StoredEvent(record.seq, payload, self._digest[:LINK_BYTES]))
        self.run.appended()


def _together(state: RunState, waiting: list[Waiting]) -> Iterator[Waiting]:
    """What waits, a gang as one."""
    for one in waiting:
        task = state.tasks[one.attempt.task]
        if lead_of(task) == task.id:
            yield replace(one, nodes=len(nodes_of(state, task)))


def stored(payloads: list[bytes]) -> list[StoredEvent]:
    """A log with these events, its chain computed anew."""
    digest = Head().digest
    events: list[StoredEvent] = []
    for seq, payload in enumerate(payloads, 1):
        digest = extend(digest, payload)
        events.append(StoredEvent(seq, payload, digest[:LINK_BYTES]))
    return events
