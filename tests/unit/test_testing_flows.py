"""`evflow.testing.run_flow` and `run_step`: flows in a test's own process."""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from evflow import FlowSpec, Inputs, Parameter, catch, current, environment, pytorch_parallel, retry, step, timeout
from evflow.errors import UsageError
from evflow.exception import TimeoutException
from evflow.flow.checks import FlowInvalid
from evflow.store.diagnosis import ArtifactNotSerializable
from evflow.testing import FlowFailed, StepResult, run_flow, run_step


class Fold(FlowSpec):
    """A foreach of numbers, two branches for each, and both joins."""

    size = Parameter("size", default=3)
    weight = Parameter("the-weight", default=1.0)
    unit = "kg"

    @step
    def start(self) -> None:
        self.shared = [0]
        self.numbers = list(range(self.size))
        self.next(self.fit, foreach="numbers")

    @step
    def fit(self) -> None:
        self.shared.append(self.input)
        self.number = self.input
        self.next(self.double, self.square)

    @step
    def double(self) -> None:
        self.result = self.number * 2
        self.next(self.both)

    @step
    def square(self) -> None:
        self.result = self.number**2
        self.next(self.both)

    @step
    def both(self, inputs: Inputs) -> None:
        self.pair = (inputs.double.result, inputs.square.result)
        self.next(self.collect)

    @step
    def collect(self, inputs: Inputs) -> None:
        self.pairs = [one.pair for one in inputs]
        self.total = sum(map(sum, self.pairs)) * self.weight
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_a_flow_runs_to_its_end() -> None:
    result = run_flow(Fold, size=4, weight=0.5)
    assert result.data.pairs == [(0, 0), (2, 1), (4, 4), (6, 9)]
    assert result.data.total == 13.0
    assert result.data.unit == "kg"
    assert list(result) == ["start", "fit", "double", "square", "both", "collect", "end"]
    assert [task.index for task in result["fit"]] == [0, 1, 2, 3]
    assert result["start"][0].next == ("fit",)
    assert result["end"][0].next == ()


def test_tasks_do_not_share_what_they_inherit() -> None:
    assert [task.data.shared for task in run_flow(Fold)["fit"]] == [[0, 0], [0, 1], [0, 2]]


def test_data_is_loaded_anew() -> None:
    data = run_flow(Fold).data
    data.pairs.append("changed")
    assert "changed" not in data.pairs
    assert {"pairs", "total", "size", "unit"} <= set(data)
    assert "pairs" in data
    assert data.as_dict()["size"] == 3
    with pytest.raises(AttributeError, match=r"no artifact 'totl'.*total"):
        data.totl  # noqa: B018


@pytest.mark.parametrize("name", ["the-weight", "weight"])
def test_a_parameter_goes_by_its_name_or_its_attribute(name: str) -> None:
    assert run_flow(Fold, **{name: "2.5"}).data.weight == 2.5


def test_a_parameter_that_is_none() -> None:
    with pytest.raises(UsageError, match="wieght"):
        run_flow(Fold, wieght=2)


