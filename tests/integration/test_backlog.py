"""How much is not archived yet: what the gauge and `evflow top` say."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow.archives.archiving import Archivist
from evflow.archives.backlog import Backlog
from evflow.archives.keeping import Caretaker
from evflow.log.protocol import StoredEvent
from evflow.store import StoreFull
from tests.archive_world import FLOW, ArchiveWorld, archive_world
from tests.client_world import LINE


@pytest.fixture
def world(evflow_home: Path) -> Iterator[ArchiveWorld]:
    with archive_world(evflow_home) as made:
        yield made


def size(world: ArchiveWorld) -> int:
    return Backlog(world.log).bytes([FLOW])


def test_it_is_the_size_of_the_events_of_runs_that_are_over(world: ArchiveWorld) -> None:
    assert size(world) == 0
    runs = [world.sealed().id for _ in range(3)]
    world.runs.run(LINE, flow=FLOW).publish()  # goes on
    assert size(world) == sum(len(event.payload) for run in runs for event in world.events(run))


def test_what_is_archived_counts_no_more_though_its_log_is_kept(world: ArchiveWorld) -> None:
    world.sealed()
    caretaker = Caretaker(world.log, Archivist(world.log, world.store.url, "scheduler"), 10**12)
    caretaker.look(lambda _: True)
    assert (caretaker.counts.archived, caretaker.counts.dropped, caretaker.unarchived_bytes) == (1, 0, 0)


def test_it_grows_while_the_store_is_full_and_each_log_is_read_once(world: ArchiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreFull("/store", "No space left on device")

    reads: list[object] = []
    read = type(world.log).hot_read

    def noted(*given: object) -> list[StoredEvent]:
        reads.append(given)
        return read(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(type(world.log), "hot_read", noted)
    archivist = Archivist(world.log, world.store.url, "scheduler")
    monkeypatch.setattr(archivist, "archive", full)
    monkeypatch.setattr(archivist, "sealed", full)
    caretaker = Caretaker(world.log, archivist, 0)
    world.sealed()
    caretaker.look(lambda _: True)
    one = caretaker.unarchived_bytes
    world.sealed()
    caretaker.look(lambda _: True)
    assert 0 < one < caretaker.unarchived_bytes
    assert len(reads) == 2


def test_a_backlog_of_many_runs_is_measured_in_part(world: ArchiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evflow.archives.backlog.READ_AT_ONCE", 2)
    for _ in range(4):
        world.sealed()
    backlog = Backlog(world.log)
    guessed, exact = backlog.bytes([FLOW]), backlog.bytes([FLOW])
    assert guessed == pytest.approx(exact, rel=0.2)
    assert exact == size(world) or backlog.bytes([FLOW]) == exact


def test_what_cannot_be_archived_counts_until_it_is(world: ArchiveWorld) -> None:
    run = world.sealed()
    assert Backlog(world.log).bytes([], [run.id]) == size(world) > 0
