"""What a roster says of its runs is what looking at all of them would say."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, strategies as st

from evflow.core.graph import Graph, Node, Policy
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow_scheduler.roster import Roster
from evflow_scheduler.run import OwnedRun


@dataclass
class State:
    timer: int | None = None
    waiting: dict[int, None] = field(default_factory=dict[int, None])
    stopping: bool = False
    sealed: bool = False
    graph: Graph = field(default_factory=lambda: Graph({}))
    priority: int = 0
    started_us: int = 0
    header: dict[str, str] = field(default_factory=lambda: {"namespace": "user:ada"})

    @property
    def takes_slots(self) -> bool:
        return bool(self.waiting) and not self.stopping

    def next_timer_us(self) -> int | None:
        return self.timer


def run_of(number: int) -> OwnedRun:
    return cast("OwnedRun", SimpleNamespace(id=RunId(FlowName("Nightly"), RunNumber(number)), state=State()))


def state_of(run: OwnedRun) -> State:
    return cast("State", run.state)


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("add")),
        st.tuples(st.just("remove"), st.integers(0, 9)),
        st.tuples(st.just("change"), st.integers(0, 9), st.none() | st.integers(0, 20), st.booleans(), st.booleans()),
        st.tuples(st.just("prefer"), st.integers(0, 9), st.integers(-2, 2)),
        st.tuples(st.just("touch"), st.integers(0, 9)),
        st.tuples(st.just("round"), st.lists(st.integers(0, 9)), st.integers(0, 20)),
    ),
    max_size=60,
)


@given(ACTS)
def test_a_roster_agrees_with_a_look_at_every_run(acts: list[tuple[Any, ...]]) -> None:
    roster = Roster()
    held: list[OwnedRun] = []
    touched: list[OwnedRun] = []
    for number, (verb, *values) in enumerate(acts, 1):
        chosen = held[values[0] % len(held)] if held and values and isinstance(values[0], int) else None
        if verb == "add":
            held.append(run_of(number))
            state_of(held[-1]).header["namespace"] = f"user:{number % 3}"
            roster.add(held[-1])
            touched.append(held[-1])
        elif verb == "round":
            names, now = values
            named = [held[index % len(held)].id for index in names] if held else []
            due = [run for run in held if (timer := state_of(run).timer) is not None and timer <= now and not state_of(run).sealed]
            expected = {*named, *(run.id for run in touched), *(run.id for run in due)}
            concerned = roster.concerned([*named, RunId(FlowName("Gone"), RunNumber(1))], now)
            assert len(concerned) == len(expected)
            assert {run.id for run in concerned} == expected
            touched = []
            for run in due:
                state_of(run).timer = None
            for run in concerned:
                roster.note(run)
        elif chosen is None:
            continue
        elif verb == "remove":
            held.remove(chosen)
            touched = [run for run in touched if run is not chosen]
            assert roster.remove(chosen.id) is chosen
            roster.note(chosen)  # of a run that is gone: nothing
        elif verb == "touch":
            roster.touch(chosen.id)
            touched = [*(run for run in touched if run is not chosen), chosen]
        elif verb == "prefer":
            state_of(chosen).priority = values[1]
            roster.note(chosen)
        else:
            _, timer, waits, stopping = values
            state = state_of(chosen)
            state.timer, state.waiting, state.stopping = timer, {1: None} if waits else {}, stopping
            roster.note(chosen)
        timers = [timer for run in held if (timer := state_of(run).timer) is not None]
        assert roster.next_timer_us() == min(timers, default=None)
        in_line = [run for run in held if state_of(run).takes_slots]
        lines = {namespace: list(runs) for namespace, runs in roster.lines().items()}
        assert lines == {
            namespace: [run for run in roster.waiting() if state_of(run).header["namespace"] == namespace]
            for namespace in {state_of(run).header["namespace"] for run in roster.waiting()}
        }
        assert list(roster.waiting()) == sorted(in_line, key=lambda run: -state_of(run).priority)
        assert roster.is_touched == bool(touched)
        assert list(roster.runs.values()) == held
        assert [roster.named(str(run.id)) for run in held] == held
        assert list(roster.oldest()) == [run.id for run in held[:1]]


def test_a_name_that_no_run_has_names_none() -> None:
    roster = Roster()
    run = run_of(1)
    roster.add(run)
    assert roster.named("Nightly/2") is None
    roster.remove(run.id)
    assert roster.named("Nightly/1") is None


def test_a_run_whose_graph_names_other_executors_reaches_out_as_soon_as_it_is_known_until_it_goes() -> None:
    roster = Roster()
    here, there = run_of(1), run_of(2)
    for run in (here, there):
        roster.add(run)
    assert list(roster.reaching_out()) == []
    state_of(there).graph = Graph({"train": Node("train", "linear", policy=Policy(executor="pool:gpu"))})
    state_of(here).graph = Graph({"train": Node("train", "linear")})
    for run in (here, there, there):
        roster.note(run)
    assert list(roster.reaching_out()) == [], "nothing of it waits"
    state_of(there).waiting = {1: None}
    assert list(roster.reaching_out()) == [there]
    roster.remove(there.id)
    assert list(roster.reaching_out()) == []
