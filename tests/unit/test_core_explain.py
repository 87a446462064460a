"""Every wait has a reason that the state and the grants give."""

from typing import TypeVar

from evflow.core import explain
from evflow.core.explain import Ended, IsEnding, NobodyOwns, RunIsOver, Runs, Starts, WaitsForMembers, WaitsForRetry, WaitsForSlot
from evflow.core.graph import Node, Policy
from tests.unit.story import NOON_US, SECOND, Story, cross_validation, graph

T = TypeVar("T")


def spread(splits: int = 6, *, slots: int = 2, retries: int = 0) -> Story:
    story = Story(cross_validation(retries=retries, delay_s=60), slots=slots).start()
    return story.succeed(1, "train", kind="foreach", splits=splits)


def reason(story: Story, task: int, kind: type[T]) -> T:
    """The task's one reason of a kind."""
    [found] = [one for one in explain.of_task(story.state, story.state.tasks[task]) if isinstance(one, kind)]
    return found


def test_a_queued_task_waits_for_the_slots_that_these_tasks_hold() -> None:
    waits = reason(spread(), 5, WaitsForSlot)
    assert [(held.slot, held.step, held.task) for held in waits.held] == [(0, "train", 2), (1, "train", 3)]
    assert {held.since_us for held in waits.held} == {NOON_US}
    assert (waits.ahead, waits.ahead_count) == ((("train", 4),), 1)
    assert (waits.executor, waits.since_us) == ("local", NOON_US)


def test_the_next_in_line_has_nobody_ahead() -> None:
    assert reason(spread(), 4, WaitsForSlot).ahead_count == 0


def test_of_many_tasks_ahead_the_next_ones_are_named_and_all_are_counted() -> None:
    waits = reason(spread(100, slots=1), 101, WaitsForSlot)
    assert waits.ahead == tuple(("train", task) for task in range(3, 8))
    assert waits.ahead_count == 98


def test_a_queued_task_asks_for_what_its_step_declares_beside_what_the_others_hold() -> None:
    shape = graph(
        Node("start", "foreach", ("train",), foreach="xs"),
        Node("train", "linear", ("join",), policy=Policy(cpu=2, memory_mb=512, gpu=1)),
        Node("join", "join", ("end",), takes_inputs=True),
        Node("end", "end"),
    )
    waits = reason(Story(shape, slots=3).start().succeed(1, "train", kind="foreach", splits=5), 5, WaitsForSlot)
    assert (waits.asks.cpu, waits.asks.memory_mb, waits.asks.gpu) == (2, 512, 1)
    assert (waits.taken.cpu, waits.taken.memory_mb, waits.taken.gpu) == (6, 1536, 3)


def test_a_join_is_named_before_anybody_has_come_to_it() -> None:
    [waits] = explain.open_splits(spread().state)
    assert (waits.join, waits.missing_count) == ("join", 6)


def test_the_join_of_an_outer_split_is_not_that_of_the_inner_one() -> None:
    shape = graph(
        Node("start", "foreach", ("outer",), foreach="xs"),
        Node("outer", "foreach", ("inner",), foreach="ys"),
        Node("inner", "linear", ("join_inner",)),
        Node("join_inner", "join", ("join_outer",), takes_inputs=True),
        Node("join_outer", "join", ("end",), takes_inputs=True),
        Node("end", "end"),
    )
    assert (shape.join_of("start"), shape.join_of("outer"), shape.join_of("inner")) == ("join_outer", "join_inner", "join_inner")


def test_where_several_joins_are_possible_none_is_named() -> None:
    shape = graph(
        Node("start", "foreach", ("work",), foreach="xs"),
        Node("work", "switch", ("one", "other")),
        Node("one", "join", ("end",), takes_inputs=True),
        Node("other", "join", ("end",), takes_inputs=True),
        Node("end", "end"),
    )
    assert shape.join_of("start") is None


