"""Running a step's body: plain and async, limits, decorators around it, `@catch`."""

import os
import signal
import threading
import time
from types import MappingProxyType
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from evflow import FlowSpec, catch, environment, retry, step
from evflow.exception import ExceptionWrapper, FailureHandledByCatch, InvalidNextException, TimeoutException
from evflow.flow.decorators.base import StepDecorator
from evflow.flow.execution import collect, instantiate, record_crash, run_step
from evflow.flow.steps import facts
from tests.unit.flow_world import run_flow, stored

FAR_TOO_LONG_S = 60


class Flow(FlowSpec):
    @step
    def start(self) -> None:
        self.next(self.waits)

    @step
    async def waits(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.order: list[int] = []
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(self.add, number)
        self.next(self.end)

    async def add(self, number: int) -> None:
        await anyio.lowlevel.checkpoint()
        self.order.append(number)

    @step
    def sleeps(self) -> None:
        time.sleep(FAR_TOO_LONG_S)

    @step
    async def sleeps_async(self) -> None:
        await anyio.sleep(FAR_TOO_LONG_S)

    @catch(var="failure")
    @step
    def fails(self) -> None:
        self.before = "kept"
        raise ValueError("no such luck")

    @catch(print_exception=False)
    @step
    def fails_quietly(self) -> None:
        self.next(self.end)
        raise ValueError("after all was said")

    @catch(var="failure")
    @retry(times=1)
    @step
    def passes(self) -> None:
        self.next(self.end)

    @catch
    @step
    def exits(self) -> None:
        raise SystemExit(3)

    @catch
    @step
    def splits(self) -> None:
        if os.getpid():
            raise ValueError
        self.next(self.a, self.end)

    @catch
    @step
    def chooses(self) -> None:
        if os.getpid():
            raise ValueError
        if os.getppid():
            self.next(self.a)
        else:
            self.next(self.end)

    @step
    def a(self) -> None:
        self.next(self.end)

    @environment(vars={"EVFLOW_TEST_WORD": "set", "NUMBER": 3})  # type: ignore[dict-item]
    @step
    def reads_environment(self) -> None:
        self.word = os.environ["EVFLOW_TEST_WORD"] + os.environ["NUMBER"]
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def at(name: str, cls: type[FlowSpec] = Flow) -> Any:
    return instantiate(cls, name, parameters=stored(), view=stored())


def test_an_async_step_is_awaited() -> None:
    flow = at("waits")
    assert run_step(flow).transition.steps == ("end",)
    assert sorted(flow.order) == [0, 1, 2]


def test_a_plain_body_that_runs_too_long_is_interrupted() -> None:
    with pytest.raises(TimeoutException, match=r"Step sleeps timed out after 0\.01 seconds"):
        run_step(at("sleeps"), timeout_s=0.01)


def test_an_async_body_that_runs_too_long_is_cancelled() -> None:
    with pytest.raises(TimeoutException, match="Step sleeps_async timed out"):
        run_step(at("sleeps_async"), timeout_s=0.01)


def test_a_body_within_its_limit_leaves_no_alarm_behind() -> None:
    before = signal.getsignal(signal.SIGALRM)
    run_step(at("start"), timeout_s=30)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_body_in_another_thread_runs_without_the_soft_limit() -> None:
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(run_step(at("start"), timeout_s=30).transition.kind))
    thread.start()
    thread.join()
    assert ended == ["linear"]


def test_an_exception_leaves_as_it_is_while_attempts_are_left() -> None:
    with pytest.raises(ValueError, match="no such luck"):
        run_step(at("fails"), last=False)


def test_catch_takes_the_last_exception_and_keeps_what_was_set() -> None:
    class Caught(Flow):
        @catch(var="failure")
        @step
        def start(self) -> None:
            self.before = "kept"
            if os.getpid():
                raise ValueError("no such luck")
            self.next(self.end)

    world = run_flow(Caught)
    assert world.steps() == ["start", "end"]
    failure = world.task("end")["failure"]
    assert isinstance(failure, ExceptionWrapper)
    assert (failure.exception, failure.type) == ("no such luck", "builtins.ValueError")
    assert failure.stacktrace is not None
    assert 'raise ValueError("no such luck")' in failure.stacktrace
    assert world.task("start")["before"] == "kept"
    assert world.task("start").done.caught == "ValueError: no such luck"


def test_a_caught_exception_is_printed_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    run_step(at("fails_quietly"))
    assert capsys.readouterr().err == ""
    run_step(at("fails"))
    assert "ValueError: no such luck" in capsys.readouterr().err


def test_catch_takes_the_branches_of_a_static_split() -> None:
    transition = run_step(at("splits")).transition
    assert (transition.kind, transition.steps) == ("split", ("a", "end"))


def test_catch_on_a_step_with_several_ways_on_says_that_it_cannot_choose() -> None:
    with pytest.raises(InvalidNextException, match="@catch cannot tell where to go on after step chooses"):
        run_step(at("chooses"))


def test_catch_goes_on_where_the_body_had_said() -> None:
    assert run_step(at("fails_quietly")).transition.steps == ("end",)


def test_catch_says_none_where_nothing_was_caught() -> None:
    flow = at("passes")
    assert run_step(flow).caught is None
    assert collect(flow).values == {"failure": None}


def test_catch_takes_sys_exit_too() -> None:
    done = run_step(at("exits"))
    assert (done.caught, done.transition.kind) == ("SystemExit: 3", "end")


def test_a_crash_is_recorded_for_catch_without_running_the_body() -> None:
    flow = at("passes")
    done = record_crash(flow, "killed by signal 9")
    assert done.transition.steps == ("end",)
    assert "killed by signal 9" in str(done.caught)
    failure = collect(flow).values["failure"]
    assert isinstance(failure, ExceptionWrapper)
    assert failure.type == "evflow.exception.FailureHandledByCatch"


def test_a_crash_of_a_step_without_catch_is_its_failure() -> None:
    with pytest.raises(FailureHandledByCatch):
        record_crash(at("start"), "killed by signal 9")


def test_environment_variables_are_set_for_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_TEST_WORD", "before")
    monkeypatch.setenv("NUMBER", "0")
    flow = at("reads_environment")
    run_step(flow)
    assert flow.word == "set3"


def test_decorators_run_from_the_outermost_to_the_body_and_back() -> None:
    seen: list[str] = []

    class Noting(StepDecorator):
        repeatable = True
        defaults = MappingProxyType({"as_": ""})

        def before(self, flow: FlowSpec) -> None:
            seen.append(f"before {self.value('as_')}")

        def after(self, flow: FlowSpec) -> None:
            seen.append(f"after {self.value('as_')}")

    class Noted(Flow):
        @step
        def start(self) -> None:
            seen.append("body")
            self.next(self.end)

    facts(Noted).steps["start"].decorators.extend([Noting({"as_": "inner"}), Noting({"as_": "outer"})])
    run_step(at("start", Noted))
    assert seen == ["before outer", "before inner", "body", "after inner", "after outer"]


def test_an_exception_wrapper_survives_pickling_and_shows_itself() -> None:
    import pickle

    wrapper = ExceptionWrapper(ValueError("x"), "Traceback ...\nValueError: x")
    again = pickle.loads(pickle.dumps(wrapper))
    assert (again.exception, again.type, str(again)) == ("x", "builtins.ValueError", "Traceback ...\nValueError: x")
    assert str(ExceptionWrapper(KeyError("k"))) == "KeyError: 'k'"
    assert repr(ExceptionWrapper(KeyError("k"))) == "ExceptionWrapper(KeyError: 'k')"
