"""What a resumed run takes over from the run before, and what it does anew."""

from evflow.core import events as ev
from evflow.core.reasons import ran_anew
from evflow.core.reuse import ReusePlan, RunAnew, behind, plan_of
from tests.core_run import CoreRun, fan, node

STEPS = (node("start", "a"), node("a", "b"), node("b", "end"), node("end"))


def resume(origin: CoreRun, again: frozenset[str] = frozenset(), nodes: tuple[object, ...] = (), limit: int = 100) -> CoreRun:
    """A run that takes over what it may, as the loop of its owner does."""
    graph = nodes or tuple(origin.state.graph.nodes.values())
    run = CoreRun(*graph)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    plan = ReusePlan(origin.state, again)
    while reused := plan.reusable(run.state, limit):
        assert len(reused) <= limit
        run.turn(*reused)
    return run


def taken(run: CoreRun) -> list[str | None]:
    """Where each task's result comes from."""
    return [task.reused for task in run.state.all_tasks()]


def failed_at_b() -> CoreRun:
    """start and a succeeded, b did not."""
    run = CoreRun(*STEPS)
    run.done(1, "a")
    run.done(2, "b")
    run.fail(3)
    return run


def test_what_succeeded_is_taken_over_and_what_failed_waits_for_a_slot() -> None:
    """By reference: the manifests are the same."""
    origin = failed_at_b()
    run = resume(origin)
    assert taken(run) == ["TestFlow/1/start/1", "TestFlow/1/a/2", None]
    assert [run.task(n).manifest for n in (1, 2)] == [origin.task(n).manifest for n in (1, 2)]
    assert list(run.state.waiting) == [3]


def test_a_run_that_only_takes_over_is_asked_to_end_and_has_ended_as_it_was_meant_to() -> None:
    """Not one that somebody else cancelled, nor one that goes on."""
    origin = failed_at_b()
    run, plan = CoreRun(*STEPS), ReusePlan(origin.state, only=True)
    while reused := plan.reusable(run.state, 100):
        run.turn(*reused)
    assert not plan.has_ended(run.state)
    run.turn(*plan.ending())
    assert (run.state.status, plan.has_ended(run.state)) == ("cancelled", True)
    assert run.task(3).status == "queued"
    other = CoreRun(*STEPS)
    other.turn(ev.RunCancelRequested("enough"))
    assert (plan.has_ended(other.state), ReusePlan(origin.state).ending()) == (False, [])


def test_a_named_step_and_all_behind_it_run_anew() -> None:
    """Although they succeeded."""
    origin = CoreRun(*STEPS)
    for task, steps in ((1, ("a",)), (2, ("b",)), (3, ("end",)), (4, ())):
        origin.done(task, *steps)
    run = resume(origin, behind(origin.state.graph, "b"))
    assert taken(run) == ["TestFlow/1/start/1", "TestFlow/1/a/2", None]
    assert behind(origin.state.graph, "b") == {"b", "end"}


def test_what_is_behind_a_loop_is_found_once() -> None:
    """No endless search."""
    graph = CoreRun(node("start", "a"), node("a", "start", "end"), node("end")).state.graph
    assert behind(graph, "a") == {"start", "a", "end"}


def test_in_a_foreach_only_the_members_that_failed_run_anew() -> None:
    """Each corresponds to the one with the same index."""
    origin = CoreRun(*fan())
    origin.done(1, "body", splits=3)
    origin.begin(2, 3, 4)
    origin.done(4, "join")
    origin.fail(2)
    origin.done(3, "join")
    assert taken(resume(origin)) == ["TestFlow/1/start/1", None, "TestFlow/1/body/3", "TestFlow/1/body/4"]


