"""Much at once: more reports, tasks and runs than one append call takes."""

from dataclasses import replace
from functools import partial

import pytest

from evflow.core.admit import Capacity, Slots
from evflow.core.codec import encode_report
from evflow.core.decide import LOGIC
from evflow.core.events import RunCancelRequested, RunStarted
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.reuse import ReusePlan
from evflow.core.state import RunState
from evflow.log.protocol import MAX_APPEND_CONSUMED, MAX_APPEND_EVENTS
from evflow.log.writer import LEASE_S, ShardWriter
from evflow.testing import virtual_time
from evflow.testing.faults import Crash, Faults, NoFaults
from evflow.testing.simulated_executor import Fate, SimulatedExecutor, SimulatedMachine
from evflow.testing.simulated_log import SimulatedEventLog
from evflow.testing.simulated_server import SimulatedServer
from evflow.testing.simulation.checks import check, folded
from evflow.testing.simulation.watched import SHARD
from evflow.testing.simulation.world import World
from evflow_scheduler.observer import RunObserver
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.shard import Batch, Shard
from evflow_scheduler.takeover import TakeOver
from tests.core_run import CoreRun, fan
from tests.random_flows import RandomFlow, Step
from tests.simulation.scenario import Fault, Scenario

WIDE = RandomFlow([
    Step("start", "linear", ("many",)),
    Step("many", "foreach", ("work",), items=700),
    Step("work", "linear", ("join",)),
    Step("join", "linear", ("end",), joins=True),
    Step("end", "end"),
])  # fmt: skip


def wide(slots: int, *faults: Fault, runs: int = 1) -> World:
    """A foreach of 700, all tasks of which end at the same instant where there are slots enough."""
    scenario = replace(Scenario.of(1), flows=(WIDE,) * runs, slots=slots, level="everysec", outlives=True, wild=False, faults=faults)
    return World(scenario, each_turn=False, limits={"max_splits": 1_000, "task_budget": 2_000})


@pytest.mark.parametrize("slots", [1_000])
def test_hundreds_of_attempts_that_end_at_once_are_appended_in_parts(slots: int) -> None:
    """Each part is whole turns, within the limits of one call."""
    world = wide(slots).play()
    check(world)
    assert len(world.log_of(world.runs[0])) > 2 * MAX_APPEND_EVENTS


@pytest.mark.parametrize("point", range(24, 56, 16))
def test_an_owner_that_dies_between_two_parts_is_continued(point: int) -> None:
    """A part of a round stands in the log, the rest does not."""
    world = wide(300)
    world.crash_at = point
    world.play()
    check(world)
    assert world.crashes == 1


def test_two_runs_of_a_shard_do_not_lose_each_others_reports() -> None:
    """A crash between their two appends of one round: each report is consumed with its own event."""
    for point in range(30, 110, 8):
        world = wide(40, runs=2)
        world.scenario = replace(world.scenario, flows=(narrower(20),) * 2)
        world.crash_at = point
        check(world.play())


def narrower(items: int) -> RandomFlow:
    """The wide flow, narrower."""
    return RandomFlow([replace(step, items=items) if step.kind == "foreach" else step for step in WIDE.steps])


def test_a_new_owner_reads_more_reports_than_one_look_gives() -> None:
    """1,500 requests wait while nobody owns the shard; the first is what counts."""

    def flood(world: World) -> None:
        payload = encode_report(RunCancelRequested("flood"), principal="user:ada")
        for _ in range(MAX_APPEND_CONSUMED + 500):
            world.report(world.runs[0], payload)

    world = wide(4)
    world.scenario = replace(world.scenario, flows=(narrower(3),))
    world.crash_at, world.after_crash = 40, flood
    world.play()
    check(world)
    assert not world.server.state.shard(SHARD).inbox


def test_an_attempt_whose_report_the_server_lost_is_lost_and_not_crashed() -> None:
    """It ended with 0, which says that it had reported: that is nobody's fault, and not counted against `@retry`."""

    def lose(world: World) -> None:
        world.lost += len(world.server.state.shard(SHARD).inbox)
        world.server.state.shard(SHARD).inbox.clear()

    lost = 0
    for point in range(20, 90):
        world = wide(4)
        world.scenario = replace(world.scenario, flows=(narrower(6),))
        world.strike_at, world.strike = point, lose
        check(world.play())
        tasks = [task for run in world.runs for task in folded(world, run).all_tasks()]
        assert all(task.failures == 0 and task.status == "succeeded" for task in tasks)
        lost += sum(task.losses for task in tasks)
    assert lost > 0


def test_a_resumed_run_takes_over_in_turns_that_one_append_takes() -> None:
    """250 finished tasks, each with a long text of the exception that `@catch` took."""
    origin = CoreRun(*fan())
    origin.done(1, "body", splits=250)
    for task in range(2, 252):
        origin.begin(task)
        origin.turn(origin.success(task, "join", caught="誤" * 2_000))
    origin.done(252, "end")
    origin.done(253)
    state = virtual_time.run(Resumption(origin).run)
    assert (state.status, [task.reused is None for task in state.all_tasks()]) == ("succeeded", [False] * 253)


@pytest.mark.parametrize("appends", range(1, 4))
def test_a_resumed_run_whose_owner_died_takes_over_what_is_left(appends: int) -> None:
    """Between two parts of what it takes over: its successor goes on with it, and makes nothing again."""
    origin = CoreRun(*fan())
    origin.done(1, "body", splits=700)
    for task in range(2, 702):
        origin.begin(task)
        origin.turn(origin.success(task, "join"))
    origin.done(702, "end")
    origin.done(703)
    resumption = Resumption(origin)
    with pytest.raises(BaseExceptionGroup):
        virtual_time.run(partial(resumption.run, CrashAfterAppends(appends)))
    state = virtual_time.run(partial(resumption.run, taken_over=True))
    assert (state.status, [task.reused is None for task in state.all_tasks()]) == ("succeeded", [False] * 703)
    assert state.owners == 2


class CrashAfterAppends(NoFaults):
    """The owner dies when so many appends stand."""

    def __init__(self, appends: int) -> None:
        self._left = appends

    async def after(self, act: str) -> None:
        """Count the appends."""
        self._left -= act == "append"
        if not self._left:
            raise Crash(act, 0)


class Resumption:
    """A run that resumes one of which every task can be taken over: nothing has to be run."""

    def __init__(self, origin: CoreRun) -> None:
        self._origin = origin.state
        self._server = SimulatedServer()

    async def run(self, faults: Faults | None = None, *, taken_over: bool = False) -> RunState:
        """Own it until it is sealed."""
        name = RunId(FlowName("TestFlow"), RunNumber(2))
        run = OwnedRun(name, ReusePlan(self._origin))
        writer = ShardWriter(SimulatedEventLog(self._server, faults or NoFaults()), SHARD, f"owner {taken_over}")
        await writer.take(wait_s=2 * LEASE_S)
        if taken_over:
            machine = SimulatedMachine(lambda _attempt, _order: Fate())
            batch = await TakeOver("box", "ada").of([run], writer, SimulatedExecutor(machine))
        else:
            started = RunStarted("TestFlow", 2, LOGIC, self._origin.graph.to_plain(), b"p" * 32, {}, {}, {}, "ada", "")
            batch = Batch(facts={name: [(started, "user:ada", 0)]})
        shard = Shard(writer, {}, Slots(Capacity(4)), RunObserver(SHARD, writer.index_run, None))
        shard.add(run)
        await shard.serve(batch)
        return run.state
