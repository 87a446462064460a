"""Why a run or a task is where it is: computed from the state and the recorded grants alone.

Every wait has a reason, and each reason is a value here: what is waited for, and since or until when. The words are the
command line's. What the state cannot know is passed in: the present instant, and whether somebody owns the run.

| A task that is | waits for |
|---|---|
| queued | a slot; the tasks that hold them and those ahead of it are named (`WaitsForSlot`) |
| queued, and its step declares resources | room for them, beside what the running tasks declare (`WaitsForSlot.asks`) |
| launched, of a pool | a worker that claims it (`WaitsForWorker`) |
| created, granted, launched | its process (`Starts`) |
| queued, a node of a gang | as many slots at once as the gang has nodes (`WaitsForSlot.nodes`) |
| finished | the other nodes of its gang (`WaitsForGang`) |
| running | its body; a process that was asked to end is said so (`Runs`) |
| waiting for a retry | an instant (`WaitsForRetry`) |
| failed, in a run that waits with it | somebody: a request to try it again or to skip it (`IsHeld`) |
| over | nothing: what it led to, and the members that its join still waits for (`Ended`, `WaitsForMembers`) |

A run waits, besides, for an owner (`NobodyOwns`), for somebody who ends its pause (`IsPaused`) or sees to what failed (`IsStuck`), or for
its running tasks to end (`IsEnding`).
"""

from collections.abc import Iterator
from itertools import islice

from evflow.core.gangs import lead_of, nodes_of
from evflow.core.graph import LOCAL, Policy, pool_of
from evflow.core.state import Attempt, RunState, Split, Task
from evflow.core.values import value


@value
class Held:
    """A slot, and the task that holds it.

    Attributes:
        slot: Its number, -1 where a former owner had more of them.
        task: The task.
        step: Its step.
        since_us: When it got the slot.
    """

    slot: int
    task: int
    step: str
    since_us: int


@value
class Resources:
    """What tasks declare; 0 where nothing is declared."""

    cpu: float = 0
    memory_mb: int = 0
    gpu: int = 0

    @classmethod
    def of(cls, *policies: Policy) -> "Resources":
        """The sum of what steps declare."""
        return cls(
            sum(policy.cpu for policy in policies), sum(policy.memory_mb for policy in policies), sum(policy.gpu for policy in policies)
        )

    @property
    def nothing(self) -> bool:
        """Nothing is declared."""
        return not (self.cpu or self.memory_mb or self.gpu)


@value
class RunIsOver:
    """The run has its outcome."""

    status: str
    at_us: int
    reason: str


@value
class NobodyOwns:
    """No process runs this run: whoever did has died."""


@value
class IsPaused:
    """Somebody paused the run: nothing that waits is started; `running` tasks go on."""

    by: str
    since_us: int
    reason: str
    running: int


@value
class IsStuck:
    """Tasks of the run failed, and it waits with them for somebody.

    Attributes:
        tasks: `(step, task)`; at most `MOST_NAMED` of them.
        count: How many these are in all.
        since_us: Since when nothing else of the run is left to do, 0 while there is.
    """

    tasks: tuple[tuple[str, int], ...]
    count: int
    since_us: int


@value
class EndsWhenOverdue:
    """The run may take only so long, whatever it waits for (`--max-run-time`): then it fails."""

    at_us: int
    limit_us: int


@value
class IsHeld:
    """The task failed, and the run waits with it: it can be tried again, or skipped."""

    at_us: int
    reason: str


@value
class IsEnding:
    """The run will not succeed any more and ends when nothing of it runs.

    Attributes:
        what: `cancelled` or `failing`.
        reason: Why.
        running: The tasks that are still to end: `(step, task, asked)`, `asked` being false until it was told to.
        forced: They are killed, not asked.
    """

    what: str
    reason: str
    running: tuple[tuple[str, int, bool], ...]
    forced: bool


@value
class WaitsForSlot:
    """The task is queued.

    Attributes:
        executor: Whose slots these are.
        slots: How many there are, 0 where the log does not say.
        held: The taken ones, by number.
        ahead: Tasks of this run that were queued before it, the next one first; at most `MOST_NAMED` of them.
        ahead_count: How many these are in all.
        asks: What its step declares.
        taken: What the tasks that hold slots declare together.
        since_us: When it was queued.
        paused_by: Who paused the run, so that it gets none; an empty string where it is not paused.
        nodes: How many slots are needed at once: those of a gang; 1 for a task by itself.
    """

    executor: str
    slots: int
    held: tuple[Held, ...]
    ahead: tuple[tuple[str, int], ...]
    ahead_count: int
    asks: Resources
    taken: Resources
    since_us: int
    paused_by: str = ""
    nodes: int = 1


