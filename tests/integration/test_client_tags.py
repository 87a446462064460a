"""Tags: changed by whoever comes first, seen by everybody."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evflow import Flow, Run, namespace
from evflow.client import EvflowTaggingError
from evflow.client.connection import shared_log
from evflow.core import flow_events
from evflow.core.flow_events import RunTagged
from evflow.core.ids import FlowName
from evflow.log.client import RedisLogClient
from tests.client_world import ClientWorld, client_world


@pytest.fixture
def world(evflow_home: Path) -> Iterator[ClientWorld]:
    """Answer a log to write runs to, seen in the global namespace."""
    with client_world(evflow_home) as made:
        yield made


@pytest.fixture
def run(world: ClientWorld) -> Run:
    """Answer a finished run with the tag `first`."""
    return Run(world.trained(tags=("first",)).pathspec)


def test_a_run_shows_the_users_tags_and_evflows(run: Run) -> None:
    assert run.user_tags == {"first"}
    assert run.system_tags == {"user:ada", "runtime:dev", "python_version:3.11.7"}
    assert run.tags == run.user_tags | run.system_tags
    assert run["start"].tags == run["start"]["1"].tags == run["end"]["5"]["best"].tags == run.tags


def test_tags_are_added_removed_and_replaced(run: Run) -> None:
    run.add_tag("a")
    run.add_tags(["b", "c"])
    assert run.user_tags == {"first", "a", "b", "c"}
    run.remove_tag("a")
    run.remove_tags(["b", "never there"])
    assert run.user_tags == {"first", "c"}
    run.replace_tag("c", "d")
    run.replace_tags(["first", "d"], ["e", "f"])
    assert Run(run.pathspec).user_tags == {"e", "f"}
    assert next(iter(Flow("TrainFlow").runs("e", "f"))) == run


def test_each_change_stands_in_the_flows_log(run: Run) -> None:
    run.replace_tags(["first"], ["second"])
    stored = shared_log().ask(lambda log: log.flow_events(FlowName("TrainFlow")))
    record = flow_events.decode(*stored[-1])
    assert record.event == RunTagged(1, ("second",), ("second",), ("first",))
    assert record.principal.startswith("user:")


def test_what_changes_nothing_writes_nothing(run: Run) -> None:
    before = shared_log().ask(lambda log: log.flow_seq(FlowName("TrainFlow")))
    run.add_tag("first")
    run.remove_tag("never there")
    run.add_tag("user:ada")
    assert shared_log().ask(lambda log: log.flow_seq(FlowName("TrainFlow"))) == before
    assert run.user_tags == {"first"}


def noting(asked: list[str], name: str) -> Callable[..., object]:
    """The method of that name, and each call of it in a list."""
    plain: Callable[..., object] = getattr(RedisLogClient, name)

    def noted(*given: object) -> object:
        asked.append(name)
        return plain(*given)

    return noted


def test_going_through_a_flows_runs_by_tag_asks_for_the_tags_of_all_at_once(
    run: Run, world: ClientWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        world.trained(tags=("other",))
    run.replace_tag("first", "now")
    asked: list[str] = []
    for name in ("tags", "all_tags"):
        monkeypatch.setattr(RedisLogClient, name, noting(asked, name))
    namespace("now")
    assert list(Flow("TrainFlow")) == [run]
    asked.clear()
    namespace(None)
    assert list(Flow("TrainFlow").runs("now")) == [run]
    assert len(list(Flow("TrainFlow").runs("other"))) == 5
    assert asked == ["all_tags", "all_tags"]


REFUSED: list[tuple[Callable[[Run], None], str]] = [
    (lambda run: run.add_tag(""), "empty"),
    (lambda run: run.add_tag("x" * 501), "501 characters; 500"),
    (lambda run: run.add_tag(5), "not as 5"),  # type: ignore[arg-type]
    (lambda run: run.add_tags("ab"), "come in a list"),
    (lambda run: run.add_tags([5]), "a text, not 5"),  # type: ignore[list-item]
    (lambda run: run.add_tag("a\nb"), "cannot be shown"),
    (lambda run: run.add_tags([f"t{n}" for n in range(50)]), "51 tags; 50"),
    (lambda run: run.remove_tag("user:ada"), "'user:ada' cannot be removed"),
    (lambda run: run.replace_tags([], []), "no tag to add or to remove"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED)
def test_what_is_no_tag_is_refused_and_changes_nothing(run: Run, change: Callable[[Run], None], says: str) -> None:
    with pytest.raises(EvflowTaggingError, match=says):
        change(run)
    assert Run(run.pathspec).user_tags == {"first"}


def test_two_who_change_tags_at_once_lose_nothing(run: Run) -> None:
    from evflow.client.connection import SharedLog
    from evflow.client.objects import find_run
    from evflow.client.tagging import change

    history = find_run("TrainFlow", "1")
    home = history.log.where
    others = [SharedLog(None, home) for _ in range(4)]

    def add(log: SharedLog, writer: int) -> None:
        mine = log.history(history.entry)
        for number in range(5):
            change(mine, remove=(), add=(f"w{writer}-{number}",))

    threads = [threading.Thread(target=add, args=(log, writer)) for writer, log in enumerate(others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in others:
        log.close()
    assert run.user_tags == {"first", *(f"w{writer}-{number}" for writer in range(4) for number in range(5))}
