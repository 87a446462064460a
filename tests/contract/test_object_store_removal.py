"""Objects and named files that nobody needs any more, and the writers who count on them at that moment."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from evflow.store import FileStore, NameMissing, ObjectMissing, Store
from tests.aws import Aws
from tests.contract.store_worlds import FileWorld, World, world_of
from tests.effort import scaled

HOUR_US = 3_600_000_000

in_a_folder = pytest.mark.parametrize("world", ["file"], indirect=True)
"""Of that kind of store alone: the others do it in another way."""

Age = Callable[[bytes], None]


@pytest.fixture(params=["file", "s3", "s3-cached"])
def world(request: pytest.FixtureRequest, tmp_path: Path, s3_server: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Answer a store, with a way around it."""
    with world_of(request.param, tmp_path, s3_server, monkeypatch) as found:
        yield found


@pytest.fixture
def store(world: World) -> Store:
    return world.store


@pytest.fixture
def age(world: World) -> Age:
    """Lets an object be written some time ago."""
    return lambda digest: world.age(digest, HOUR_US)


def test_an_old_object_is_removed_and_its_bytes_are_counted(store: Store, age: Age) -> None:
    digest = store.put([b"content"])
    age(digest)
    assert store.remove(digest, store.now_us() - HOUR_US // 2) == 7
    assert not store.exists(digest)
    with pytest.raises(ObjectMissing):
        store.get(digest)


def test_a_young_object_stays(store: Store) -> None:
    digest = store.put([b"content"])
    assert store.remove(digest, store.now_us() - HOUR_US) == 0
    assert bytes(store.get(digest)) == b"content"


def test_an_object_that_is_not_there_is_removed_without_a_word(store: Store) -> None:
    assert store.remove(bytes(32), store.now_us()) == 0


def test_writing_again_what_is_there_makes_it_young(store: Store, age: Age) -> None:
    digest = store.put([b"content"])
    age(digest)
    store.put([b"content"])
    assert store.remove(digest, store.now_us() - HOUR_US // 2) == 0
    assert store.exists(digest)


def test_confirming_an_object_makes_it_young_and_says_whether_it_is_there(store: Store, age: Age) -> None:
    digest = store.put([b"content"])
    age(digest)
    assert store.confirm(digest)
    assert store.remove(digest, store.now_us() - HOUR_US // 2) == 0
    assert not store.confirm(bytes(32))


def test_each_object_is_listed_with_its_time_and_size(store: Store, age: Age) -> None:
    old, new = store.put([b"old one"]), store.put([b"new"])
    age(old)
    listed = {digest: (at_us, size) for digest, at_us, size in store.written()}
    assert {digest: size for digest, (_, size) in listed.items()} == {old: 7, new: 3}
    assert HOUR_US - 60_000_000 < listed[new][0] - listed[old][0] < HOUR_US + 60_000_000


@in_a_folder
def test_what_a_remover_that_died_left_in_the_trash_can_be_read_and_is_put_back(store: Store) -> None:
    assert isinstance(store, FileStore)
    digest = store.put([b"content"])
    trash = store.root / "trash"
    trash.mkdir()
    Path(store.where(digest)).rename(trash / digest.hex())
    assert bytes(store.get(digest)) == b"content"
    store.settle_trash()
    assert store.exists(digest)
    assert list(trash.iterdir()) == []


@in_a_folder
def test_what_is_written_again_meanwhile_is_not_taken_for_the_trash(store: Store) -> None:
    assert isinstance(store, FileStore)
    digest = store.put([b"content"])
    trash = store.root / "trash"
    trash.mkdir()
    Path(store.where(digest)).rename(trash / digest.hex())
    store.put([b"content"])
    store.settle_trash()
    assert bytes(store.get(digest)) == b"content"
    assert list(trash.iterdir()) == []


@in_a_folder
def test_an_object_that_was_touched_between_the_look_and_the_renaming_is_put_back(
    store: Store, age: Age, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = store.put([b"content"])
    age(digest)
    rename = Path.rename

    def touched_before(path: Path, target: Path) -> Path:
        assert store.put([b"content"]) == digest
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", touched_before)
    assert store.remove(digest, store.now_us() - HOUR_US // 2) == 0
    assert bytes(store.get(digest)) == b"content"


@in_a_folder
def test_an_object_that_goes_between_a_writers_look_and_its_touch_is_written_again(
    store: Store, age: Age, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = store.put([b"content"])
    age(digest)
    before_us = store.now_us() - HOUR_US // 2
    utime, freed = os.utime, []

    def removed_before(path: Path) -> None:
        freed.append(store.remove(digest, before_us))
        utime(path)

    monkeypatch.setattr(os, "utime", removed_before)
    assert store.put([b"content"]) == digest
    assert freed == [7]
    assert bytes(store.get(digest)) == b"content"


@in_a_folder
def test_an_object_that_goes_while_a_writer_touches_it_is_written_again(store: Store, age: Age, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel looks a path up, then changes the times of what it found: in between the file may get another name."""
    digest = store.put([b"content"])
    age(digest)
    before_us = store.now_us() - HOUR_US // 2

    def removed_instead(path: Path) -> None:
        assert store.remove(digest, before_us) == 7

    monkeypatch.setattr(os, "utime", removed_instead)
    assert store.put([b"content"]) == digest
    assert bytes(store.get(digest)) == b"content"


@in_a_folder
def test_an_object_that_may_not_be_touched_is_written_again(store: Store, age: Age, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.put([b"content"])
    age(digest)

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    store.put([b"content"])
    assert store.remove(digest, store.now_us() - HOUR_US // 2) == 0


def test_no_object_vanishes_under_a_writer_who_races_a_remover(world: World, store: Store, age: Age) -> None:
    """Whoever was told that an object is stored finds it, however often it is removed at the same moment."""
    contents = [b"content %d" % number for number in range(8)]
    done = threading.Event()
    lost: list[bytes] = []

    def remover() -> None:
        while not done.is_set():
            for digest in list(store.digests()):
                store.remove(digest, store.now_us() - HOUR_US // 2)

    def writer() -> None:
        for turn in range(scaled(1_000 if isinstance(world, FileWorld) else 200)):
            content = contents[turn % len(contents)]
            digest = store.put([content])
            try:
                assert bytes(store.get(digest)) == content
            except ObjectMissing:
                lost.append(digest)
            with suppress(FileNotFoundError):  # a remover has it in its hand
                age(digest)  # from now on nobody counts on it

    threads = [threading.Thread(target=remover), threading.Thread(target=remover)]
    for thread in threads:
        thread.start()
    try:
        writer()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert lost == []


# --- named files -----------------------------------------------------------------------------------------


@pytest.fixture
def named(store: Store) -> Store:
    for name in ("archives/a/F/1", "archives/a/F/2", "archives/b/F/1", "archives/top"):
        store.write_named(name, [b"12345"])
    return store


def test_folders_are_listed_without_what_is_below_them(named: Store) -> None:
    assert named.list_folders() == ["archives"]
    assert named.list_folders("archives") == ["a", "b"]
    assert named.list_folders("none") == []


def test_a_named_file_is_removed_once(named: Store) -> None:
    assert [named.remove_named("archives/a/F/1"), named.remove_named("archives/a/F/1")] == [5, 0]
    with pytest.raises(NameMissing):
        named.read_named("archives/a/F/1")
    assert named.list_named("archives/a") == ["archives/a/F/2"]


def test_a_folder_whose_last_file_goes_takes_new_ones(named: Store) -> None:
    assert named.remove_named("archives/b/F/1") == 5
    assert named.write_named("archives/b/F/1", [b"1"], create_only=True) == 1


def test_when_a_named_file_was_written_is_told(named: Store) -> None:
    written_us = named.written_named("archives/top")
    assert written_us is not None
    assert abs(written_us - named.now_us()) < 60_000_000
    assert named.written_named("none") is None
    assert named.where_named("archives/top").endswith("archives/top")
