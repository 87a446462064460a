"""The state of a run: what its events fold to.

`apply` is the only writer, `decide` and everything else only read. Beside what people ask for (tasks,
attempts, times, reasons) the state keeps an **agenda**: what needs a decision, so that deciding costs what
changed and not what exists. At the end of a turn the agenda holds nothing but timers.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from evflow.core.graph import Graph
from evflow.core.values import entity, field, value

RunStatus = Literal["new", "running", "succeeded", "failed", "cancelled"]
TaskStatus = Literal[
    "created", "queued", "granted", "launched", "running", "ended", "finished", "retrying",
    "succeeded", "skipped", "failed", "cancelled",
]  # fmt: skip
"""`ended`: its attempt is over and what follows is being decided; never seen between turns. `finished`: its attempt is over, and
those of other nodes of its gang are not (`evflow.core.gangs`)."""
Outcome = Literal["", "succeeded", "failed", "exited", "lost", "crashed", "timed-out", "cancelled"]


DEFAULT_TASK_BUDGET = 1_000_000


@entity
class Split:
    """A task that split, and how far its members are.

    Attributes:
        task: The task that split.
        step: Its step.
        kind: `split`, `foreach` or `parallel`.
        size: Number of members.
        frame: The frame around the splitting task.
        visits: Step to number of times it ran on the splitting task's path, the splitting step included.
        items: Digest of a foreach's packed items.
        variable: A foreach's variable.
        arrived: The task by which each member reached the join, 0 where it has not; by index.
        count: How many members have arrived.
        made: How many members exist.
        join: The join's step, bound by the first member that reached one.
        first_arrival: The task that bound it.
        out: Of a gang: the nodes whose attempt is not over.
        first_failure: Of a gang: the node whose attempt was the first to end badly, 0 while none did.
        failed_us: When that was folded.
    """

    task: int
    step: str
    kind: str
    size: int
    frame: "Frame | None"
    visits: Mapping[str, int]
    items: bytes | None
    variable: str | None
    arrived: list[int]
    count: int = 0
    made: int = 0
    join: str | None = None
    first_arrival: int = 0
    out: int = 0
    first_failure: int = 0
    failed_us: int = 0


@value
class Frame:
    """A task's place in the split around it."""

    split: Split
    index: int


@entity
class Attempt:
    """One attempt of a task, times in microseconds, 0 where it did not come so far.

    Attributes:
        cards: The cards that were made of it, each as the fields of `evflow.core.cards.RecordedCard`.
        cache: What `@cached` made of it, as `AttemptSucceeded` has it; empty without.
    """

    number: int
    mode: str = "run"
    executor: str = "local"
    queued_us: int = 0
    granted_us: int = 0
    launched_us: int = 0
    started_us: int = 0
    ended_us: int = 0
    slot: int = -1
    wait: str = ""
    host: str = ""
    pid: int = 0
    outcome: Outcome = ""
    kind: str = ""
    error: str = ""
    message: str = ""
    where: str = ""
    detail: bytes | None = None
    manifest: bytes | None = None
    retryable: bool = True
    exit_code: int | None = None
    signal: int | None = None
    cancel: str = ""
    cards: tuple[tuple[Any, ...], ...] = ()
    cache: tuple[Any, ...] = ()

    @property
    def cached_from(self) -> str:
        """The task whose result `@cached` took in place of running the step; empty where it did not."""
        return str(self.cache[1]) if len(self.cache) > 1 else ""