@value
class Starts:
    """Its process, or its container, is about to exist; `status` says how far it has come, and `executor` where that is to be."""

    status: str
    since_us: int
    executor: str = LOCAL


@value
class WaitsForWorker:
    """The task was ordered of a pool; whether a worker has it, and how many there are, only the pool knows.

    Attributes:
        pool: The pool.
        attempt: The attempt's number.
        since_us: When it was ordered.
    """

    pool: str
    attempt: int
    since_us: int


@value
class Runs:
    """An attempt's body is at work.

    Attributes:
        host: Its machine.
        pid: Its process.
        since_us: When it started, 0 where that is not reported yet.
        limit_us: `@timeout`, 0 for none.
        asked: Why it was asked to end, or an empty string.
    """

    host: str
    pid: int
    since_us: int
    limit_us: int
    asked: str


@value
class WaitsForRetry:
    """The attempt before ended badly; the next one may be queued at an instant.

    Attributes:
        attempt: The number of the next attempt.
        at_us: When it may be queued.
        counted: Attempts that counted against `@retry` so far.
        allowed: How many may.
        lost: Attempts that were lost and did not count.
        before: The attempt before.
    """

    attempt: int
    at_us: int
    counted: int
    allowed: int
    lost: int
    before: Attempt


@value
class WaitsForGang:
    """A node whose attempt is over: what comes of it is known when the other nodes of its gang have come to their end.

    Attributes:
        outcome: What its attempt came to: `succeeded`, `failed`, `cancelled`, ...
        since_us: When it ended.
        nodes: How many the gang has.
        running: The nodes that still run: `(step, task)`; at most `MOST_NAMED` of them.
        count: How many these are in all.
    """

    outcome: str
    since_us: int
    nodes: int
    running: tuple[tuple[str, int], ...]
    count: int


@value
class Missing:
    """A member of a split that has not come to the join: the task that it has come to, 0 if none."""

    index: int
    task: int
    step: str
    status: str


@value
class WaitsForMembers:
    """A split whose join cannot begin yet.

    Attributes:
        split: The task that split.
        step: Its step.
        join: The join's step, or an empty string where no member has reached one and the graph leaves several possible.
        size: Number of members.
        missing: Those that are still on their way; at most `MOST_NAMED` of them.
        missing_count: How many these are in all.
    """

    split: int
    step: str
    join: str
    size: int
    missing: tuple[Missing, ...]
    missing_count: int


@value
class Ended:
    """The task is over."""

    status: str
    at_us: int
    reason: str
    next_steps: tuple[str, ...]
    caught: str
    by: str = ""
    """Who skipped it."""
    reused: str = ""
    """The task that a resumed run took it over from."""
    cached: str = ""
    """The task whose result `@cached` took."""
    not_cached: str = ""
    """Why `@cached` took none."""


Reason = (
    RunIsOver
    | NobodyOwns
    | IsPaused
    | IsStuck
    | IsEnding
    | EndsWhenOverdue
    | IsHeld
    | WaitsForSlot
    | WaitsForWorker
    | Starts
    | Runs
    | WaitsForRetry
    | WaitsForMembers
    | WaitsForGang
    | Ended
)

MOST_NAMED = 5
"""How many of many tasks are named."""

_OVER = frozenset(("succeeded", "skipped", "failed", "cancelled"))
_WENT_ON = ("succeeded", "skipped")


def of_run(state: RunState, *, owned: bool) -> Iterator[Reason]:
    """Why the run itself is where it is; its tasks and splits are explained one by one.

    Args:
        state: The run.
        owned: Some process runs it at present.
    """
    if state.over:
        yield RunIsOver(state.status, state.finished_us, state.outcome.reason if state.outcome else "")
        return
    if not owned:
        yield NobodyOwns()
    running = tuple((state.tasks[number].step, number, bool(state.tasks[number].attempt.cancel)) for number in state.live)
    if state.cancelling is not None:
        yield IsEnding("cancelled", state.cancelling, running, state.forced)
    elif state.failing is not None:
        yield IsEnding("failing", state.failing.reason, running, state.forced)
    else:
        yield from _waits_for_somebody(state)
        limit_us = state.options.get("max_run_us", 0)
        if limit_us:
            yield EndsWhenOverdue(state.started_us + limit_us, limit_us)


def _waits_for_somebody(state: RunState) -> Iterator[Reason]:
    if state.pause is not None:
        yield IsPaused(state.pause.by, state.pause.since_us, state.pause.reason, len(state.live))
    if state.held:
        named = tuple((state.tasks[number].step, number) for number in islice(state.held, MOST_NAMED))
        yield IsStuck(named, len(state.held), state.stuck.since_us if state.stuck is not None else 0)