class Retries(FlowSpec):
    asked: list[int] = []  # noqa: RUF012 - of the class, on purpose: it is this process that runs it

    @retry(times=3, minutes_between_retries=60)
    @step
    def start(self) -> None:
        if current.retry_count < 2:
            raise ConnectionError("not yet")
        self.took = current.retry_count
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_retries_wait_in_virtual_time(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_flow(Retries)
    assert result["start"][0].attempts == 3
    assert result.data.took == 2
    assert "not yet" in capsys.readouterr().err  # what failed on the way is told


class Fails(FlowSpec):
    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        raise LookupError("no such luck")


def test_a_body_s_exception_is_raised_as_it_is() -> None:
    with pytest.raises(LookupError, match="no such luck") as raised:
        run_flow(Fails)
    assert raised.value.__notes__ == ["In step 'end' of Fails, task 2, attempt 1."]
    assert raised.traceback[-1].name == "end"


class Catches(FlowSpec):
    @catch(var="failure")
    @step
    def start(self) -> None:
        self.next(self.end)
        raise ValueError("after all was said")

    @step
    def end(self) -> None:
        pass


def test_catch_takes_an_exception() -> None:
    result = run_flow(Catches)
    assert result["start"][0].caught == "ValueError: after all was said"
    assert "after all was said" in str(result.data.failure)


LOCK, FUNCTIONS = threading.Lock(), [len, lambda: 0]


class KeepsWhatCannotBeKept(FlowSpec):
    @retry(times=1)
    @catch(var="failure")
    @step
    def start(self) -> None:
        self.kept, self.lock, self.items = 1, LOCK, FUNCTIONS
        self.function = FUNCTIONS[1]
        self.next(self.raises)

    @catch(var="later")
    @step
    def raises(self) -> None:
        self.lock = LOCK
        if self.kept:
            raise ValueError("no such luck")
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_catch_takes_that_artifacts_cannot_be_kept_and_the_others_stay() -> None:
    result = run_flow(KeepsWhatCannotBeKept)
    assert [one.caught is not None for one in result["start"]] == [True]
    assert result["start"][0].attempts == 2, "another attempt may have something that can be kept"
    assert set(result.data) == {"kept", "failure", "later"}
    assert "self.function" in result.data.failure.exception
    assert result.data.later.exception == "no such luck", "the first exception counts"


class KeepsALock(FlowSpec):
    @step
    def start(self) -> None:
        self.lock = LOCK
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_without_catch_an_artifact_that_cannot_be_kept_fails_the_step() -> None:
    with pytest.raises(ArtifactNotSerializable, match="'lock' cannot be stored"):
        run_flow(KeepsALock)


class Waits(FlowSpec):
    @timeout(seconds=1)
    @step
    def start(self) -> None:
        signal.pause()
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_a_timeout_ends_a_body() -> None:
    with pytest.raises(TimeoutException):
        run_flow(Waits)


class Asynchronous(FlowSpec):
    @step
    async def start(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.done = True
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_async_steps() -> None:
    assert run_flow(Asynchronous).data.done


@pytest.mark.may_block(reason="the store and the sources of steps are read in place")
async def test_async_steps_beside_a_loop() -> None:
    with pytest.raises(UsageError, match="runs one already"):
        run_flow(Asynchronous)
    assert (await anyio.to_thread.run_sync(run_flow, Asynchronous)).data.done
    assert run_step(Asynchronous, "end").next == ()


class Environment(FlowSpec):
    @environment(vars={"EVFLOW_TEST_FLOWS": "set"})
    @step
    def start(self) -> None:
        self.seen = os.environ["EVFLOW_TEST_FLOWS"]
        os.environ["EVFLOW_TEST_LEFT"] = "behind"
        self.where = current.pathspec
        self.known = current.parameter_names, current.is_running_flow, current.graph["steps"]["start"]["name"]
        self.next(self.end)

    @step
    def end(self) -> None:
        self.variables = dict(os.environ)


def test_what_a_body_does_to_the_process_ends_with_it() -> None:
    result = run_flow(Environment)
    assert result.data.seen == "set"
    assert not {"EVFLOW_TEST_FLOWS", "EVFLOW_TEST_LEFT"} & {*result.data.variables, *os.environ}
    assert result.data.where == "Environment/1/start/1"
    assert result.data.known == ([], True, "start")
    assert not current.is_running_flow


class Unkept(FlowSpec):
    @step
    def start(self) -> None:
        self.reader = (number for number in range(3))  # evflow: ignore[not-an-artifact]
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_an_artifact_that_cannot_be_kept() -> None:
    with pytest.raises(ArtifactNotSerializable, match="reader"):
        run_flow(Unkept)
    with pytest.raises(ArtifactNotSerializable, match="reader"):
        run_step(Unkept, "start")


class IllFormed(FlowSpec):
    @step
    def start(self) -> None:
        self.next(self.left, self.right)

    @step
    def left(self) -> None:
        self.way = str(len(type(self).__mro__))
        if self.way:
            self.next(self.one)
        else:
            self.next(self.other)

    @step
    def right(self) -> None:
        self.way = ""
        if self.way:
            self.next(self.one)
        else:
            self.next(self.other)

    @step
    def one(self, inputs: Inputs) -> None:
        self.next(self.end)

    @step
    def other(self, inputs: Inputs) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_members_that_reach_different_joins() -> None:
    with pytest.raises(FlowFailed, match=r"one[\s\S]*other|other[\s\S]*one"):
        run_flow(IllFormed)


class Mistaken(FlowSpec):
    @step
    def start(self) -> None:
        self.next(self.nowhere)

    @step
    def end(self) -> None:
        pass


def test_a_flow_with_mistakes() -> None:
    with pytest.raises(FlowInvalid, match="nowhere"):
        run_flow(Mistaken)


@pytest.mark.parametrize("run", [lambda: run_flow(Fails), lambda: run_step(Fails, "end")], ids=["flow", "step"])
def test_current_is_left_after_a_failure(run: Callable[[], Any]) -> None:
    with pytest.raises(LookupError):
        run()
    assert not current.is_running_flow


def test_what_is_for_the_test_goes_through_a_body() -> None:
    with pytest.raises(pytest.skip.Exception):
        run_flow(Skips)


class Skips(FlowSpec):
    @step
    def start(self) -> None:
        self.next(self.end)

    @catch
    @step
    def end(self) -> None:
        pytest.skip("from inside a body")


# ------------------------------------------------------------------ one step


def test_one_step_with_what_it_inherits() -> None:
    done = run_step(Fold, "double", number=21, weight=2)
    assert done.data.result == 42
    assert done.data.weight == 2
    assert done.next == ("both",)
    assert done.index is None


def test_one_step_of_a_foreach() -> None:
    done = run_step(Fold, "fit", input=7, index=2, shared=[0])
    assert (done.data.number, done.data.shared, done.index) == (7, [0, 7], 2)


def test_a_join_of_branches_by_name() -> None:
    square: Any = run_step(Fold, "square", number=2)
    done = run_step(Fold, "both", inputs={"double": {"result": 4}, "square": square})
    assert done.data.pair == (4, 4)


def test_a_join_of_a_foreach() -> None:
    done = run_step(Fold, "collect", inputs=[{"pair": (1, 2)}, {"pair": (3, 4)}], weight=10)
    assert done.data.pairs == [(1, 2), (3, 4)]
    assert done.data.total == 100


def test_a_join_without_inputs_and_inputs_without_a_join() -> None:
    with pytest.raises(UsageError, match="give it `inputs`"):
        run_step(Fold, "collect")
    with pytest.raises(UsageError, match="no join"):
        run_step(Fold, "fit", inputs=[{}])


def test_a_step_that_is_none() -> None:
    with pytest.raises(UsageError, match=r"no step 'fitt'.*fit"):
        run_step(Fold, "fitt")


@pytest.mark.parametrize("given", [3, "Fold", None, object, Fold.fit], ids=["number", "name", "none", "class", "function"])
def test_what_is_no_flow_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="is no flow"):
        run_flow(given)
    with pytest.raises(UsageError, match="is no flow"):
        run_step(given, "fit")


@pytest.mark.parametrize("given", [3, Fold.fit, ["fit"]], ids=["number", "function", "list"])
def test_a_step_goes_by_its_name(given: Any) -> None:
    with pytest.raises(UsageError, match="a step goes by its name"):
        run_step(Fold, given, input=1)


@pytest.mark.parametrize("index", [-1, "0", True, 1.5])
def test_an_index_that_cannot_be(index: Any) -> None:
    with pytest.raises(UsageError, match=f"index={index!r}: it is the item's place"):
        run_step(Fold, "fit", input=1, index=index)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (3, "inputs=3: it is the list"), ([3], "3 among `inputs`"), ("ab", "'a' among `inputs`"), ({"double": 1}, "1 among `inputs`"),
        ({"pair": (1, 2)}, "among `inputs`: each is a mapping"),
    ],
    ids=["number", "numbers", "text", "branch", "artifacts"],
)  # fmt: skip
def test_inputs_that_cannot_be(inputs: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run_step(Fold, "collect", inputs=inputs)


def test_one_step_is_retried() -> None:
    done = run_step(Retries, "start")
    assert isinstance(done, StepResult)
    assert (done.attempts, done.data.took) == (3, 2)
    assert "took" in repr(done)


def test_one_step_that_catches() -> None:
    assert run_step(Catches, "start").caught == "ValueError: after all was said"


class Collects(FlowSpec):
    """Changes a constant in place, which a run's other tasks do not see."""

    rows: list[int] = []  # noqa: RUF012
    alpha = Parameter("alpha", default=1)

    @step
    def start(self) -> None:
        self.rows.append(1)  # evflow: ignore[mutable-constant]
        self.seen = list(self.rows)
        self.next(self.end)

    @step
    def end(self) -> None:
        self.at_the_end = list(self.rows)
        self.alpine = getattr(self, "alphas", 0)


def test_what_a_body_changes_of_a_constant_is_seen_by_no_other_task_and_no_other_test() -> None:
    for _ in range(2):
        result = run_flow(Collects)
        assert (result["start"][0].data.seen, result.data.at_the_end) == ([1], [])
    assert run_step(Collects, "start").data.seen == [1]
    assert Collects.rows == []


def test_a_value_that_no_step_can_have_left_is_refused() -> None:
    for name, said in (
        ("alpah", "no parameter is called so, and no step uses an artifact of this name"),
        ("rows", "it is a constant of the class"),
        ("end", "it is a step"),
    ):
        values: dict[str, Any] = {name: 2}
        with pytest.raises(UsageError, match=said) as raised:
            run_step(Collects, "end", **values)
        assert ("Did you mean 'alpha'?" in str(raised.value)) is (name == "alpah")
    assert run_step(Collects, "end", alphas=5, other=3).data.alpine == 5


class Gang(FlowSpec):
    fails = Parameter("fails", default=-1)

    @step
    def start(self) -> None:
        self.next(self.train, num_parallel=3)

    @retry(times=1, minutes_between_retries=0)
    @pytorch_parallel(master_port=2345)
    @step
    def train(self) -> None:
        place = current.parallel
        if place.node_index == self.fails and current.retry_count == 0:
            raise ValueError("as told")
        self.place = (
            place.node_index,
            current.retry_count,
            *(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")),
        )
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        self.places = [node.place for node in inputs]
        self.next(self.end)

    @step
    def end(self) -> None:
        assert not current.is_parallel


@pytest.mark.parametrize("fails", [-1, 1])
def test_a_gang_runs_node_after_node_and_is_tried_again_as_a_whole(fails: int) -> None:
    """Its join gets the nodes in their order, all of one attempt."""
    attempt = 0 if fails < 0 else 1
    expected = [(node, attempt, "127.0.0.1", "2345", str(node), "3") for node in range(3)]
    assert run_flow(Gang, fails=fails).data.places == expected
    assert "MASTER_PORT" not in os.environ