@entity
class Task:
    """A task.

    Attributes:
        visits: Step to number of times it ran on this task's path, this task included.
        attempts: All attempts that were queued; the last one is the current one.
        failures: Attempts that count against `@retry`.
        losses: Attempts that were lost and do not.
        retry_at_us: When the next attempt may be queued, 0 where none is scheduled.
        manifest: Digest of the manifest of the accepted result.
        next_kind: The transition of the accepted result, as the next four are.
        caught: The exception that `@catch` took.
        reused: The pathspec of the task that did the work, in a resumed run.
        origin: The id of the corresponding task in the run that is resumed, or 0.
        reason: Why the task failed; of a skipped one, what it had failed with.
        renewed: The attempt with which counting began anew, because somebody asked for it; 0 for none.
        settled_by: Who skipped it, or asked for the attempt with which counting began anew.
    """

    id: int
    step: str
    parent: int
    frame: Frame | None
    visits: Mapping[str, int]
    created_us: int
    status: TaskStatus = "created"
    attempts: tuple[Attempt, ...] = ()
    failures: int = 0
    losses: int = 0
    retry_at_us: int = 0
    ended_us: int = 0
    manifest: bytes | None = None
    next_kind: str = ""
    next_steps: tuple[str, ...] = ()
    splits: int = 0
    items: bytes | None = None
    variable: str | None = None
    caught: str | None = None
    artifacts: int = 0
    size_bytes: int = 0
    reused: str | None = None
    origin: int = 0
    reason: str = ""
    renewed: int = 0
    settled_by: str = ""

    @property
    def attempt(self) -> Attempt:
        """The current attempt; of a queued task only."""
        return self.attempts[-1]

    @property
    def iteration(self) -> int:
        """Which time this step runs on the task's path, from 0."""
        return self.visits[self.step] - 1

    def frames(self) -> list[Frame]:
        """The splits around the task, outermost first."""
        found: list[Frame] = []
        frame = self.frame
        while frame is not None:
            found.append(frame)
            frame = frame.split.frame
        return found[::-1]


@value
class Ending:
    """Why a run that is not over will not succeed."""

    code: str
    reason: str
    task: int = 0


@value
class Pause:
    """Why nothing of a run starts: who says so, since when, and why."""

    by: str
    since_us: int
    reason: str


@entity
class Agenda:
    """What needs a decision.

    Attributes:
        created: Tasks that are to be queued, as the first one's id and their number.
        granted: Tasks that are to be launched.
        exited: Tasks whose process ended without a report: what that means.
        ended: Tasks whose attempt did not succeed: another one, or the end.
        skips: Tasks that are to be skipped, and the step that was chosen, if any.
        routes: Tasks whose transition is to be followed.
        joins: Splits, by their task, all of whose members have arrived.
        cancels: Tasks whose attempt is to be ended.
        asked: Task to the event that put it on the agenda: the cause of what will be decided on it.
        stopped: The event for which the run is being ended.
        held: The event by which a task was held last.
        promised: Tasks that the transitions on the agenda will create.
        timers: A heap of `(at_us, task, attempt, kind)`, stale entries included.
    """

    created: deque[tuple[int, int]] = field(default_factory=deque[tuple[int, int]])
    granted: deque[int] = field(default_factory=deque[int])
    exited: deque[int] = field(default_factory=deque[int])
    ended: deque[int] = field(default_factory=deque[int])
    skips: deque[tuple[int, str]] = field(default_factory=deque[tuple[int, str]])
    routes: deque[int] = field(default_factory=deque[int])
    joins: deque[int] = field(default_factory=deque[int])
    cancels: dict[int, None] = field(default_factory=dict[int, None])
    asked: dict[int, int] = field(default_factory=dict[int, int])
    stopped: int = 0
    held: int = 0
    promised: int = 0
    timers: list[tuple[int, int, int, str]] = field(default_factory=list[tuple[int, int, int, str]])


@entity
class Counts:
    """Tasks of one step by what became of them."""

    created: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0


