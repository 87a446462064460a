"""What the client works out without a server: relations of tasks, namespaces, pathspecs, when the log is read."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given, strategies as st

from evflow.client import namespaces
from evflow.client.connection import SharedLog
from evflow.client.errors import EvflowInvalidPathspec, EvflowTaggingError, NoSuchChild
from evflow.client.history import RunHistory
from evflow.client.namespaces import BadNamespace, get_namespace, namespace
from evflow.client.objects import split
from evflow.client.run import run_of
from evflow.client.tagging import change
from evflow.core.events import RunStarted
from evflow.flow import current as flow_current
from evflow.log.protocol import LogClient, RunEntry, StoredEvent
from tests.core_run import CoreRun, node, pack, stored
from tests.core_world import RUN, CoreWorld
from tests.random_flows import grow

T = TypeVar("T")


class Shelf:
    """A log that holds one run, as far as it was put there.

    Attributes:
        events: What it holds.
        asked: How often it was read.
    """

    def __init__(self, events: list[StoredEvent]) -> None:
        self.events = events
        self.asked = 0

    def read(self, shard: str, run: object, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """See `LogClient.read`."""
        del shard, run
        self.asked += 1
        return self.events[after : after + limit]

    def tags(self, run: object) -> None:
        """Nobody changed any."""
        del run


class ShelfLog(SharedLog):
    """A connection to it."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(None, "/nowhere")
        self.shelf = shelf

    def ask(self, question: Callable[[LogClient], T], *, repeat: bool = True) -> T:
        """See `SharedLog.ask`."""
        del repeat
        return question(cast("LogClient", self.shelf))


def history(shelf: Shelf, **summary: Any) -> RunHistory:
    return RunHistory(ShelfLog(shelf), RunEntry(RUN, "shard", summary))


# ---------------------------------------------------------------- relations


@given(seed=st.integers(0, 1 << 32))
def test_parents_and_children_are_each_others_inverse(seed: int) -> None:
    world = CoreWorld(grow(Random(seed)), Random(seed))
    world.play()
    read = history(Shelf(world.stored))
    state = read.now()
    up = {(parent, task.id) for task in state.all_tasks() for parent in read.parents(task.id)}
    down = {(task.id, child) for task in state.all_tasks() for child in read.children(task.id)}
    assert up == down
    assert [task.id for task in state.all_tasks() if not read.parents(task.id)] == [1]


@given(seed=st.integers(0, 1 << 32))
def test_every_task_is_found_by_its_step_newest_first(seed: int) -> None:
    world = CoreWorld(grow(Random(seed)), Random(seed), lossy=True)
    world.play()
    run = run_of(history(Shelf(world.stored)))
    found = [int(task.id) for step in run for task in step]
    assert sorted(found) == list(range(1, len(world.run.state.tasks)))
    for step in run:
        numbers = [int(task.id) for task in step]
        assert numbers == sorted(numbers, reverse=True)
        assert step.task is not None
        assert step.task.id == str(numbers[0])


# ---------------------------------------------------------------- when the log is read


def test_a_sealed_run_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evflow.client.history.FRESH_S", 0)
    shelf = Shelf(_played())
    run = run_of(history(shelf))
    for _ in range(3):
        assert [task.status for step in run for task in step]
        assert run.ended_at is not None
    assert shelf.asked == 1


def test_a_live_run_is_read_from_where_it_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evflow.client.history.FRESH_S", 0)
    events = _played()
    shelf = Shelf(events[:3])
    read = history(shelf)
    seen = [read.now().seq]
    while seen[-1] < len(events):
        shelf.events = events[: seen[-1] + 5]
        seen.append(read.now().seq)
    assert seen == sorted(set(seen))
    assert read.now().sealed


def test_what_was_read_just_now_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evflow.client.history.FRESH_S", 3600)
    shelf = Shelf(_played()[:3])
    read = history(shelf)
    for _ in range(10):
        read.now()
    assert shelf.asked == 1


