"""What must hold after a simulated run, invariant by invariant (the names are those of the design)."""

from collections import Counter

from evflow.core import canonical, events as ev
from evflow.core.apply import apply
from evflow.core.codec import Record, decode
from evflow.core.gangs import gang_of, lead_of, nodes_of
from evflow.core.graph import LOCAL
from evflow.core.ids import AttemptId, RunId
from evflow.core.state import RunState
from evflow.log.protocol import StoredEvent
from evflow.replay.verify import verify
from evflow.testing.simulation.scenario import Scenario
from evflow.testing.simulation.watched import SHARD, Violation
from evflow.testing.simulation.world import World

MAX_LOSSES = 3


def check(world: World) -> None:
    """Check everything.

    Raises:
        Violation: Something does not hold.
    """
    for run in world.runs:
        _verified(world, run)
        _walk(world, run)
    _bodies(world)
    if not world.server.state.shard(SHARD).active:
        _no_report_waits(world)
    if not world.cancelled and world.after_crash is None:
        _same_as_undisturbed(world)


def _verified(world: World, run: RunId) -> None:
    """I1, I9, I13 and the seal's I8."""
    head = world.server.state.shard(SHARD).runs[run].head
    verdict = verify(world.log_of(run), head)
    if verdict.problems:
        raise Violation(f"I1/I8/I9/I13: {run}: {verdict.problems[0]}")
    if not verdict.sealed:
        raise Violation(f"I10: {run} is not sealed")


def _walk(world: World, run: RunId) -> None:
    """Fold the log anew: I3, I5, I6, I10, I11, and I8 at each turn."""
    state = RunState()
    events = world.log_of(run)
    accepted: dict[int, bytes] = {}
    due: dict[tuple[int, int], int] = {}
    for position, stored in enumerate(events):
        record = decode(stored.seq, stored.payload)
        if record.turn != state.turn:
            _is_woken(run, state)
        apply(state, record)
        if isinstance(record.event, ev.SlotGranted) and state.pause is not None:
            raise Violation(f"{run}: event {stored.seq} gives a slot in a run that is paused")
        _join_has_its_branches(run, state, record.event)
        _timer_is_kept(run, state, record, due)
        _gang_is_whole(run, state, record, ends_turn=_ends_turn(events, position))
        here = sum(state.tasks[number].attempt.executor == LOCAL for number in state.live)
        if here > world.scenario.slots:
            raise Violation(f"I11: {run}: {here} attempts have a slot at event {stored.seq}, of {world.scenario.slots}")
        if isinstance(record.event, ev.AttemptSucceeded):
            manifest = state.tasks[record.event.task].manifest
            if manifest is not None and accepted.setdefault(record.event.task, manifest) != manifest:
                raise Violation(f"I3: {run}: task {record.event.task} has another result at event {stored.seq}")
        if world.each_turn and _ends_turn(events, position):
            seen = world.digests[run].get(stored.seq, set())
            if canonical.digest(state) not in seen:
                raise Violation(f"I8: {run}: at event {stored.seq} replay gives a state that no owner had")
    for task in state.all_tasks():
        won = sum(attempt.outcome == "succeeded" for attempt in task.attempts)
        if won != (task.status == "succeeded"):
            raise Violation(f"I3: {run}: task {task.id} is {task.status} and has {won} accepted results")
    if due and state.status == "succeeded":
        raise Violation(f"I6: {run}: retries that never came: {sorted(due)}")


def _ends_turn(events: list[StoredEvent], position: int) -> bool:
    if position + 1 == len(events):
        return True
    here, following = events[position], events[position + 1]
    return decode(here.seq, here.payload).turn != decode(following.seq, following.payload).turn


def _join_has_its_branches(run: RunId, state: RunState, event: ev.Event) -> None:
    if isinstance(event, ev.TasksCreated) and event.op == "join":
        members = state.splits[event.parent].arrived
        if not all(members) or any(state.tasks[member].status not in ("succeeded", "skipped") for member in members):
            raise Violation(f"I5: {run}: the join '{event.step}' was created for members {members}")


def _gang_is_whole(run: RunId, state: RunState, record: Record, *, ends_turn: bool) -> None:
    """The nodes of a gang have their slots together or not at all, their attempts go up together, and they have their results together."""
    task = state.task(getattr(record.event, "task", 0))
    if not ends_turn or task is None or gang_of(task) is None:
        return
    nodes = nodes_of(state, task)
    wrong = ""
    if len({len(node.attempts) for node in nodes}) > 1:
        wrong = "are at different attempts"
    elif len({node.manifest is None for node in nodes}) > 1:
        wrong = "have results and others have none"
    elif any(node.status == "queued" for node in nodes) and not all(node.status in ("queued", "succeeded") for node in nodes):
        wrong = "wait for slots and others do not"
    if wrong:
        raise Violation(
            f"gang: {run}: at event {record.seq} some nodes of the gang of {task.step} {wrong}: {[node.status for node in nodes]}"
        )


