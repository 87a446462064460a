"""Many things done side by side: as many at once as the store has room for, in the order of the items."""

import threading
from pathlib import Path

import pytest

from evflow.store import FileStore
from evflow.store.together import AHEAD, each


class FarStore(FileStore):
    """A store of which several things may be asked at once."""

    @property
    def at_once(self) -> int:
        return 4


@pytest.fixture
def store(tmp_path: Path) -> FarStore:
    return FarStore(tmp_path)


def test_as_many_are_under_way_at_once_as_the_store_has_room_for_and_no_more(store: FarStore) -> None:
    together, lock = threading.Barrier(4, timeout=60), threading.Lock()
    now, most = 0, 0

    def work(item: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait()  # none gets through before four are here
        with lock:
            now -= 1
        return -item

    assert list(each(store, work, range(12))) == [(item, -item) for item in range(12)]
    assert most == 4


def test_work_is_taken_up_as_results_are_asked_for(store: FarStore) -> None:
    items = iter(range(1_000))
    results = each(store, lambda item: item, items)
    assert next(results) == (0, 0)
    assert next(items) == 4 * AHEAD
    results.close()


@pytest.mark.parametrize("far", [True, False])
def test_what_an_item_raises_is_raised_and_what_was_not_begun_never_is(store: FarStore, tmp_path: Path, *, far: bool) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        done.append(item)
        if item == 2:
            raise ValueError(item)

    results = each(store if far else FileStore(tmp_path), work, range(1_000))
    assert [next(results)[0], next(results)[0]] == [0, 1]
    with pytest.raises(ValueError, match="2"):
        next(results)
    assert len(done) <= 4 * AHEAD + 3


def test_a_folder_s_work_is_done_by_whoever_asks_for_it(tmp_path: Path) -> None:
    here = threading.get_ident()
    assert {thread for _, thread in each(FileStore(tmp_path), lambda _: threading.get_ident(), range(10))} == {here}
