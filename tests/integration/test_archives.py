"""A sealed log moves to the store and is read there; nothing is removed that was not read back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow import Run
from evflow.archives.archiving import Archivist, NotArchivable
from evflow.archives.reading import ArchiveDamaged, ArchiveMissing, highest_number, name_of
from evflow.client.connection import disconnect
from evflow.core import flow_events
from evflow.core.codec import encode_report
from evflow.core.events import RunCancelRequested
from evflow.core.flow_events import RunArchived
from evflow.core.ids import RunId, RunNumber
from evflow.deployments.beginning import take_number
from evflow.log.archived import SEGMENT_EVENTS
from evflow.log.keys import own_shard, run_keys
from evflow.log.protocol import FlowEvent, Head
from evflow.replay.load import load
from evflow.replay.verify import verify
from evflow.store import Store, StoreUnusable
from tests.archive_world import FLOW, ArchiveWorld, archive_world, keys_of
from tests.client_world import LINE


@pytest.fixture
def world(evflow_home: Path) -> Iterator[ArchiveWorld]:
    with archive_world(evflow_home) as made:
        yield made


# --- archiving --------------------------------------------------------------------------------------------


def test_an_archive_is_the_hot_log(world: ArchiveWorld) -> None:
    """I12."""
    run = world.sealed().id
    hot, head = world.events(run), world.log.head(own_shard(run), run)
    archived = world.dropped(run)
    assert not keys_of(run) & world.keys()
    assert world.events(run) == hot
    assert world.log.head(own_shard(run), run) == head == archived.head
    assert verify(load(world.log, run).events, head).ok


def test_archiving_is_an_event_that_says_where(world: ArchiveWorld) -> None:
    run = world.sealed().id
    _, archived = world.archive(run)
    *_, last = [flow_events.decode(*event) for event in world.log.flow_events(FLOW)]
    assert last.event == archived.of_run(run.number)
    assert last.principal == "user:ada"
    assert archived.name == name_of(world.log.installation(), FLOW, run.number)
    assert archived.size_bytes == world.path(archived).stat().st_size


def test_archiving_twice_is_archiving_once(world: ArchiveWorld) -> None:
    run = world.sealed().id
    assert world.archive(run) == world.archive(run)
    events = [flow_events.decode(*event).event for event in world.log.flow_events(FLOW)]
    assert sum(isinstance(event, RunArchived) for event in events) == 1


def test_an_archive_whose_note_was_never_written_is_taken_as_it_is(world: ArchiveWorld) -> None:
    """A process that died between the two leaves the archive; it cannot be written again."""
    run = world.sealed().id
    _, archived = world.archive(run)
    written = world.path(archived).stat().st_mtime_ns
    world.call("HDEL", f"{{evflow:flow:{FLOW}}}:archives", run.number)
    assert world.archive(run)[1] == archived
    assert world.path(archived).stat().st_mtime_ns == written


def test_a_run_that_goes_on_is_not_archived(world: ArchiveWorld) -> None:
    run = world.runs.run(LINE, flow=FLOW).publish().id
    with pytest.raises(NotArchivable, match="not over") as refused:
        world.archivist.sealed(run)
    assert refused.value.why == "not-over"


def test_a_damaged_log_stays_where_it_is(world: ArchiveWorld) -> None:
    run = world.sealed().id
    stream = run_keys(own_shard(run), run).stream
    world.call("XDEL", stream, "3-0")
    with pytest.raises(NotArchivable, match="damaged") as refused:
        world.archive(run)
    assert refused.value.why == "damaged"
    assert keys_of(run) <= world.keys()
    assert world.store.list_named("archives") == []


def test_a_log_whose_store_is_not_here_stays_where_it_is(world: ArchiveWorld, tmp_path: Path) -> None:
    run = world.runs.run(LINE, flow=FLOW, store=f"file://{tmp_path}/other", host="elsewhere")
    run.succeed(1, "end").succeed(2).seal()
    with pytest.raises(NotArchivable, match="elsewhere") as refused:
        world.archive(run.id)
    assert refused.value.why == "elsewhere"
    assert not (tmp_path / "other").exists()


def test_two_logs_of_one_number_have_two_archives(world: ArchiveWorld) -> None:
    """A fail-over that loses a suffix can give a number twice; history is not written over."""
    first = world.sealed().id
    before = world.dropped(first)
    world.call("DEL", f"{{evflow:flow:{FLOW}}}:meta", f"{{evflow:flow:{FLOW}}}:log", f"{{evflow:flow:{FLOW}}}:archives")
    again = world.sealed({"other": "values"}).id
    assert again == first
    hot = world.events(again)
    archived = world.dropped(again)
    assert archived.name == f"{before.name}.{archived.chain[:8].hex()}"
    assert world.events(again) == hot
    assert world.path(before).exists()


# --- removing ---------------------------------------------------------------------------------------------


def test_an_archive_that_was_changed_keeps_its_log_at_the_server(world: ArchiveWorld) -> None:
    run = world.sealed().id
    sealed, archived = world.archive(run)
    path = world.path(archived)
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArchiveDamaged, match=archived.name):
        world.archivist.drop(sealed, archived)
    assert keys_of(run) <= world.keys()


def test_a_log_that_is_not_the_archived_one_is_not_removed(world: ArchiveWorld) -> None:
    run = world.sealed().id
    assert not world.log.drop_run(own_shard(run), run, Head(3, b"d" * 32, "sealed"))
    assert len(world.events(run)) > 3


def test_the_end_of_a_removed_log_is_remembered_for_a_while(world: ArchiveWorld) -> None:
    run = world.sealed().id
    sealed, archived = world.archive(run)
    assert world.archivist.drop(sealed, archived, linger_s=60.0)
    meta = run_keys(own_shard(run), run).meta
    assert 0 < int(str(world.call("PTTL", meta))) <= 60_000
    late = encode_report(RunCancelRequested("late"), principal="test")
    assert not world.log.report(own_shard(run), run, late)
    assert world.archivist.sealed(run) is None
    assert world.archivist.drop(sealed, archived, linger_s=60.0)


def test_nothing_of_a_removed_run_stays_but_its_line_and_the_note(world: ArchiveWorld) -> None:
    first = world.sealed().id
    world.dropped(first)
    keys = world.keys()
    second = world.sealed().id
    assert keys_of(second) <= world.keys()
    world.dropped(second)
    assert world.keys() == keys


# --- reading ----------------------------------------------------------------------------------------------


def test_the_client_reads_an_archived_run_as_any_other(world: ArchiveWorld) -> None:
    written = world.sealed({"model": [1, 2, 3]})
    hot = Run(written.pathspec)
    assert hot.data is not None
    hot.add_tag("kept")
    world.dropped(written.id)
    disconnect()
    run = Run(written.pathspec)
    assert run.data is not None
    assert (run.successful, run.status, run.data.model) == (True, "succeeded", [1, 2, 3])
    assert run.user_tags == {"kept"}


def test_an_archived_run_is_followed_without_waiting(world: ArchiveWorld) -> None:
    run = world.sealed().id
    events = world.events(run)
    world.dropped(run)
    assert world.log.follow(own_shard(run), run, 0, 3_600.0) == events
    assert world.log.follow(own_shard(run), run, 2, 0.01) == events[2:]


def test_what_was_dropped_of_a_run_is_in_its_archive(world: ArchiveWorld) -> None:
    run = world.sealed().id
    world.log.report(own_shard(run), run, b"late")
    assert world.log.dropped(own_shard(run), run) == {"late": 1}
    world.dropped(run)
    assert world.log.dropped(own_shard(run), run) == {"late": 1}


def test_a_missing_archive_is_named_with_its_digest(world: ArchiveWorld) -> None:
    run = world.sealed().id
    archived = world.dropped(run)
    world.path(archived).unlink()
    with pytest.raises(ArchiveMissing) as missing:
        load(world.log, run)
    assert str(world.path(archived)) in missing.value.message
    assert archived.digest.hex() in missing.value.message


def test_a_damaged_archive_is_named_with_its_digest(world: ArchiveWorld) -> None:
    run = world.sealed().id
    archived = world.dropped(run)
    path = world.path(archived)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ArchiveDamaged) as damaged:
        load(world.log, run)
    assert str(path) in damaged.value.message
    assert archived.digest.hex() in damaged.value.message


# --- numbers ----------------------------------------------------------------------------------------------


def test_numbers_go_on_behind_the_archives_after_the_server_lost_everything(world: ArchiveWorld) -> None:
    for _ in range(3):
        world.dropped(world.sealed().id)
    world.call("FLUSHALL")
    assert highest_number(world.store, FLOW) == 3
    assert take_number(world.log, FLOW, flow_events.RunRequested(0, "ada")) == RunId(FLOW, RunNumber(4))
    assert take_number(world.log, FLOW, flow_events.RunRequested(0, "ada")) == RunId(FLOW, RunNumber(5))


# --- a flow's own log -------------------------------------------------------------------------------------


def fill(world: ArchiveWorld, count: int) -> list[bytes]:
    """Append events to the flow's log; answer all of it."""
    seq = world.log.flow_seq(FLOW)
    for number in range(count):
        event = flow_events.RunTagged(1, (f"tag {seq + number}",))
        world.log.append_flow(FLOW, type(seq)(seq + number), flow_events.encode(event, at_us=1, principal="test"))
    return [event.payload for event in everything(world)]


