"""Where a transition may lead, and what is said of one that may not."""

import pytest

from evflow.core import events as ev
from evflow.core.frames import MAX_BRANCHES
from tests.core_run import CoreRun, fan, kinds, node

END = node("end")


def ending(run: CoreRun) -> tuple[str, str]:
    """The code and reason with which the run failed."""
    assert run.state.status == "failed"
    assert run.state.outcome is not None
    return run.state.outcome.code, run.state.outcome.reason


# --- what may be ------------------------------------------------------------------------------------------


def test_a_join_waits_for_all_members_of_its_split() -> None:
    """In whatever order they come."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=3)
    assert run.done(3, "join") == []
    assert run.done(2, "join") == []
    assert kinds(run.done(4, "join")) == ["TasksCreated", "TaskQueued"]
    assert run.state.splits[1].arrived == [2, 3, 4]
    assert run.task(5).frame is None


def test_a_foreach_of_one_item_has_a_join_of_one_member() -> None:
    """No shortcut."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=1)
    assert run.steps() == ["start", "body"]
    run.done(2, "join")
    run.done(3, "end")
    assert run.done(4) == [ev.RunSucceeded(4)]


def test_a_branch_may_lead_to_the_join_at_once_while_another_is_longer() -> None:
    """The join is the direct child of one branch and the grandchild of the other."""
    run = CoreRun(
        node("start", "a", "b"), node("a", "join"), node("b", "c"), node("c", "join"), node("join", "end"), END,
    )  # fmt: skip
    run.done(1, "a", "b")
    run.done(2, "join")
    run.done(3, "c")
    assert run.state.splits[1].count == 1
    run.done(4, "join")
    assert run.steps() == ["start", "a", "b", "c", "join"]


def test_members_are_in_the_order_of_their_branches_whoever_comes_first() -> None:
    """The order of `inputs` is that of the source."""
    run = CoreRun(node("start", "a", "b"), node("a", "join"), node("b", "join"), node("join", "end"), END)
    run.done(1, "a", "b")
    run.done(3, "join")
    run.done(2, "join")
    assert run.state.splits[1].arrived == [2, 3]


def test_splits_nest_three_levels_deep() -> None:
    """Each join pops one frame, and a member of the outer split goes on with its own index."""
    nodes = (
        node("start", "l1", kind="foreach"), node("l1", "l2", kind="foreach"), node("l2", "l3", kind="foreach"),
        node("l3", "join3"), node("join3", "join2"), node("join2", "join1"), node("join1", "end"), END,
    )  # fmt: skip
    run = CoreRun(*nodes)
    run.done(1, "l1", splits=2)
    run.done(2, "l2", splits=2)
    run.done(3, "l2", splits=2)
    for task in (4, 5, 6, 7):
        run.done(task, "l3", splits=2)
    leaves = [task for task in run.state.all_tasks() if task.step == "l3"]
    assert [tuple(frame.index for frame in task.frames()) for task in leaves] == [
        (0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1),
    ]  # fmt: skip
    for leaf in reversed(leaves):
        run.done(leaf.id, "join3")
    joins = [task for task in run.state.all_tasks() if task.step == "join3"]
    assert [tuple(frame.index for frame in task.frames()) for task in joins] == [(1, 1), (1, 0), (0, 1), (0, 0)]
    for inner in joins:
        run.done(inner.id, "join2")
    for outer in [task for task in run.state.all_tasks() if task.step == "join2"]:
        run.done(outer.id, "join1")
    (last,) = (task for task in run.state.all_tasks() if task.step == "join1")
    assert last.frames() == []


def test_a_loop_around_a_foreach_binds_the_same_join_anew_each_time() -> None:
    """Two splits, two tasks of the join, none disturbed by the other."""
    run = CoreRun(
        node("start", "spread"), node("spread", "body", kind="foreach"), node("body", "join"), node("join", "spread", "end"), END,
    )  # fmt: skip
    run.done(1, "spread")
    run.done(2, "body", splits=2)
    run.done(3, "join")
    run.done(4, "join")
    run.done(5, "spread")
    run.done(6, "body", splits=2)
    run.done(7, "join")
    run.done(8, "join")
    assert run.done(9, "end")[0] == ev.TasksCreated("end", 10, 1, 9)
    assert run.task(6).iteration == 1
    assert [split.arrived for split in run.state.splits.values()] == [[3, 4], [7, 8]]


def test_one_join_step_serves_two_splits_at_once() -> None:
    """Members of different splits that reach the same step make a task of it each."""
    run = CoreRun(
        node("start", "x", "y"), node("x", "body", kind="foreach"), node("y", "body", kind="foreach"), node("body", "join"),
        node("join", "join2"), node("join2", "end"), END,
    )  # fmt: skip
    run.done(1, "x", "y")
    run.done(2, "body", splits=1)
    run.done(3, "body", splits=1)
    run.done(4, "join")
    run.done(5, "join")
    assert [(task.parent, task.step) for task in run.state.all_tasks()][-2:] == [(2, "join"), (3, "join")]


