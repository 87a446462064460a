"""Who waits for this machine is known without a look at those who wait for others, and the other way round."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from hypothesis import given, strategies as st

from evflow.core.admit import Capacity, Slots
from evflow.core.events import Event, GangRefused, SlotGranted
from evflow.core.gangs import lead_of
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow_scheduler.granting import MAX_WORKERS, Fact, Granting, whole
from evflow_scheduler.names import NameLog, Names, Refusal
from evflow_scheduler.roster import Roster
from evflow_scheduler.run import OwnedRun
from tests.core_run import CoreRun, fan, node

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


def gang(nodes: int, most: int, **policy: Any) -> CoreRun:
    """A gang from task 2 on waits, of a run that may have so many tasks at once."""
    steps = (node("start", "train", kind="parallel"), node("train", "join", parallel=True, **policy), node("join", "end"), node("end"))
    run = CoreRun(*steps, max_workers=most)
    run.done(1, "train", kind="parallel", splits=nodes)
    return run


@pytest.mark.parametrize(("executor", "nodes"), [("local", 8), ("kubernetes", 10)])
def test_a_gang_gets_all_of_its_slots(executor: str, nodes: int) -> None:
    """Those of this machine are 8."""
    assert granted(gang(nodes, nodes, executor=executor)) == [(task, executor) for task in range(2, 2 + nodes)]


def test_a_gang_that_goes_elsewhere_waits_until_its_run_has_room_for_all_of_it() -> None:
    """And what is behind it does not go first."""
    run = CoreRun(
        *fan(node("body", "train", kind="parallel"), node("train", "join", parallel=True, executor="kubernetes")),
        node("join_all", "end"),
        max_workers=5,
    )
    run.done(1, "body", splits=2)
    run.done(2, "train", kind="parallel", splits=3)
    run.done(3, "train", kind="parallel", splits=3)
    assert [task for task, _ in granted(run)] == [4, 5, 6]


@pytest.mark.parametrize(
    ("nodes", "most", "policy", "why"),
    [
        (9, 16, {}, "its gang has 9 nodes, which run at the same time, and there are 8 slots."),
        (5, 4, {}, "its gang has 5 nodes, which run at the same time, and the run may have 4 at once."),
        (3, 8, {"limits": {"db": 2}}, "its gang has 3 nodes, which run at the same time, and only 2 at once may hold the limit key:db."),
        (5, 4, {"executor": "kubernetes"}, "its gang has 5 nodes, which run at the same time, and the run may have 4 at once."),
        (
            3,
            8,
            {"executor": "kubernetes", "limits": {"db": 2}},
            "its gang has 3 nodes, which run at the same time, and only 2 at once may hold the limit key:db.",
        ),
        (2, 8, {"executor": POOL}, "the nodes of a gang run on one machine or on Kubernetes, and its step has pool:gpu."),
    ],
)
def test_a_gang_that_would_wait_for_ever_is_refused_in_a_round_of_its_own(nodes: int, most: int, policy: dict[str, Any], why: str) -> None:
    """A slot in the turn in which its run ends would be nobody's to take back."""
    run = gang(nodes, most, **policy)
    woken: list[None] = []

    async def rounds() -> list[list[Event]]:
        roster = Roster()
        roster.add(cast("OwnedRun", SimpleNamespace(id=RUN, state=run.state)))
        names = Names(cast("NameLog", SimpleNamespace(shard="s0", log=None)))
        granting = Granting(roster, Slots(Capacity(8)), names, lambda _: True, {}, MAX_WORKERS, lambda: woken.append(None))
        told = [await granting.told(run.now, woken=False, grant=True) for _ in range(2)]
        return [[event for event, _, _ in facts.get(RUN, ())] for facts in told]

    first, second = anyio.run(rounds)
    assert first == []
    assert woken
    [event] = second
    assert isinstance(event, GangRefused)
    assert event.task == 2
    assert event.reason.startswith(why)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(6, 9))
def test_no_part_of_what_a_run_is_told_ends_within_a_gang(sizes: list[int], most: int) -> None:
    """So the grants of a gang stand in one turn; and nothing is left out, or told twice."""
    run = CoreRun(
        *fan(node("body", "train", kind="parallel"), node("train", "join", parallel=True)), node("join_all", "end"), max_workers=100
    )
    run.done(1, "body", splits=len(sizes))
    for number, size in enumerate(sizes, start=2):
        run.done(number, "train", kind="parallel", splits=size)
    facts: list[Fact] = [(SlotGranted(task.id, 0, 0), "", 0) for task in run.state.all_tasks() if task.step == "train"]
    owned = cast("OwnedRun", SimpleNamespace(id=RUN, state=run.state))
    parts = [list(part) for part in whole(owned, facts, most)]
    assert [fact for part in parts for fact in part] == facts
    assert all(0 < len(part) <= most for part in parts)
    leads = [{lead_of(run.task(cast("SlotGranted", event).task)) for event, _, _ in part} for part in parts]
    assert sum(map(len, leads)) == len(set().union(*leads))


def test_a_run_lacks_a_name_while_what_the_first_of_its_line_needs_is_refused() -> None:
    run = CoreRun(*fan(node("work", "join", limits={"warehouse": 1})))
    run.done(1, "work", splits=2)
    owned = cast("OwnedRun", SimpleNamespace(id=RUN, state=run.state))
    names = Names(cast("NameLog", SimpleNamespace(shard="s0", log=None)))
    granting = Granting(Roster(), Slots(Capacity(8)), names, lambda _: True, {}, MAX_WORKERS)
    assert not granting.lacks_a_name(owned)
    names.refused["key:warehouse"] = Refusal(1, run.now)
    assert granting.lacks_a_name(owned)
    run.begin(2, 3)
    assert not granting.lacks_a_name(owned)