def test_a_retry_waits_for_its_instant_because_of_the_attempt_before() -> None:
    waits = reason(spread(retries=2).fail(2), 2, WaitsForRetry)
    assert (waits.attempt, waits.at_us, waits.counted, waits.allowed) == (1, NOON_US + 60 * SECOND, 1, 2)
    assert waits.before.message == "nope"


def test_a_running_task_names_its_process_and_its_limit() -> None:
    shape = graph(Node("start", "linear", ("end",), policy=Policy(timeout_us=9 * SECOND)), Node("end", "end"))
    runs = reason(Story(shape).start(), 1, Runs)
    assert (runs.pid, runs.limit_us, runs.asked) == (4001, 9 * SECOND, "")


def test_a_task_that_was_asked_to_end_says_why() -> None:
    assert reason(spread().cancel(), 2, Runs).asked == "run-cancelled"


def test_a_launched_task_is_about_to_start() -> None:
    story = spread()
    story.state.tasks[2].status = "launched"
    assert reason(story, 2, Starts).status == "launched"


def test_a_join_waits_for_the_members_that_have_not_come_and_says_where_they_are() -> None:
    story = spread(retries=1).succeed(2, "join").fail(3)
    [waits] = explain.open_splits(story.state)
    assert (waits.step, waits.split, waits.join, waits.size, waits.missing_count) == ("start", 1, "join", 6, 5)
    assert [(one.index, one.task, one.status) for one in waits.missing] == [
        (1, 3, "retrying"), (2, 4, "running"), (3, 5, "running"), (4, 6, "queued"), (5, 7, "queued"),
    ]  # fmt: skip


def test_a_member_is_where_its_newest_open_task_is() -> None:
    shape = graph(
        Node("start", "foreach", ("clean",), foreach="xs"),
        Node("clean", "linear", ("train",)),
        Node("train", "linear", ("join",)),
        Node("join", "join", ("end",), takes_inputs=True),
        Node("end", "end"),
    )
    story = Story(shape, slots=2).start().succeed(1, "clean", kind="foreach", splits=2).succeed(2, "train")
    [waits] = explain.open_splits(story.state)
    assert [(one.index, one.step, one.status) for one in waits.missing] == [(0, "train", "running"), (1, "clean", "running")]


def test_a_finished_member_explains_what_its_join_waits_for() -> None:
    story = spread().succeed(2, "join")
    assert reason(story, 2, Ended).next_steps == ("join",)
    assert reason(story, 2, WaitsForMembers).missing_count == 5


def test_a_run_that_nobody_owns_waits_for_an_owner() -> None:
    assert list(explain.of_run(spread().state, owned=False)) == [NobodyOwns()]
    assert list(explain.of_run(spread().state, owned=True)) == []


def test_a_run_that_is_being_cancelled_waits_for_its_running_tasks() -> None:
    [ending] = explain.of_run(spread().cancel("enough").state, owned=True)
    assert ending == IsEnding("cancelled", "enough", (("train", 2, True), ("train", 3, True)), forced=False)


def test_a_failing_run_waits_for_its_running_tasks() -> None:
    [ending] = explain.of_run(spread().fail(2).state, owned=True)
    assert isinstance(ending, IsEnding)
    assert (ending.what, [task for _, task, _ in ending.running]) == ("failing", [3])
    assert not list(explain.open_splits(spread().fail(2).state))


def test_a_run_that_is_over_waits_for_nothing() -> None:
    story = Story(graph(Node("start", "linear", ("end",)), Node("end", "end"))).start().succeed(1, "end").succeed(2)
    assert list(explain.of_run(story.state, owned=False)) == [RunIsOver("succeeded", NOON_US, "")]


def test_every_task_that_is_not_over_has_a_reason() -> None:
    story = spread(retries=1).succeed(2, "join").fail(3)
    for task in explain.open_tasks(story.state):
        assert list(explain.of_task(story.state, task))
