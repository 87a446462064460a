"""The same thing done to many objects or files: side by side where a store answers from afar, one after another where it is a folder.

A store's methods block and may be called from many threads at once. So what is done to many is written for one, and threads wait in place of
the caller: no more of them than the store has connections, and no more work taken up than they have room for.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from evflow.store.protocol import Removable

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD: Final = 4
"""So many items for each thread are taken up before the first result is asked for: none waits for work."""


def each(store: Removable, work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[tuple[Item, Result]]:
    """Do it to each item; the items with their results, in the order of the items.

    What an item raises is raised in its place; of those behind it some may have been done, the others never are.
    """
    if store.at_once <= 1:
        for item in items:
            yield item, work(item)
        return
    under_way: deque[tuple[Item, Future[Result]]] = deque()
    threads = ThreadPoolExecutor(store.at_once, "evflow-together")
    try:
        for item in items:
            under_way.append((item, threads.submit(work, item)))
            if len(under_way) >= store.at_once * AHEAD:
                done, future = under_way.popleft()
                yield done, future.result()
        while under_way:
            done, future = under_way.popleft()
            yield done, future.result()
    finally:
        threads.shutdown(cancel_futures=True)