def test_an_interrupted_fold_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evflow.client.history.FRESH_S", 0)
    events = _played()
    read = history(Shelf(events))
    real = read.log.ask

    def interrupted(question: Callable[[LogClient], T], *, repeat: bool = True) -> T:
        real(question, repeat=repeat)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(read.log, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read.now()
    assert read.now().sealed
    assert read.now().seq == len(events)


def _played() -> list[StoredEvent]:
    world = CoreWorld(grow(Random(7)), Random(7))
    world.play()
    return world.stored


# ---------------------------------------------------------------- namespaces


@pytest.fixture
def unsaid() -> Iterator[None]:
    """Leave no namespace and no running step behind."""
    namespaces.forget()
    yield
    namespaces.forget()
    flow_current.leave()


@pytest.mark.usefixtures("unsaid")
def test_the_namespace_is_the_users_own_until_somebody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_USER", "ada")
    assert get_namespace() == "user:ada"
    monkeypatch.setenv("EVFLOW_NAMESPACE", "team")
    assert get_namespace() == "team"
    assert namespace("x") == get_namespace() == "x"
    assert namespace(None) is None
    assert get_namespace() is None
    assert namespaces.default_namespace() == get_namespace() == "team"


@pytest.mark.usefixtures("unsaid")
def test_in_a_step_the_namespace_is_the_runs() -> None:
    flow_current.enter(flow_name="F", run_id=1, step_name="s", task_id=2, namespace="team")
    assert get_namespace() == "team"
    namespace("mine")
    assert get_namespace() == "mine"


@pytest.mark.usefixtures("unsaid")
@pytest.mark.parametrize("given_", ["", 5, ["user:ada"]])
def test_what_is_no_namespace_is_refused(given_: Any) -> None:
    with pytest.raises(BadNamespace, match="a tag, like 'user:ada', or None"):
        namespace(given_)


def test_a_run_is_in_the_namespaces_of_all_its_tags_and_in_the_global_one() -> None:
    read = history(Shelf([]), tags=["nightly"], system_tags=["user:ada"])
    assert [ns for ns in ("nightly", "user:ada", "user:bob", None) if read.in_namespace(ns)] == ["nightly", "user:ada", None]


def test_a_run_whose_line_is_not_written_yet_has_the_tags_that_it_began_with() -> None:
    """The line follows the first event, and a body may ask for its own run before."""
    run = CoreRun(node("start", "end"), node("end"))
    first = run.records[0]
    assert isinstance(first.event, RunStarted)
    begun = replace(first.event, tags=("nightly",), system_tags=("user:ada",))
    read = history(Shelf(stored([pack(replace(first, event=begun))])))
    assert (set(read.user_tags), set(read.system_tags)) == ({"nightly"}, {"user:ada"})
    assert read.in_namespace("user:ada")


# ---------------------------------------------------------------- small things


@pytest.mark.parametrize("text", ["", "/", "F/", "/1", "F//1", "F/1/2", None, 3])
def test_a_pathspec_has_exactly_the_parts_that_its_class_wants(text: object) -> None:
    with pytest.raises(EvflowInvalidPathspec, match=r"Expects Run\('FlowName/RunID'\)"):
        split("Run", 2, text)


def test_a_missing_child_says_what_there_is_and_what_was_meant() -> None:
    error = NoSuchChild("Run('F/1')", "step", "trian", ["start", "train"])
    assert str(error).endswith("has no step 'trian'.\nIt has: start, train. Did you mean 'train'?")
    assert isinstance(error, KeyError)


def test_a_long_list_of_children_is_cut() -> None:
    assert str(NoSuchChild("Step", "task", "x", [str(number) for number in range(1000)])).endswith("19, ….")


def test_an_object_without_a_history_is_pickled_and_compared_by_its_name() -> None:
    run = run_of(history(Shelf([])))
    again = pickle.loads(pickle.dumps(run))
    assert again == run
    assert hash(again) == hash(run)
    assert again != run["_parameters"]


def test_tags_that_are_none_are_refused_before_anybody_is_asked() -> None:
    shelf = Shelf([])
    with pytest.raises(Exception, match="There is no tag"):
        change(history(shelf), remove=(), add=())
    assert not shelf.asked


@pytest.mark.parametrize("tag", ["", "x" * 501, "two\nlines", "\udcff" * 501])
def test_a_tag_that_no_run_can_have_is_refused_before_anybody_is_asked(tag: str) -> None:
    shelf = Shelf([])
    with pytest.raises(EvflowTaggingError) as refused:
        change(history(shelf), remove=(), add=("good", tag))
    str(refused.value).encode()  # can be shown, whatever it is about
    assert not shelf.asked