def test_a_switch_may_choose_its_own_step_again_and_again() -> None:
    """Recursion: a task for each time."""
    run = CoreRun(node("start", "again"), node("again", "again", "end", kind="switch"), END)
    run.done(1, "again")
    for task in (2, 3, 4):
        run.done(task, "again", kind="switch")
    run.done(5, "end", kind="switch")
    assert [task.iteration for task in run.state.all_tasks() if task.step == "again"] == [0, 1, 2, 3]


def test_a_step_inside_a_split_may_loop_there() -> None:
    """Around steps that began behind the split."""
    run = CoreRun(node("start", "a", kind="foreach"), node("a", "b"), node("b", "a", "join"), node("join", "end"), END)
    run.done(1, "a", splits=1)
    run.done(2, "b")
    run.done(3, "a")
    run.done(4, "b")
    run.done(5, "join")
    assert run.steps()[-1] == "join"


def test_a_flow_of_one_step_starts_and_ends_with_it() -> None:
    """No transition at all."""
    run = CoreRun(node("start"))
    assert run.done(1) == [ev.RunSucceeded(1)]


# --- what may not be --------------------------------------------------------------------------------------


def test_members_that_reach_different_joins_fail_the_run() -> None:
    """Both places are named, and the split."""
    run = CoreRun(
        node("start", "a", "b"), node("a", "join1"), node("b", "join2"), node("join1", "end"), node("join2", "end"), END,
    )  # fmt: skip
    run.done(1, "a", "b")
    run.done(2, "join1")
    run.done(3, "join2")
    assert ending(run) == (
        "different-joins",
        (
            "The members of the split at step 'start' (task 1) reach different joins: "
            "step 'a' (task 2) reached 'join1', step 'b' (task 3) reached 'join2'."
        ),
    )


def test_the_end_inside_a_split_fails_the_run() -> None:
    """The end and the split are named."""
    run = CoreRun(*fan(node("body", "end")))
    run.done(1, "body", splits=2)
    run.done(2, "end")
    assert ending(run) == (
        "end-inside-split",
        "Step 'body' (task 2) reaches the end before the split at step 'start' (task 1) was joined. Add a join before the end.",
    )


@pytest.mark.parametrize("splits", [0, 2])
def test_a_split_into_the_end_fails_the_run(splits: int) -> None:
    """Static or foreach."""
    run = CoreRun(node("start", "end", kind="foreach" if splits else "split"), node("a", "end"), END)
    run.done(1, *(("end",) if splits else ("a", "end")), splits=splits)
    assert ending(run)[0] == "end-inside-split"


def test_a_join_without_a_split_fails_the_run() -> None:
    """The step and the join are named."""
    run = CoreRun(node("start", "join"), node("join", "end"), END)
    run.done(1, "join")
    assert ending(run) == (
        "join-without-split",
        "Step 'start' (task 1) leads to the join 'join', but no split is open there. A join is reached from inside a split only.",
    )


@pytest.mark.parametrize("splits", [0, 2])
def test_a_split_into_a_join_fails_the_run(splits: int) -> None:
    """A member of it would have nothing to do."""
    run = CoreRun(node("start", "join", "a"), node("a", "join"), node("join", "end"), END)
    run.done(1, *(("join",) if splits else ("join", "a")), splits=splits)
    assert ending(run) == (
        "split-into-join",
        "Step 'start' (task 1) splits into 'join', which is a join (it takes inputs). Put a step between the split and its join.",
    )


@pytest.mark.parametrize("target", ["before", "start"])
def test_a_loop_out_of_a_split_fails_the_run(target: str) -> None:
    """Also to the step that split."""
    run = CoreRun(
        node("before", "start"), node("start", "body", kind="foreach"), node("body", target, "join"), node("join", "end"), END,
    )  # fmt: skip
    run.done(1, "body", splits=2)
    if target == "start":
        run.done(2, "start")
        assert ending(run) == (
            "loop-out-of-split",
            "Step 'body' (task 2) goes back to 'start', which ran before the split at step 'start' (task 1). Join the split before going back.",
        )
    else:
        run.done(2, "before")
        assert run.state.status == "running", "'before' never ran: it is a step like another"


def test_a_split_inside_a_split_may_not_lead_back_either() -> None:
    """The loop is in a branch."""
    run = CoreRun(
        node("start", "body", kind="foreach"), node("body", "start", "c"), node("c", "join"), node("join", "end"), END,
    )  # fmt: skip
    run.done(1, "body", splits=1)
    run.done(2, "start", "c")
    assert ending(run)[0] == "loop-out-of-split"


def test_a_foreach_over_nothing_fails_the_run() -> None:
    """As in Metaflow."""
    run = CoreRun(*fan())
    run.done(1, "body", kind="foreach", splits=0)
    assert ending(run) == ("empty-foreach", "Foreach iterator over xs in step start produced zero splits. Check your variable.")