@entity
class RunState:
    """A run.

    Attributes:
        seq: The last event folded.
        turn: Its turn.
        at_us: Its instant.
        by: Who caused it.
        header: The fields of `RunStarted` (see there), empty before it.
        budget: How many tasks it may have.
        failing: Set when the run cannot succeed any more and its attempts are being ended.
        cancelling: The request to cancel, or None.
        tasks: By id, from 1; position 0 stands for the parameters and leads to the first step.
        splits: By the id of the task that split.
        waiting: Queued tasks, in the order in which they get slots: as they were queued, but what is tried again comes first.
        lines: The same by the executor that they wait for; none of them is empty.
        live: Tasks whose current attempt has a slot, in the order of their grants.
        steps: Step to the number of its tasks, in the order in which they were first reached.
        held: Tasks that failed and that the run waits with, in the order in which they did.
        pause: Somebody wants that nothing of the run starts; or None.
        stuck: Nothing can go on before somebody has seen to the tasks that are held; or None.
        priority: Its place among runs that wait for the same slots; higher ones come first.
        late: Reports that came after their attempt was given up.
        sealed: The seal was folded.
        hook_starts: How often the process of its exit hooks was started: see `evflow.core.hooks`.
        hooks_over: They have ended.
    """

    seq: int = 0
    turn: int = 0
    at_us: int = 0
    by: str = ""
    started_us: int = 0
    finished_us: int = 0
    status: RunStatus = "new"
    flow: str = ""
    number: int = 0
    logic: int = 1
    graph: Graph = field(default_factory=lambda: Graph({}))
    header: dict[str, Any] = field(default_factory=dict[str, Any])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    budget: int = DEFAULT_TASK_BUDGET
    failing: Ending | None = None
    cancelling: str | None = None
    forced: bool = False
    outcome: Ending | None = None
    tasks: list[Task] = field(default_factory=list[Task])
    splits: dict[int, Split] = field(default_factory=dict[int, Split])
    waiting: OrderedDict[int, None] = field(default_factory=OrderedDict[int, None])
    lines: dict[str, OrderedDict[int, None]] = field(default_factory=dict[str, OrderedDict[int, None]])
    live: dict[int, None] = field(default_factory=dict[int, None])
    steps: dict[str, Counts] = field(default_factory=dict[str, Counts])
    held: dict[int, None] = field(default_factory=dict[int, None])
    pause: Pause | None = None
    stuck: Pause | None = None
    priority: int = 0
    agenda: Agenda = field(default_factory=Agenda)
    owners: int = 1
    regressions: int = 0
    late: int = 0
    unknown: int = 0
    sealed: bool = False
    hook_starts: int = 0
    hooks_over: bool = False

    @property
    def over(self) -> bool:
        """The run has its outcome."""
        return self.outcome is not None or self.status == "succeeded"

    @property
    def stopping(self) -> bool:
        """No attempt may be started any more."""
        return self.failing is not None or self.cancelling is not None or self.over

    @property
    def paused(self) -> bool:
        """It waits for somebody: nothing of it starts by itself."""
        return (self.pause is not None or self.stuck is not None) and not self.stopping

    @property
    def takes_slots(self) -> bool:
        """Tasks of it wait for slots and may have them."""
        return bool(self.waiting) and self.pause is None and not self.stopping

    @property
    def holds(self) -> bool:
        """A task without an attempt left is held, instead of failing the run."""
        return self.logic >= 2 and self.options.get("on_failure") == "pause" and not self.stopping

    @property
    def phase(self) -> str:
        """Its status for people: `paused` while it waits for somebody, else `status`."""
        return "paused" if self.paused else self.status

    def line_up(self, tasks: range, executor: str, *, first: bool) -> None:
        """Queued tasks wait for an executor; `first`: before all others of the run that do."""
        for line in (self.waiting, self.lines.setdefault(executor, OrderedDict())):
            line.update(dict.fromkeys(tasks))
            if first:
                for number in reversed(tasks):
                    line.move_to_end(number, last=False)

    def wait_no_more(self, task: Task) -> None:
        """A queued task waits no more; before its attempt is said to run elsewhere than it waited for."""
        del self.waiting[task.id]
        executor = task.attempts[-1].executor
        line = self.lines[executor]
        del line[task.id]
        if not line:
            del self.lines[executor]

    def task(self, task: int) -> Task | None:
        """The task with this id, or None."""
        return self.tasks[task] if 0 < task < len(self.tasks) else None

    def all_tasks(self) -> Iterator[Task]:
        """Every task by id."""
        return iter(self.tasks[1:])

    @property
    def next_task(self) -> int:
        """The id that the next task will have."""
        return max(1, len(self.tasks))

    def next_timer_us(self) -> int | None:
        """When the run wants to be woken, or None."""
        return self.agenda.timers[0][0] if self.agenda.timers else None