def open_tasks(state: RunState) -> list[Task]:
    """The tasks that are not over."""
    return [task for task in state.all_tasks() if task.status not in _OVER or task.id in state.held]


def open_splits(state: RunState) -> Iterator[WaitsForMembers]:
    """The splits whose joins wait for members; none in a run that is ending, which joins nothing any more."""
    if state.stopping:
        return
    for split in state.splits.values():
        if split.count < split.size:
            yield of_split(state, split)


def of_task(state: RunState, task: Task) -> Iterator[Reason]:
    """Why a task is where it is, the nearest reason first."""
    if task.id in state.held and not state.stopping:
        yield IsHeld(task.ended_us, task.reason)
    elif task.status in _OVER:
        reason = task.reason or (task.attempt.message if task.attempts else "")
        by = task.settled_by if task.status == "skipped" else ""
        cache = task.attempt.cache[1:3] if task.attempts and len(task.attempt.cache) > 2 else ("", "")
        onward = task.next_steps if task.status in _WENT_ON else ()
        yield Ended(task.status, task.ended_us, reason, onward, task.caught or "", by, task.reused or "", *cache)
        split = _split_that_waits(state, task)
        if split is not None:
            yield of_split(state, split)
    elif task.status == "queued":
        yield _slot(state, task)
    elif task.status == "retrying":
        before = task.attempt
        allowed = state.graph[task.step].policy.retry_times
        yield WaitsForRetry(before.number + 1, task.retry_at_us, task.failures, allowed, task.losses, before)
    elif task.status == "finished":
        yield _gang(state, task)
    elif task.status in ("running", "ended"):
        attempt = task.attempt
        yield Runs(attempt.host, attempt.pid, attempt.started_us, state.graph[task.step].policy.timeout_us, attempt.cancel)
    elif task.status == "launched" and (pool := pool_of(task.attempt.executor)) is not None:
        yield WaitsForWorker(pool, task.attempt.number, task.attempt.launched_us)
    else:
        since = task.attempt.launched_us or task.attempt.queued_us if task.attempts else task.created_us
        yield Starts(task.status, since, task.attempt.executor if task.attempts else LOCAL)


def of_split(state: RunState, split: Split) -> WaitsForMembers:
    """What a split's join still waits for; costs one look at each task of the run."""
    indexes = [index for index, arrived in enumerate(split.arrived) if not arrived]
    shown = indexes[:MOST_NAMED]
    places = _places(state, split, frozenset(shown))
    missing = tuple(places.get(index, Missing(index, 0, "", "not created")) for index in shown)
    return WaitsForMembers(split.task, split.step, split.join or state.graph.join_of(split.step) or "", split.size, missing, len(indexes))


def _places(state: RunState, split: Split, wanted: frozenset[int]) -> dict[int, Missing]:
    """How far members of a split have come: the newest task of each that is not over, else the one that is."""
    found: dict[int, Missing] = {}
    for task in state.all_tasks():
        for frame in task.frames():
            if frame.split is split and frame.index in wanted:
                known = found.get(frame.index)
                if known is None or known.status in _OVER or task.status not in _OVER:
                    found[frame.index] = Missing(frame.index, task.id, task.step, task.status)
    return found


def _split_that_waits(state: RunState, task: Task) -> Split | None:
    """The split that the finished task is a member of, if it has come to the join and others have not."""
    if task.status not in _WENT_ON or task.frame is None or state.stopping:
        return None
    split = task.frame.split
    return split if task.id in split.arrived and split.count < split.size else None


def _gang(state: RunState, task: Task) -> WaitsForGang:
    nodes = nodes_of(state, task)
    running = [(node.step, node.id) for node in nodes if node.id in state.live]
    return WaitsForGang(task.attempt.outcome, task.attempt.ended_us, len(nodes), tuple(running[:MOST_NAMED]), len(running))


def _slot(state: RunState, task: Task) -> WaitsForSlot:
    ahead: list[tuple[str, int]] = []
    count, first = 0, lead_of(task)
    for number in state.waiting:
        if number == first:
            break
        count += 1
        if count <= MOST_NAMED:
            ahead.append((state.tasks[number].step, number))
    live = [state.tasks[number] for number in state.live]
    held = sorted((Held(other.attempt.slot, other.id, other.step, other.attempt.granted_us) for other in live), key=lambda one: one.slot)
    return WaitsForSlot(
        task.attempt.executor,
        state.options.get("max_workers", 0),
        tuple(held),
        tuple(ahead),
        count,
        Resources.of(*[state.graph[task.step].policy] * len(nodes_of(state, task))),
        Resources.of(*(state.graph[other.step].policy for other in live)),
        task.attempt.queued_us,
        state.pause.by if state.pause is not None else "",
        len(nodes_of(state, task)),
    )