def test_a_foreach_over_more_than_the_limit_fails_the_run() -> None:
    """And one over just as many does not."""
    run = CoreRun(*fan(), max_splits=3)
    run.done(1, "body", splits=4)
    code, reason = ending(run)
    assert code == "too-many-splits"
    assert "yielded 4 child steps which is more than the current maximum of 3 children" in reason
    assert "--max-num-splits" in reason
    run = CoreRun(*fan(), max_splits=3)
    run.done(1, "body", splits=3)
    assert run.state.status == "running"


def test_a_step_that_the_flow_does_not_have_fails_the_run() -> None:
    """The report names it."""
    run = CoreRun(node("start", "end"), END)
    run.done(1, "elsewhere")
    assert ending(run) == ("unknown-step", "Step 'start' (task 1) leads to 'elsewhere', which is not a step of the flow.")


def test_a_step_without_a_transition_that_is_not_the_end_fails_the_run() -> None:
    """Whether the report says `end` or names no step."""
    for kind in ("end", "linear", "foreach"):
        run = CoreRun(node("start", "end"), END)
        run.done(1, kind=kind, splits=2 if kind == "foreach" else 0)
        assert ending(run) == ("no-transition", "Step 'start' (task 1) did not say which step comes next.")


@pytest.mark.parametrize("kind", ["linear", "switch", "foreach"])
def test_a_transition_that_has_one_step_has_one(kind: str) -> None:
    """No second one is silently left out."""
    run = CoreRun(node("start", "a", "b"), node("a", "end"), node("b", "end"), END)
    run.done(1, "a", "b", kind=kind, splits=2 if kind == "foreach" else 0)
    code, reason = ending(run)
    assert code == "unknown-transition"
    assert reason == f"Step 'start' (task 1) reported a {kind} transition to 2 steps (a, b); it has one."


def test_a_transition_of_a_later_version_fails_the_run_and_not_its_owner() -> None:
    """A worker may be newer than the scheduler."""
    run = CoreRun(node("start", "end"), END)
    run.done(1, "end", kind="teleport")
    code, reason = ending(run)
    assert code == "unknown-transition"
    assert "'teleport', which this version of evflow does not know" in reason


def test_a_static_split_has_at_most_so_many_branches() -> None:
    """Each is an event, and the turn has to fit into one append."""
    names = [f"s{number}" for number in range(MAX_BRANCHES + 1)]
    nodes = (node("start", *names), *(node(name, "join") for name in names), node("join", "end"), END)
    run = CoreRun(*nodes)
    assert len(run.done(1, *names[:-1])) == 2 * MAX_BRANCHES
    run = CoreRun(*nodes)
    run.done(1, *names)
    assert ending(run)[0] == "too-many-branches"


def test_an_endless_loop_ends_with_the_task_budget() -> None:
    """And the reason says how to raise it."""
    run = CoreRun(node("start", "again"), node("again", "again", kind="switch"), END, task_budget=4)
    run.done(1, "again")
    for task in (2, 3, 4):
        run.done(task, "again", kind="switch")
    code, reason = ending(run)
    assert code == "task-budget"
    assert reason.startswith("Step 'again' (task 4) leads to 'again' beyond the run's budget of 4 tasks. Raise it with --task-budget")
    assert len(run.steps()) == 4


def test_the_budget_counts_what_is_promised_in_the_same_turn() -> None:
    """Two foreaches of which each fits, but not both."""
    run = CoreRun(
        node("start", "x", "y"), node("x", "a", kind="foreach"), node("y", "a", kind="foreach"), node("a", "join"),
        node("join", "join2"), node("join2", "end"), END, task_budget=10,
    )  # fmt: skip
    run.done(1, "x", "y")
    run.begin(2, 3)
    run.turn(run.success(2, "a", splits=5), run.success(3, "a", splits=5))
    assert ending(run)[0] == "task-budget"
    assert len(run.steps()) <= 10


def test_the_first_breach_is_the_reason() -> None:
    """A second one in the same turn changes nothing."""
    run = CoreRun(*fan(node("body", "end")))
    run.done(1, "body", splits=2)
    run.begin(2, 3)
    run.turn(run.success(3, "end"), run.success(2, "nowhere"))
    assert "(task 3)" in ending(run)[1]


def test_what_still_runs_is_ended_before_the_run_fails() -> None:
    """And nothing new is started."""
    run = CoreRun(*fan(node("body", "end")))
    run.done(1, "body", splits=3)
    run.begin(2, 3)
    assert run.turn(run.success(2, "end")) == [ev.AttemptCancelRequested(3, 0, "run-failed")]
    assert run.state.status == "running"
    assert kinds(run.exit(3, signal=15)) == ["AttemptCancelled", "RunFailed"]
    assert run.task(4).status == "queued"
