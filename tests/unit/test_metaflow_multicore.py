"""`parallel_map` of the compatibility module: forks of this process, each with an item."""

import os
from collections.abc import Iterator

import pytest

from evflow.compat.metaflow.multicore import MulticoreException, parallel_imap_unordered, parallel_map, profile


def test_results_come_in_the_order_of_the_items() -> None:
    power = 2
    assert parallel_map(lambda x: x**power, range(10), max_parallel=3) == [x**2 for x in range(10)]
    assert parallel_map(lambda x: x, []) == []


def test_each_item_has_a_process_of_its_own_and_a_result_may_be_large() -> None:
    found = parallel_map(lambda size: (os.getpid(), bytes(size)), [1, 1 << 20, 3], max_parallel=2)
    assert len({pid for pid, _ in found} | {os.getpid()}) == 4
    assert [len(data) for _, data in found] == [1, 1 << 20, 3]


def test_no_more_items_are_taken_than_run() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(6):
            taken.append(item)
            yield item

    results = parallel_imap_unordered(lambda x: x, items(), max_parallel=2)
    next(results)
    assert len(taken) == 3
    assert sorted(results) != list(range(6)), "one was taken before"
    assert taken == list(range(6))


@pytest.mark.parametrize(("body", "said"), [("raise ValueError('no')", "exit code 1"), ("os.kill(os.getpid(), 9)", "signal 9")])
def test_a_child_that_fails_is_told_and_none_is_left(body: str, said: str) -> None:
    def fail(item: int) -> None:
        exec(body)

    with pytest.raises(MulticoreException, match=said):
        parallel_map(fail, [1, 2])
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_profile_is_printed_or_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    with profile("a"):
        pass
    assert capsys.readouterr().out.startswith("PROFILE: a starting\nPROFILE: a completed in ")
    spent = {"a": 5}
    with profile("a", spent):
        pass
    assert spent["a"] >= 5
