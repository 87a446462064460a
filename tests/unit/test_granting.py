"""Who waits for this machine is known without a look at those who wait for others, and the other way round."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from evflow.core.admit import Capacity, Slots
from evflow.core.events import Event, SlotGranted
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow_scheduler.granting import MAX_WORKERS, Granting
from evflow_scheduler.names import NameLog, Names
from evflow_scheduler.roster import Roster
from evflow_scheduler.run import OwnedRun
from tests.core_run import CoreRun, node

RUN = RunId(FlowName("TestFlow"), RunNumber(1))
POOL = "pool:gpu"


class Unseen(dict[int, None]):
    """Tasks that nobody may look through."""

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("somebody looked at all tasks that wait")


def two_branches(here: str, there: str) -> CoreRun:
    """Tasks 2 and 3 wait, one for each executor."""
    run = CoreRun(
        node("start", "one", "other"),
        node("one", "join", executor=here),
        node("other", "join", executor=there),
        node("join", "end"),
        node("end"),
        max_workers=10,
    )
    run.done(1, "one", "other")
    return run


def granted(run: CoreRun, instead: dict[str, str] | None = None) -> list[tuple[int, str]]:
    """The tasks that get a slot at once, and where."""
    facts = anyio.run(_told, run, instead or {})
    return [
        (event.task, event.executor or run.state.tasks[event.task].attempt.executor) for event in facts if isinstance(event, SlotGranted)
    ]


async def _told(run: CoreRun, instead: dict[str, str]) -> list[Event]:
    roster = Roster()
    roster.add(cast("OwnedRun", SimpleNamespace(id=RUN, state=run.state)))
    names = Names(cast("NameLog", SimpleNamespace(shard="s0", log=None)))
    granting = Granting(roster, Slots(Capacity(8)), names, lambda _: True, instead, MAX_WORKERS)
    with granting.sharing():
        return [event for event, _, _ in (await granting.told(run.now, woken=False, grant=True)).get(RUN, ())]


@pytest.mark.parametrize(("here", "there"), [("local", POOL), (POOL, "local")])
def test_a_task_of_each_kind_gets_its_slot(here: str, there: str) -> None:
    """Those for this machine first."""
    tasks = {2: here, 3: there}
    assert granted(two_branches(here, there)) == sorted(tasks.items(), key=lambda one: one[1] != "local")


def test_those_that_run_here_instead_keep_their_place_in_the_queue() -> None:
    """Where one of two pools is not there."""
    run = two_branches(POOL, "local")
    assert granted(run, {POOL: "no such pool"}) == [(2, "local"), (3, "local")]


@pytest.mark.parametrize("executor", ["local", POOL])
def test_nobody_looks_through_what_waits_for_other_machines(executor: str) -> None:
    """Of thousands that wait for a pool, a round for this machine costs nothing, nor the other way round."""
    other = POOL if executor == "local" else "local"
    run = two_branches(executor, other)
    state: Any = run.state
    state.waiting = Unseen(state.waiting)
    assert {task for task, _ in granted(run)} == {2, 3}
