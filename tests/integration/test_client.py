"""The client against a real server: runs written event by event, read as a user reads them."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from evflow import Evflow, Flow, Run, Step, Task, default_namespace, get_namespace, namespace
from evflow.client import DataArtifact, EvflowInvalidPathspec, EvflowNamespaceMismatch, EvflowNotFound, namespaces
from evflow.client.connection import disconnect
from evflow.client.errors import NoSuchAttempt
from tests.client_world import DIAMOND, LINE, NOON_US, SECOND, ClientWorld, client_world, cross_validation


@pytest.fixture
def world(evflow_home: Path) -> Iterator[ClientWorld]:
    """Answer an empty log; the global namespace is in force."""
    with client_world(evflow_home) as made:
        yield made


def local(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOON_US / 1e6 + seconds)  # noqa: DTZ006 - the client's times are local


# ---------------------------------------------------------------- flows and runs


def test_a_flow_gives_its_runs_newest_first(world: ClientWorld) -> None:
    for _ in range(3):
        world.trained()
    flow = Flow("TrainFlow")
    assert [run.id for run in flow] == ["3", "2", "1"]
    assert flow.latest_run == Run("TrainFlow/3")
    assert flow["2"] == flow[2] == Run("TrainFlow/2")
    assert "2" in flow
    assert 2 in flow
    assert "4" not in flow
    assert flow.created_at == local(0)


def test_more_runs_than_the_first_look_at_the_index_shows_all_come_in_order(world: ClientWorld) -> None:
    for _ in range(23):
        world.run().publish()
    assert [int(run.id) for run in Flow("TrainFlow")] == list(range(23, 0, -1))


def test_the_latest_successful_run_is_neither_failed_nor_caught_nor_running(world: ClientWorld) -> None:
    good = world.trained()
    caught = world.run(cross_validation(catch=True))
    caught.succeed(1, "train", kind="foreach", items=[1]).succeed(2, "join").succeed(3, "end").succeed(4, caught="ValueError: nope").seal()
    world.run().fail(1).seal()
    world.run().publish()
    assert Flow("TrainFlow").latest_successful_run == Run(good.pathspec)


def test_a_flow_without_a_successful_run_has_none(world: ClientWorld) -> None:
    world.run().fail(1).seal()
    assert Flow("TrainFlow").latest_successful_run is None


def test_the_root_lists_the_flows_of_the_namespace(world: ClientWorld) -> None:
    world.trained(flow="B")
    world.trained(flow="A", user="bob")
    assert Evflow().flows == [Flow("A"), Flow("B")]
    assert Evflow()["A"] == Flow("A")
    namespace("user:bob")
    assert list(Evflow()) == [Flow("A")]
    assert "A" in Evflow()
    assert "B" not in Evflow()
    with pytest.raises(KeyError, match="has no flow 'Aa'"):
        Evflow()["Aa"]


def test_runs_are_filtered_by_all_tags_that_are_named(world: ClientWorld) -> None:
    world.trained(tags=("x",))
    world.trained(tags=("x", "y"))
    flow = Flow("TrainFlow")
    assert [run.id for run in flow.runs("x")] == ["2", "1"]
    assert [run.id for run in flow.runs("x", "y", "user:ada")] == ["2"]
    assert list(flow.runs("z")) == []


# ---------------------------------------------------------------- how a run went


def test_a_run_that_succeeded_is_finished_and_successful(world: ClientWorld) -> None:
    run = Run(world.trained().pathspec)
    assert run.finished
    assert run.successful
    assert run.status == "succeeded"
    assert run.failure is None
    assert run.created_at == local(3600)
    assert run.finished_at == run.ended_at == local(3605)
    assert run.end_task == Task("TrainFlow/1/end/5")


def test_a_run_whose_task_failed_is_not_finished_and_says_why(world: ClientWorld) -> None:
    run = Run(world.run().fail(1, message="no data").seal().pathspec)
    assert not run.finished
    assert not run.successful
    assert run.finished_at is None
    assert run.end_task is None
    assert run.data is None
    assert run.status == "failed"
    assert "no data" in (run.failure or "")
    assert run.ended_at == local(3601)


def test_a_run_whose_end_step_was_caught_is_finished_and_not_successful(world: ClientWorld) -> None:
    written = world.run(cross_validation(catch=True))
    written.succeed(1, "train", kind="foreach", items=[1]).succeed(2, "join").succeed(3, "end").succeed(4, caught="ValueError: nope").seal()
    run = Run(written.pathspec)
    assert run.finished
    assert not run.successful
    assert run.status == "succeeded"


def test_a_cancelled_run_says_so(world: ClientWorld) -> None:
    run = Run(world.run().cancel().seal().pathspec)
    assert run.status == "cancelled"
    assert not run.finished
    assert Task("TrainFlow/1/start/1").status == "cancelled"


def test_a_live_run_is_read_again_whenever_it_is_asked(world: ClientWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evflow.client.history.FRESH_S", 0)  # the log grows here sooner than a millisecond after it was read
    written = world.run().publish(owned=True)
    run = Run(written.pathspec)
    start = Task("TrainFlow/1/start/1")
    assert (run.status, run.finished, start.finished, start.status, [step.id for step in run]) == (
        "running", False, False, "running", ["start"],
    )  # fmt: skip
    written.succeed(1, "end", values={"x": 1}).publish(owned=True)
    assert start.finished
    assert start.data.x == 1
    assert [step.id for step in run] == ["end", "start"]
    written.succeed(2).seal()
    assert run.finished
    assert run.status == "succeeded"


def test_a_run_whose_owner_died_is_interrupted(world: ClientWorld) -> None:
    run = Run(world.run().publish().pathspec)
    assert run.status == "interrupted"


def test_a_run_whose_owner_died_on_this_machine_is_interrupted_though_its_lease_holds(world: ClientWorld) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run = Run(world.run().publish(owned=True, owner=f"{os.uname().nodename}:{gone.pid}:1:x").pathspec)
    assert run.status == "interrupted"


# ---------------------------------------------------------------- steps and tasks


def test_steps_and_tasks_come_newest_first(world: ClientWorld) -> None:
    run = Run(world.trained().pathspec)
    assert [step.id for step in run] == [step.id for step in run.steps()] == ["end", "join", "train", "start"]
    train = run["train"]
    assert train == Step("TrainFlow/1/train")
    assert [task.id for task in train] == ["3", "2"]
    assert train.task == Task("TrainFlow/1/train/3")
    assert train["2"].index == 0
    assert train[3].index == 1
    assert train.created_at == local(3601)
    assert train.finished_at == local(3603)
    assert "train" in run
    assert "_parameters" in run
    assert "nope" not in run
    assert "4" not in train


def test_tags_filter_steps_and_tasks_by_their_run(world: ClientWorld) -> None:
    run = Run(world.trained(tags=("x",)).pathspec)
    assert len(list(run.steps("x", "user:ada"))) == 4
    assert list(run.steps("y")) == []
    assert len(list(run["train"].tasks("x"))) == 2
    assert list(run["train"].tasks("y")) == []


def test_a_task_knows_its_parents_and_children(world: ClientWorld) -> None:
    run = Run(world.trained().pathspec)
    start, join, end = run["start"].task, run["join"].task, run["end"].task
    assert start is not None
    assert join is not None
    assert end is not None
    assert [task.id for task in start.child_tasks] == ["2", "3"]
    assert [task.id for task in run["train"]["2"].parent_tasks] == ["1"]
    assert [task.id for task in run["train"]["2"].child_tasks] == ["4"]
    assert list(join.parent_task_pathspecs) == ["TrainFlow/1/train/2", "TrainFlow/1/train/3"]
    assert list(join.child_task_pathspecs) == ["TrainFlow/1/end/5"]
    assert list(start.parent_tasks) == list(end.child_tasks) == []
    assert [step.id for step in run["train"].parent_steps] == ["start"]
    assert [step.id for step in run["train"].child_steps] == ["join"]


def test_the_join_of_a_static_split_has_the_branches_as_parents_in_their_order(world: ClientWorld) -> None:
    written = world.run(DIAMOND).succeed(1, "left", "right", kind="split")
    written.succeed(3, "join").succeed(2, "join").succeed(4, "end").succeed(5).seal()
    run = Run(written.pathspec)
    assert run["join"].task is not None
    assert [task.parent.id for task in run["join"].task.parent_tasks] == ["left", "right"]
    assert {step.id for step in run["join"].parent_steps} == {"left", "right"}
    assert [step.id for step in run["right"].child_steps] == ["join"]
    assert run["left"].task is not None
    assert run["left"].task.index is None


def test_a_foreach_task_knows_its_place_and_item(world: ClientWorld) -> None:
    world.trained()
    assert Task("TrainFlow/1/train/3").foreach_stack == [(1, 2, 20)]
    assert Task("TrainFlow/1/start/1").foreach_stack == []
    assert Task("TrainFlow/1/train/3").metadata_dict["foreach-execution-path"] == "train:1"


def test_a_task_that_failed_tells_its_exception(world: ClientWorld) -> None:
    world.run().fail(1, "builtins.ValueError", "no data", "Traceback:\n  flow.py:7\n").seal()
    task = Task("TrainFlow/1/start/1")
    assert (task.status, task.finished, task.successful) == ("failed", False, False)
    assert task.finished_at == local(3601)
    assert task.exception is not None
    assert (task.exception.exception, task.exception.type) == ("no data", "builtins.ValueError")
    assert "flow.py:7" in (task.exception.stacktrace or "")
    with pytest.raises(AttributeError, match="It failed"):
        _ = task.data.x


def test_a_task_that_was_killed_tells_that_too(world: ClientWorld) -> None:
    written = world.run()
    for _ in range(4):
        written.exit(1, signal=11)
        if Run(written.publish().pathspec).status == "failed":
            break
    task = Task("TrainFlow/1/start/1")
    assert task.exception is not None
    assert "signal" in task.exception.exception.lower() or "SEGV" in task.exception.exception


def test_a_caught_exception_is_no_exception_and_no_success(world: ClientWorld) -> None:
    written = world.run(cross_validation(catch=True)).succeed(1, "train", kind="foreach", items=[1])
    written.succeed(2, "join", values={"error": "what @catch left"}, caught="ValueError: nope").publish()
    task = Task("TrainFlow/1/train/2")
    assert (task.finished, task.successful, task.exception) == (True, False, None)
    assert task.data.error == "what @catch left"


def test_attempts_are_seen_one_by_one(world: ClientWorld) -> None:
    written = world.run(cross_validation(retries=1)).succeed(1, "train", kind="foreach", items=[1])
    written.print(2, "first").fail(2, message="first try").print(2, "second").succeed(2, "join", values={"x": 1}).publish()
    task, first = Task("TrainFlow/1/train/2"), Task("TrainFlow/1/train/2", attempt=0)
    assert (task.current_attempt, first.current_attempt) == (1, 0)
    assert task.successful
    assert not first.successful
    assert task.exception is None
    assert first.exception is not None
    assert first.exception.exception == "first try"
    assert (task.stdout, first.stdout) == ("second\n", "first\n")
    assert "x" in task.data
    assert "x" not in first.data
    assert repr(first) == "Task('TrainFlow/1/train/2', attempt=0)"
    with pytest.raises(NoSuchAttempt, match="has no attempt 2"):
        Task("TrainFlow/1/train/2", attempt=2)


def test_what_a_task_printed_is_read_by_stream_and_by_line(world: ClientWorld) -> None:
    world.run().print(1, "hello").print(1, "oh", "e").print(1, "wörld").publish()
    task = Task("TrainFlow/1/start/1")
    assert task.stdout == "hello\nwörld\n"
    assert task.stderr == "oh\n"
    assert task.stdout_size == len("hello\nwörld\n".encode())
    assert list(task.loglines("stdout")) == [(local(3600), "hello"), (local(3600), "wörld")]
    assert [line for _, line in task.loglines("stderr", as_unicode=False)] == [b"oh"]


def test_the_parameters_are_a_step_with_task_0(world: ClientWorld) -> None:
    run = Run(world.trained().pathspec)
    assert run["_parameters"].task == Task("TrainFlow/1/_parameters/0")
    assert run["_parameters"].task is not None
    assert run["_parameters"].task.data.alpha == 0.5
    assert run["_parameters"].task.successful
    assert "_parameters" not in [step.id for step in run]
    assert run["_parameters"].task.metadata_dict["end_step"] == "end"


def test_metadata_names_what_the_task_ran_with(world: ClientWorld) -> None:
    world.trained()
    task = Task("TrainFlow/1/start/1")
    facts = task.metadata_dict
    assert facts["attempt"] == "0"
    assert facts["attempt_ok"] == "True"
    assert facts["user"] == "ada"
    assert facts["script-name"] == "flow.py"
    assert facts["ds-root"] == world.store.url
    assert task.metadata[0].task == task
    assert task.runtime_name == "dev"
    assert task.environment_info["python_version"] == "3.11.7"


def test_a_resumed_run_names_its_origin(world: ClientWorld) -> None:
    world.trained()
    resumed = Run(world.run(origin="TrainFlow/1").publish().pathspec)
    assert resumed.origin_pathspec == "TrainFlow/1"
    assert resumed["start"].origin_pathspec == "TrainFlow/1/start"
    assert Run("TrainFlow/1").origin_pathspec is None


# ---------------------------------------------------------------- namespaces


def test_only_runs_of_the_namespace_are_seen(world: ClientWorld) -> None:
    world.trained()
    world.trained(user="bob")
    namespace("user:ada")
    flow = Flow("TrainFlow")
    assert [run.id for run in flow] == ["1"]
    assert "2" not in flow
    for hidden in (lambda: Run("TrainFlow/2"), lambda: Step("TrainFlow/2/start"), lambda: Task("TrainFlow/2/start/1"), lambda: flow["2"]):
        with pytest.raises(EvflowNamespaceMismatch, match=r"'user:ada'.*user:bob"):
            hidden()


def test_a_flow_without_a_run_in_the_namespace_is_a_mismatch(world: ClientWorld) -> None:
    world.trained()
    namespace("user:nobody")
    with pytest.raises(EvflowNamespaceMismatch, match="namespace\\(None\\)"):
        Flow("TrainFlow")


def test_children_of_an_object_are_not_checked_again(world: ClientWorld) -> None:
    run = Run(world.trained().pathspec)
    namespace("user:nobody")
    assert run["start"].task is not None
    assert not run.is_in_namespace()


def test_any_tag_is_a_namespace(world: ClientWorld) -> None:
    world.trained(tags=("nightly",))
    world.trained()
    namespace("nightly")
    assert [run.id for run in Flow("TrainFlow")] == ["1"]
    Run("TrainFlow/1").remove_tag("nightly")
    with pytest.raises(EvflowNamespaceMismatch):
        Run("TrainFlow/1")


def test_the_default_namespace_is_the_users_own(world: ClientWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_USER", "ada")
    assert get_namespace() is None
    assert default_namespace() == "user:ada"
    assert get_namespace() == "user:ada"
    assert world.trained().pathspec == Flow("TrainFlow").latest_run.pathspec  # type: ignore[union-attr]


# ---------------------------------------------------------------- connections


def test_a_log_on_a_server_of_ones_own_is_read_by_its_url(redis_url: str, evflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_REDIS_URL", redis_url)
    namespace(None)
    try:
        written = ClientWorld(evflow_home, redis_url).trained()
        run = Flow("TrainFlow").latest_run
        assert run is not None
        assert (run.pathspec, run.successful) == (written.pathspec, True)
        run.add_tag("seen")
        assert Run(written.pathspec).user_tags == {"seen"}
        assert not (evflow_home / "server").exists()
    finally:
        namespaces.forget()
        disconnect()


def test_threads_share_the_connection(world: ClientWorld) -> None:
    written = world.run(cross_validation()).succeed(1, "train", kind="foreach", items=range(20)).publish(owned=True)
    run = Run(written.pathspec)
    seen: list[list[bool]] = []

    def look() -> None:
        seen.extend([task.successful for step in run for task in step if run.tags] for _ in range(20))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for task in range(2, 22):
        written.succeed(task, "join").publish(owned=True)
    for thread in threads:
        thread.join()
    assert len(seen) == 80
    assert all(len(states) in (21, 22) for states in seen)
    assert run["join"].task is not None


def test_after_disconnecting_the_next_question_connects_again(world: ClientWorld) -> None:
    run = Run(world.trained().pathspec)
    disconnect()
    disconnect()
    assert run.tags
    assert Run("TrainFlow/1") == run


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: Flow("TrainFloww"), "Flow\\('TrainFloww'\\) does not exist.\nDid you mean 'TrainFlow'\\?"),
        (lambda: Run("TrainFlow/9"), "Run\\('TrainFlow/9'\\) does not exist.\nIts newest runs are: TrainFlow/1."),
        (lambda: Run("TrainFlow/x"), "does not exist"),
        (lambda: Step("TrainFlow/1/trian"), "Did you mean 'train'"),
        (lambda: Task("TrainFlow/1/train/1"), "Task 1 is one of step 'start'."),
        (lambda: Task("TrainFlow/1/train/99"), "The tasks of this step are: 2, 3."),
        (lambda: DataArtifact("TrainFlow/1/end/5/bets"), "The task has: .*Did you mean 'best'"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(world: ClientWorld, ask: object, says: str) -> None:
    world.trained()
    with pytest.raises(EvflowNotFound, match=says):
        ask()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: Flow("A/B"), "Expects Flow\\('FlowName'\\)"),
        (lambda: Run("TrainFlow"), "Expects Run\\('FlowName/RunID'\\), not 'TrainFlow'"),
        (lambda: Run("TrainFlow/"), "Expects Run"),
        (lambda: Run(3), "Expects Run\\('FlowName/RunID'\\), not 3"),  # type: ignore[arg-type]
        (lambda: Step("TrainFlow/1"), "Expects Step\\('FlowName/RunID/StepName'\\)"),
        (lambda: Task("TrainFlow/1/2"), "Expects Task\\('FlowName/RunID/StepName/TaskID'\\)"),
        (lambda: DataArtifact("x"), "Expects DataArtifact\\('FlowName/RunID/StepName/TaskID/ArtifactName'\\)"),
    ],
)
def test_a_pathspec_of_another_form_is_refused(ask: object, says: str) -> None:
    with pytest.raises(EvflowInvalidPathspec, match=says):
        ask()  # type: ignore[operator]


def test_a_missing_child_is_a_key_error_that_names_the_others(world: ClientWorld) -> None:
    run = Run(world.trained().pathspec)
    for ask, says in (
        (lambda: run["trian"], "has no step 'trian'.\nIt has: .*Did you mean 'train'"),
        (lambda: run["train"]["9"], "has no task '9'"),
        (lambda: run["end"].task["bets"], "has no artifact 'bets'.\nIt has: .*Did you mean 'best'"),  # type: ignore[index]
        (lambda: Flow("TrainFlow")["9"], "has no run '9'"),
    ):
        with pytest.raises(KeyError, match=says):
            ask()


def test_a_missing_artifact_is_an_attribute_error_that_names_the_others(world: ClientWorld) -> None:
    data = Run(world.trained().pathspec).data
    with pytest.raises(AttributeError, match=r"Task 'TrainFlow/1/end/5' has no artifact 'bets'.\nIt has: .*Did you mean 'best'"):
        _ = data.bets  # type: ignore[union-attr]
    assert getattr(data, "nope", "default") == "default"


def test_a_step_that_was_not_reached_says_so(world: ClientWorld) -> None:
    world.run().publish()
    with pytest.raises(EvflowNotFound, match="has not reached"):
        Step("TrainFlow/1/end")


def test_where_nothing_ever_ran_no_server_is_started(evflow_home: Path) -> None:
    namespace(None)
    try:
        assert Evflow().flows == []
        for ask in (lambda: Flow("X"), lambda: Run("X/1")):
            with pytest.raises(EvflowNotFound, match=r"no runs in .* yet"):
                ask()
        assert not (evflow_home / "server").exists()
    finally:
        namespaces.forget()
        disconnect()


def test_reprs_are_the_way_to_make_the_object_again(world: ClientWorld) -> None:
    run = Run(world.trained().pathspec)
    end = run["end"].task
    assert end is not None
    shown = [repr(item) for item in (Evflow(), Flow("TrainFlow"), run, run["end"], end, end["best"])]
    assert shown == [
        "Evflow()", "Flow('TrainFlow')", "Run('TrainFlow/1')", "Step('TrainFlow/1/end')", "Task('TrainFlow/1/end/5')",
        "DataArtifact('TrainFlow/1/end/5/best')",
    ]  # fmt: skip
    assert [eval(text) for text in shown[1:]] == [Flow("TrainFlow"), run, run["end"], end, end["best"]]
    assert repr(end.data) == "<TaskData of TrainFlow/1/end/5: best, scores>"
    assert LINE.end == "end"
    assert SECOND
