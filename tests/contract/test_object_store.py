"""What every object store does, whatever it is made of."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from evflow.store import NameMissing, NameTaken, ObjectDamaged, ObjectMissing, Store, UnknownStore, open_store
from evflow.store.memory import MemoryStore
from evflow.store.protocol import BadName, ObjectStore
from tests.aws import Aws
from tests.contract.store_worlds import World, world_of

Damage = Callable[[bytes, int], None]
LARGE = 3 << 20
IN_PARTS = 20 << 20
"""In S3, more than two parts."""


@pytest.fixture(params=["file", "s3"])
def world(request: pytest.FixtureRequest, tmp_path: Path, s3_server: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Answer a store, with a way around it."""
    with world_of(request.param, tmp_path, s3_server, monkeypatch) as found:
        yield found


@pytest.fixture
def store(world: World) -> Store:
    return world.store


@pytest.fixture(params=["file", "memory", "s3", "s3-cached"])
def objects(request: pytest.FixtureRequest, tmp_path: Path, s3_server: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Objects alone, which a store for tests has as well."""
    if request.param == "memory":
        yield MemoryStore()
        return
    with world_of(request.param, tmp_path, s3_server, monkeypatch) as found:
        yield found.store


@pytest.fixture
def damage(world: World) -> Damage:
    """Flips a byte of a stored object."""

    def flip(digest: bytes, at: int) -> None:
        content = bytearray(world.raw(digest))
        content[at] ^= 1
        world.overwrite(digest, bytes(content))

    return flip


def test_an_object_is_named_by_the_sha256_of_its_bytes(objects: ObjectStore) -> None:
    assert objects.put([b"one", b"", b"two"]) == hashlib.sha256(b"onetwo").digest()


@given(chunks=st.lists(st.binary(max_size=200)), repeat=st.sampled_from([1, 1, 1, 40_000]))
def test_what_is_put_is_what_one_gets(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], repeat: int) -> None:
    store = open_store(str(tmp_path_factory.getbasetemp() / "puts"))
    digest = store.put([chunk * repeat for chunk in chunks])
    assert bytes(store.get(digest)) == b"".join(chunk * repeat for chunk in chunks)


@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, LARGE, 8 << 20, IN_PARTS + 1])
def test_every_size_comes_back_whole_and_is_counted_right(objects: ObjectStore, size: int) -> None:
    content = bytes(index % 251 for index in range(1009)) * (size // 1009 + 1)
    digest = objects.put([content[:size]])
    assert (bytes(objects.get(digest)), objects.size(digest)) == (content[:size], size)


@pytest.mark.parametrize(("size", "of_each"), [(10_000, 1_000), (LARGE, 1_000), (3 * IN_PARTS, 1_000), (3 * IN_PARTS, 1_000_000)])
def test_a_chunks_memory_may_be_used_again_for_the_next(objects: ObjectStore, size: int, of_each: int) -> None:
    def chunks() -> Iterator[bytearray]:
        memory = bytearray(of_each)
        for index in range(size // of_each):
            memory[:] = index.to_bytes(4, "big") * (of_each // 4)
            yield memory

    digest = objects.put(chunks())
    content = b"".join(index.to_bytes(4, "big") * (of_each // 4) for index in range(size // of_each))
    assert digest == hashlib.sha256(content).digest()
    assert bytes(objects.get(digest)) == content


@pytest.mark.parametrize(
    ("size", "offset", "length"), [(10, 0, 0), (10, 3, 4), (LARGE, 5, 100), (LARGE, 70_001, 2_000_000), (LARGE, LARGE, 0)]
)
def test_a_part_of_an_object_is_read_alone(objects: ObjectStore, size: int, offset: int, length: int) -> None:
    content = hashlib.sha256().digest() * (size // 32 + 1)
    digest = objects.put([content[:size]])
    assert bytes(objects.get(digest, offset, length)) == content[:size][offset : offset + length]


@pytest.mark.parametrize("size", [100, LARGE])
def test_what_one_gets_can_be_changed_and_the_store_does_not_change(objects: ObjectStore, size: int) -> None:
    digest = objects.put([bytes(size)])
    memory = objects.get(digest)
    memory[size // 2] = 7
    assert bytes(objects.get(digest)) == bytes(size)


def test_putting_the_same_again_adds_nothing(objects: ObjectStore) -> None:
    digests = {objects.put([b"same"]), objects.put([b"sa", b"me"]), objects.put(iter([b"same"]))}
    assert (len(digests), list(objects.digests())) == (1, list(digests))


def test_a_missing_object_is_named_with_its_place(objects: ObjectStore) -> None:
    digest = hashlib.sha256(b"never").digest()
    with pytest.raises(ObjectMissing) as raised:
        objects.get(digest)
    assert digest.hex() in raised.value.message
    assert objects.where(digest) in raised.value.message
    assert (objects.size(digest), objects.exists(digest)) == (None, False)


@pytest.mark.parametrize("size", [1, 5000, LARGE, IN_PARTS])
def test_a_flipped_bit_is_found_before_a_byte_is_handed_out(store: Store, damage: Damage, size: int) -> None:
    digest = store.put([b"x" * size])
    damage(digest, size // 2)
    with pytest.raises(ObjectDamaged) as raised:
        store.get(digest)
    assert store.where(digest) in raised.value.message
    assert digest.hex() in raised.value.message
    assert raised.value.found is not None
    assert raised.value.found.hex() in raised.value.message


@pytest.mark.parametrize("size", [100, LARGE])
def test_a_part_past_the_end_of_a_cut_object_is_damage(world: World, store: Store, size: int) -> None:
    digest = store.put([bytes(size)])
    world.overwrite(digest, bytes(size - 10))
    with pytest.raises(ObjectDamaged, match=f"it has {size - 10} bytes"):
        store.get(digest, size - 20, 20)


def test_putting_what_was_cut_short_mends_it(world: World, store: Store) -> None:
    digest = store.put([b"whole"])
    world.overwrite(digest, b"who")
    assert store.put([b"whole"]) == digest
    assert bytes(store.get(digest)) == b"whole"


def test_nothing_of_a_put_that_fails_stays(objects: ObjectStore) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(IN_PARTS)
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError):
        objects.put(chunks())
    assert list(objects.digests()) == []


def test_a_store_is_opened_again_by_its_url(store: Store) -> None:
    digest = store.put([b"kept"])
    assert bytes(open_store(store.url).get(digest)) == b"kept"


def test_a_store_that_was_never_written_has_nothing(store: Store) -> None:
    assert (list(store.digests()), store.list_named()) == ([], [])


@pytest.mark.parametrize(
    "url", ["", "s3://", "s3:///x", "s3://bucket/../x", "s3://a b/x", "gs://bucket/x", "file://relative", "http://x/y"]
)
def test_a_url_of_another_kind_is_refused_with_what_to_give(url: str) -> None:
    with pytest.raises(UnknownStore, match=r"file:///path.*s3://bucket"):
        open_store(url)


def test_a_named_file_comes_back_whole_and_in_parts(store: Store) -> None:
    assert store.write_named("logs/F/3/17.0", [b"line 1\n", b"line 2\n"]) == 14
    assert store.read_named("logs/F/3/17.0") == b"line 1\nline 2\n"
    assert store.read_named("logs/F/3/17.0", 7, 4) == b"line"
    assert store.read_named("logs/F/3/17.0", 7, 100) == b"line 2\n"
    assert store.size_named("logs/F/3/17.0") == 14


def test_a_named_file_is_replaced_unless_it_is_to_be_created(store: Store) -> None:
    store.write_named("a", [b"1"])
    store.write_named("a", [b"2"])
    with pytest.raises(NameTaken, match="'a'"):
        store.write_named("a", [b"3"], create_only=True)
    assert store.read_named("a") == b"2"


def test_a_large_named_file_comes_back_whole(store: Store) -> None:
    content = bytes(range(256)) * (IN_PARTS // 256)
    assert store.write_named("large", [content], create_only=True) == IN_PARTS
    with pytest.raises(NameTaken, match="'large'"):
        store.write_named("large", [content[1:]], create_only=True)
    assert store.read_named("large") == content


def test_named_files_are_listed_by_folder(store: Store) -> None:
    for name in ("logs/b/2", "logs/a/1", "archive/x"):
        store.write_named(name, [b""])
    assert store.list_named() == ["archive/x", "logs/a/1", "logs/b/2"]
    assert store.list_named("logs") == ["logs/a/1", "logs/b/2"]
    assert store.list_named("none") == []


def test_a_missing_name_is_said_so(store: Store) -> None:
    assert store.size_named("none") is None
    with pytest.raises(NameMissing, match="'none'"):
        store.read_named("none")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".hidden", "a\\b", "a\0b", "a b", "ä"])
def test_a_name_that_could_lead_elsewhere_is_refused(store: Store, name: str) -> None:
    with pytest.raises(BadName):
        store.write_named(name, [b""])
