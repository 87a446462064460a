"""Exit hooks: what is due when, how often it is begun, and what a flow may declare."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from evflow import FlowSpec, exit_hook, step
from evflow.core import events as ev
from evflow.core.hooks import GIVEN_UP, MOST_STARTS, are_due, hooks_of, next_start
from evflow.core.state import RunState
from evflow.flow.checks import check
from evflow.flow.decorators.exit_hook import functions_of, recorded
from evflow_executors.protocol import Observation
from evflow_scheduler.hooking import Hooking
from evflow_scheduler.run import OwnedRun
from tests.core_world import RUN


def tell(run: Any) -> None:
    del run


def also() -> None:
    """Another one."""


class Plain(FlowSpec):
    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


@exit_hook(on_success=[tell], on_error=["also"])
@exit_hook(on_error=[tell], options={"timeout_s": 5})
class Hooked(Plain):
    pass


def test_hooks_are_recorded_by_name_in_the_order_of_the_source() -> None:
    assert recorded(Hooked) == {"on_success": ["tell"], "on_error": ["also", "tell"]}
    assert recorded(Plain) is None
    assert list(functions_of(Hooked, succeeded=False)) == [("also", also, 600.0), ("tell", tell, 5.0)]
    assert check(Hooked) == []


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "@exit_hook has no function"),
        ({"on_success": tell}, "takes a list of functions as on_success"),
        ({"on_error": ["no such"]}, "'no such' in on_error is neither a function nor the name of one"),
        ({"on_error": ["nothing"]}, "there is no function 'nothing' in the flow's file"),
        ({"on_error": [tell], "options": {"timeout_s": 0}}, "takes {'timeout_s': seconds} as options"),
        ({"on_error": [tell], "options": 3}, "takes {'timeout_s': seconds} as options"),
    ],
)
def test_check_tells_a_hook_that_cannot_be(fields: dict[str, Any], told: str) -> None:
    flow = exit_hook(**fields)(type("Wrong", (Plain,), {"__module__": __name__}))
    assert any(told in problem.message for problem in check(flow))


def over(status: str = "succeeded", **options: Any) -> RunState:
    state = RunState()
    state.options = options
    state.status = status  # type: ignore[assignment] # one of them
    if status != "succeeded":
        state.outcome = object()  # type: ignore[assignment] # that there is one
    return state


HOOKS = {"on_success": ["a"], "on_error": ["b", "c"]}


@pytest.mark.parametrize(("status", "hooks"), [("succeeded", ("a",)), ("failed", ("b", "c")), ("cancelled", ("b", "c"))])
def test_a_run_that_is_over_has_the_hooks_of_its_outcome(status: str, hooks: tuple[str, ...]) -> None:
    state = over(status, exit_hooks=HOOKS)
    assert hooks_of(state) == hooks
    assert are_due(state)


def test_a_run_that_goes_on_or_has_none_waits_for_no_hooks() -> None:
    assert not are_due(over())
    assert not are_due(over(exit_hooks={"on_success": [], "on_error": ["b"]}))
    going = RunState()
    going.options = {"exit_hooks": HOOKS}
    assert not are_due(going)


def owned() -> OwnedRun:
    """A run that has begun and succeeded."""
    run = OwnedRun(RUN)
    run.state.seq = 1
    run.state.options = {"exit_hooks": HOOKS}
    run.state.status = "succeeded"
    return run


@pytest.mark.parametrize("said", [3, [], {"on_success": 3}, {"on_success": [3]}, {"on_success": {"a": 1}}])
def test_what_an_offer_says_of_hooks_and_is_none_counts_for_nothing(said: object) -> None:
    assert not are_due(over(exit_hooks=said))


@given(st.lists(st.booleans(), max_size=6))
def test_hooks_begin_again_until_one_start_is_seen_to_end_and_no_more_than_three_times(ends: list[bool]) -> None:
    run = owned()
    begun = 0
    for now, seen_to_end in enumerate(ends, 1):
        if not are_due(run.state):
            break
        hooking = Hooking()  # another owner's
        order = hooking.begin(run, now)
        if order is None:
            assert begun == MOST_STARTS
            assert not are_due(run.state)
            continue
        assert (order.mode, order.step, order.task, order.attempt) == ("hook", "succeeded", 0, begun)
        begun += 1
        name = hooking[run.id]
        assert hooking.is_of(name)
        if seen_to_end:
            ended = hooking.ended(Observation(name, ev.AttemptExited(0, order.attempt, 0, None)))
            assert ended is not None
            assert ended == ev.ExitHookEnded(order.attempt, 0)
            assert run.id not in hooking
            run.turn([(ended, "executor", 0)], now)
            assert not are_due(run.state)
    assert begun <= MOST_STARTS
    assert run.state.hook_starts == begun


def test_hooks_that_are_given_up_say_so() -> None:
    run = owned()
    run.state.hook_starts = MOST_STARTS
    assert next_start(run.state) is None
    assert Hooking().begin(run, 1) is None
    assert [record.event for record in run.appended()] == [ev.ExitHookEnded(MOST_STARTS - 1, None, None, GIVEN_UP)]


def test_a_cancellation_ends_the_hooks_of_its_run_alone() -> None:
    run = owned()
    hooking = Hooking()
    hooking.begin(run, 1)
    asked = (ev.RunCancelRequested("Ctrl-C"), "user:ada", 0)
    assert hooking.unwanted({run.id: [asked]}) == [hooking[run.id]]
    assert hooking.unwanted({}) == []
