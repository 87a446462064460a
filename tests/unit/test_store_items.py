"""The items of a foreach: written as they come, read one at a time."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from evflow.store import FileStore, ObjectDamaged, ObjectMissing
from evflow.store.artifacts import ArtifactNotSerializable, load_item, pack_items
from evflow.store.items import NoSuchItem


class ReadingStore(FileStore):
    """Says how many bytes were read."""

    read = 0

    def get(self, digest: bytes, offset: int = 0, length: int | None = None) -> memoryview:
        data = super().get(digest, offset, length)
        self.read += len(data)
        return data


@pytest.fixture
def store(tmp_path: Path) -> ReadingStore:
    return ReadingStore(tmp_path)


@given(items=st.lists(st.integers() | st.text() | st.tuples(st.integers()) | st.lists(st.booleans())))
def test_each_item_comes_back(tmp_path_factory: pytest.TempPathFactory, items: list[Any]) -> None:
    store = FileStore(tmp_path_factory.getbasetemp() / "items")
    digest, count = pack_items(store, items)
    assert count == len(items)
    assert [load_item(store, digest, index) for index in range(count)] == items


@pytest.mark.parametrize("items", ["abc", range(5), {"k": 1}, {7}, iter([1, 2]), np.arange(4)], ids=lambda items: type(items).__name__)
def test_whatever_can_be_iterated_can_be_packed(store: ReadingStore, items: Any) -> None:
    expected = [*items] if not isinstance(items, Iterator) else [1, 2]
    digest, count = pack_items(store, items)
    assert [load_item(store, digest, index) for index in range(count)] == expected


def test_large_items_come_back_writable_and_aligned(store: ReadingStore) -> None:
    arrays = [np.random.default_rng(index).random(200_000) if index % 2 else np.zeros(200_000) for index in range(4)]
    digest, _ = pack_items(store, arrays)
    for index, array in enumerate(arrays):
        item = load_item(store, digest, index)
        np.testing.assert_array_equal(item, array)
        item[0] = 5
        assert item.ctypes.data % 64 == 0


def test_reading_an_item_reads_that_item_only(store: ReadingStore) -> None:
    digest, _ = pack_items(store, (os.urandom(5_000) for _ in range(2_000)))
    load_item(store, digest, 1234)
    assert store.read < 5_000 + 200


def test_items_are_written_as_they_come(store: ReadingStore) -> None:
    alive = 0
    most = 0

    class Item:
        def __init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __reduce__(self) -> tuple[Any, ...]:
            return bytes, (100_000,)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    assert pack_items(store, (Item() for _ in range(100)))[1] == 100
    assert most <= 2


@pytest.mark.parametrize("index", [-1, 3, 10**9])
def test_an_index_that_is_not_there_is_said_so(store: ReadingStore, index: int) -> None:
    digest, _ = pack_items(store, [1, 2, 3])
    with pytest.raises(NoSuchItem, match="are 3"):
        load_item(store, digest, index)


def test_an_item_that_cannot_be_stored_is_named_by_its_index(store: ReadingStore) -> None:
    with pytest.raises(ArtifactNotSerializable, match=r"xs\[2\]"):
        pack_items(store, [1, 2, threading.Lock()], name="xs")
    assert list(store.digests()) == []


def test_missing_items_are_said_so(store: ReadingStore) -> None:
    with pytest.raises(ObjectMissing):
        load_item(store, bytes(32), 0)


def test_another_object_is_no_pack_of_items(store: ReadingStore) -> None:
    for content in (b"", b"x" * 100):
        with pytest.raises(ObjectDamaged):
            load_item(store, store.put([content]), 0)


def test_a_changed_byte_anywhere_is_found_by_the_item_that_it_is_in(store: ReadingStore) -> None:
    items = [{"a": 1}, (2, "b"), b"3" * 50]
    digest, _ = pack_items(store, items)
    path = Path(store.where(digest))
    path.chmod(0o600)
    whole = path.read_bytes()
    found = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        for index, item in enumerate(items):
            try:
                assert load_item(store, digest, index) == item
            except (ObjectDamaged, NoSuchItem):
                found += 1
    assert found > 300