def _is_woken(run: RunId, state: RunState) -> None:
    """I10: at the end of a turn something runs, waits for a slot or for an instant; or the run waits for somebody, and says so."""
    if state.seq and not (state.over or state.live or state.waiting or state.next_timer_us() is not None or state.paused):
        raise Violation(f"I10: {run}: nothing wakes it after event {state.seq}")


def _timer_is_kept(run: RunId, state: RunState, record: Record, due: dict[tuple[int, int], int]) -> None:
    event = record.event
    if isinstance(event, ev.RetryScheduled):
        due[event.task, event.attempt] = event.at_us
    elif isinstance(event, ev.TaskRetryRequested) and state.tasks[event.task].status == "retrying":
        due[lead_of(state.tasks[event.task]), state.tasks[event.task].renewed] = record.at_us
    elif isinstance(event, ev.TaskSkipped):
        due.pop((event.task, len(state.tasks[event.task].attempts)), None)
    elif isinstance(event, ev.TaskQueued) and event.attempt:
        at_us = due.pop((event.task, event.attempt), None)
        if at_us is None:
            raise Violation(f"I6: {run}: event {record.seq} queues attempt {event.attempt} of task {event.task}, which nothing asked for")
        if record.at_us < at_us:
            raise Violation(f"I6: {run}: event {record.seq} queues task {event.task} {at_us - record.at_us} us early")


def _bodies(world: World) -> None:
    """No attempt beside its twin, nothing finished is run again; where the server kept what it had acknowledged.

    A server that loses more than a writer keeps (five seconds, at `everysec`) takes the launches with it that nobody can write again; so does one that
    loses what an owner wrote that is dead. One that loses a lease while its clock goes back lets owners come back that others have followed.
    """
    books = world.machine.books
    twins = [attempt for attempt in books.twins if (attempt.run, attempt.task) not in world.excused]
    if twins and not world.beyond_repair and not world.server.epochs_fell:
        raise Violation(f"twins ran at once: {twins}")
    # What is excused above may report while its owner starts it again, too.
    repeated = [
        attempt
        for attempt in books.repeated
        if (attempt.run, attempt.task) not in world.excused and not _goes_with_its_gang(world, attempt)
    ]
    if repeated and not world.lost and not world.server.epochs_fell:
        raise Violation(f"ran again although reported: {repeated}")


def _goes_with_its_gang(world: World, attempt: AttemptId) -> bool:
    """Whether a node is run again because another one of its gang failed, though it had reported a result itself."""
    if not attempt.attempt:
        return False
    task = folded(world, attempt.run).task(attempt.task)
    return task is not None and gang_of(task) is not None and task.attempts[attempt.attempt - 1].outcome != "succeeded"


def _no_report_waits(world: World) -> None:
    """Every entry of the inbox is consumed, but for what came after the last owner had left."""
    sealed_us = max(decode(events[-1].seq, events[-1].payload).at_us for run in world.runs if (events := world.log_of(run)))
    early = [
        entry
        for entry, (run, _) in world.server.state.shard(SHARD).inbox.items()
        # What no event follows from is deleted by itself: a fail-over that loses the deletion leaves it to the next owner.
        if entry[0] * 1000 < sealed_us - 60_000_000 and (run or not world.lost)
    ]
    if early and not any(fault.kind == "clock" for fault in world.scenario.faults):
        raise Violation(f"reports wait for ever: {early}")


def _same_as_undisturbed(world: World) -> None:
    """Whatever went wrong, a run that succeeds has made what it makes when nothing does."""
    for run in world.runs:
        state = folded(world, run)
        if any(task.settled_by for task in state.all_tasks()):
            continue  # somebody wanted something else
        calm = expected(world.scenario, run, world.limits)
        if state.status == "succeeded":
            if calm.status != "succeeded":
                raise Violation(f"{run} succeeded, and fails when nothing goes wrong")
            if results(state) != results(calm):
                raise Violation(f"{run} made other artifacts than an undisturbed run")
        elif calm.status == "succeeded" and not _may_fail(state):
            assert state.outcome is not None
            raise Violation(f"{run} failed: {state.outcome.reason}")


def _may_fail(state: RunState) -> bool:
    """A task may have been lost too often, or have died of its own too often."""
    task = state.tasks[state.failing.task] if state.failing is not None else None
    if task is None:
        return False
    policy = state.graph[task.step].policy
    own = sum(attempt.outcome in ("crashed", "timed-out") for attempt in task.attempts)
    never_again = policy.retry_explicit and policy.retry_times == 0 and task.losses > 0
    return task.losses > MAX_LOSSES or never_again or own > 0


def folded(world: World, run: RunId) -> RunState:
    """A run's state."""
    state = RunState()
    for stored in world.log_of(run):
        apply(state, decode(stored.seq, stored.payload))
    return state


def expected(scenario: Scenario, run: RunId, limits: dict[str, int]) -> RunState:
    """The state of the same run when nothing goes wrong."""
    world = World(scenario.quiet(), each_turn=False, limits=limits).play()
    return folded(world, run)


def results(state: RunState) -> Counter[tuple[str, bytes | None]]:
    """Steps and the digests of what they made."""
    return Counter((task.step, task.manifest) for task in state.all_tasks())