def everything(world: ArchiveWorld) -> list[FlowEvent]:
    """Answer the flow's whole log."""
    found: list[FlowEvent] = []
    while chunk := world.log.flow_events(FLOW, len(found), 700):
        found += chunk
    return found


def test_the_old_part_of_a_flows_log_moves_to_the_store_and_is_read_there(world: ArchiveWorld) -> None:
    before = fill(world, 3 * SEGMENT_EVENTS + 10)
    assert world.archivist.trim(FLOW) == 2
    assert int(str(world.call("XLEN", f"{{evflow:flow:{FLOW}}}:log"))) == SEGMENT_EVENTS + 10
    found = everything(world)
    assert [event.payload for event in found] == before
    assert [event.seq for event in found] == list(range(1, len(before) + 1))
    assert world.log.flow_events(FLOW, 999, 3)[0].seq == 1_000
    assert world.archivist.trim(FLOW) == 0


def test_a_segment_that_was_written_and_not_noted_is_taken_as_it_is(world: ArchiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fill(world, 2 * SEGMENT_EVENTS)

    class Died(Exception):
        pass

    def dies(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(world.log, "trim_flow", dies)
        with pytest.raises(Died):
            world.archivist.trim(FLOW)
    assert world.archivist.trim(FLOW) == 1
    assert [event.payload for event in everything(world)] == before


def test_a_store_that_cannot_be_written_changes_nothing(world: ArchiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.sealed().id

    def refuses(*_: object, **__: object) -> int:
        raise StoreUnusable("/there", "read-only file system")

    def stores(url: str) -> Store:
        monkeypatch.setattr(world.store, "write_named", refuses)
        return world.store

    with pytest.raises(StoreUnusable):
        Archivist(world.log, "", "test", stores).archive(world.archivist.sealed(run))  # type: ignore[arg-type]
    assert world.log.archived(run) is None
    assert keys_of(run) <= world.keys()