def test_in_nested_foreaches_each_member_finds_its_own() -> None:
    """A join is taken over where all its members were."""
    nodes = (
        node("start", "mid", kind="foreach"), node("mid", "body", kind="foreach"), node("body", "join1"),
        node("join1", "join2"), node("join2", "end"), node("end"),
    )  # fmt: skip
    origin = CoreRun(*nodes)
    origin.done(1, "mid", splits=2)
    origin.done(3, "body", splits=2)  # the second member first: ids differ from their places
    origin.done(2, "body", splits=2)
    for task in (4, 5, 6):
        origin.done(task, "join1")
    assert origin.task(8).step == "join1"
    origin.done(8, "join2")
    origin.fail(7)
    run = resume(origin)
    by_place = {(task.step, *(frame.index for frame in task.frames())): task.reused for task in run.state.all_tasks()}
    assert by_place == {
        ("start",): "TestFlow/1/start/1", ("mid", 0): "TestFlow/1/mid/2", ("mid", 1): "TestFlow/1/mid/3",
        ("body", 1, 0): "TestFlow/1/body/4", ("body", 1, 1): "TestFlow/1/body/5",
        ("body", 0, 0): "TestFlow/1/body/6", ("body", 0, 1): None, ("join1", 1): "TestFlow/1/join1/8",
    }  # fmt: skip


def test_a_resumed_run_of_a_resumed_run_names_the_task_that_did_the_work() -> None:
    """However often."""
    second = resume(failed_at_b())
    second.begin(3)
    second.turn(second.success(3, "end"))
    second.fail(4)
    third = resume(second)
    assert taken(third) == ["TestFlow/1/start/1", "TestFlow/1/a/2", "TestFlow/1/b/3", None]
    assert [third.task(n).origin for n in (1, 2, 3)] == [1, 2, 3]


def test_what_a_task_is_known_by_is_taken_over_too() -> None:
    """A caught exception, the number of artifacts and their size."""
    origin = CoreRun(*STEPS)
    origin.begin(1)
    origin.turn(origin.success(1, "a", caught="ValueError: nope", artifacts=3, size_bytes=99))
    origin.fail(2)
    task = resume(origin).task(1)
    assert (task.caught, task.artifacts, task.size_bytes) == ("ValueError: nope", 3, 99)


def test_a_renamed_step_runs_anew_and_so_does_the_one_that_led_to_it() -> None:
    """Its transition of then leads to a step that is no more."""
    nodes = (node("start", "a"), node("a", "better"), node("better", "end"), node("end"))
    run = resume(failed_at_b(), nodes=nodes)
    assert taken(run) == ["TestFlow/1/start/1", None]
    assert run.state.status == "running"


def test_a_step_that_became_a_foreach_runs_anew() -> None:
    """Though it leads to the same step."""
    nodes = (node("start", "a"), node("a", "b", kind="foreach"), node("b", "join"), node("join", "end"), node("end"))
    assert taken(resume(failed_at_b(), nodes=nodes)) == ["TestFlow/1/start/1", None]


def test_a_split_with_another_branch_runs_anew() -> None:
    """Its join would wait for a branch that never was."""
    steps = (node("a", "join"), node("b", "join"), node("c", "join"), node("join", "end"), node("end"))
    origin = CoreRun(node("start", "a", "b"), *steps)
    origin.done(1, "a", "b")
    origin.done(2, "join")
    origin.fail(3)
    assert taken(resume(origin)) == ["TestFlow/1/start/1", "TestFlow/1/a/2", None]
    assert taken(resume(origin, nodes=(node("start", "a", "b", "c"), *steps))) == [None]


def test_a_step_that_is_no_end_any_more_runs_anew() -> None:
    """And one that is now, too."""
    origin = CoreRun(node("start", "end"), node("end"))
    origin.done(1, "end")
    origin.done(2)
    longer = CoreRun(node("start", "end"), node("end", "last"), node("last")).state.graph
    assert longer.end == "end"
    run = CoreRun(node("start", "last"), node("last"))
    assert ReusePlan(origin.state).reusable(run.state, 9) == []


def test_the_way_of_a_switch_or_a_condition_is_taken_over() -> None:
    """Where the flow of now could go it as well."""
    for kind in ("switch", "conditional"):
        nodes = (node("start", "a", "b", kind=kind), node("a", "end"), node("b", "end"), node("end"))
        origin = CoreRun(*nodes)
        origin.done(1, "b", kind="switch" if kind == "switch" else "linear")
        origin.fail(2)
        assert taken(resume(origin)) == ["TestFlow/1/start/1", None]
        assert resume(origin).steps() == ["start", "b"]


def test_a_task_that_already_failed_in_the_new_run_is_not_taken_over() -> None:
    """Its retry is its own."""
    origin = CoreRun(node("start", "end", retry_times=1), node("end"))
    run = CoreRun(node("start", "end", retry_times=1), node("end"))
    origin.done(1, "end")
    run.fail(1)
    assert ReusePlan(origin.state).reusable(run.state, 9) == []


def test_a_plan_gives_its_tasks_in_portions_and_looks_at_each_once() -> None:
    """A round of the loop stays small, and so does what it costs."""
    origin = CoreRun(*fan())
    origin.done(1, "body", splits=50)
    origin.begin(*range(2, 52))
    origin.turn(*(origin.success(task, "join") for task in range(2, 51)))
    origin.fail(51)
    run = resume(origin, limit=7)
    assert sum(task.reused is not None for task in run.state.all_tasks()) == 50
    assert isinstance(run.records[-1].event, ev.TaskReused)


def test_nothing_is_taken_over_from_a_run_that_has_nothing() -> None:
    """It died before its first task ended."""
    assert taken(resume(CoreRun(*STEPS))) == [None]


def why(origin: CoreRun, run: CoreRun, again: frozenset[str] = frozenset(), named: str = "") -> dict[str, RunAnew | None]:
    """For each task why it is run."""
    plan = ReusePlan(origin.state, again, named)
    return {f"{task.step}/{task.id}": plan.why(run.state, task) for task in run.state.all_tasks()}


def test_each_task_says_why_it_is_run_and_those_that_are_taken_over_nothing() -> None:
    """What failed, what was never reached, and what depends on either."""
    origin = failed_at_b()
    run = resume(origin)
    assert why(origin, run) == {"start/1": None, "a/2": None, "b/3": RunAnew("unfinished", "b/3", "failed")}
    run.done(3, "end")
    assert why(origin, run)["end/4"] == RunAnew("after", "b/3")


def test_a_step_that_was_named_is_told_from_those_behind_it() -> None:
    """Both are run although they had succeeded."""
    origin = CoreRun(*STEPS)
    for task, steps in ((1, ("a",)), (2, ("b",)), (3, ("end",)), (4, ())):
        origin.done(task, *steps)
    plan = plan_of(origin.state, origin.state.graph, "b")
    run = resume(origin, plan.again)
    run.done(3, "end")
    assert why(origin, run, plan.again, plan.named) == {
        "start/1": None, "a/2": None, "b/3": RunAnew("named"), "end/4": RunAnew("behind"),
    }  # fmt: skip


def test_a_join_names_the_member_that_was_run() -> None:
    """Not the split before, which was taken over."""
    origin = CoreRun(*fan())
    origin.done(1, "body", splits=3)
    origin.begin(2, 3, 4)
    origin.done(4, "join")
    origin.fail(2)
    origin.done(3, "join")
    run = resume(origin)
    run.done(2, "join")
    assert why(origin, run)["body/2"] == RunAnew("unfinished", "body/2", "failed")
    assert why(origin, run)["join/5"] == RunAnew("after", "body/2")


def test_a_way_that_is_none_any_more_and_a_task_that_never_was_are_told() -> None:
    """By the origin's task where there is one."""
    origin = failed_at_b()
    run = resume(origin, nodes=(node("start", "other"), node("other", "b"), node("b", "end"), node("end")))
    assert why(origin, run) == {"start/1": RunAnew("otherwise", "start/1")}
    cancelled = CoreRun(*STEPS)
    cancelled.done(1, "a")
    cancelled.cancel()
    assert why(cancelled, resume(cancelled))["a/2"] == RunAnew("unfinished", "a/2", "queued")
    assert ReusePlan(CoreRun(*STEPS).state).why(resume(origin).state, resume(origin).task(1)) == RunAnew("unfinished", "start/1", "queued")


def test_the_reasons_are_sentences_one_for_many_tasks() -> None:
    """With the first of them by name."""
    tasks = [("b/3", RunAnew("unfinished", "b/3", "failed")), *((f"c/{n}", RunAnew("after", "b/3")) for n in range(4, 12))]
    assert ran_anew("F/1", tasks) == [
        "b/3 ran because F/1/b/3 failed.",
        "c/4, c/5, c/6, c/7, c/8 and 3 more ran because what they depend on was run.",
    ]
