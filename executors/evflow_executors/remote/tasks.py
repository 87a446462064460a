"""The tasks of an executor: each thing that may have to be repeated is one of its own, so that none waits for another.

Plain tasks, which `aclose` ends: they begin in a generator, and a task group there would be left in another task than it was entered.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio


class Tasks:
    """What an executor does at once.

    Args:
        on_error: Hears what a task raised: a mistake of ours, or a log that is gone for good.
    """

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._spawned: set[asyncio.Task[None]] = set()
        self._deeds: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin something that ends with the executor at the latest."""
        return self._begin(work, self._spawned)

    def do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin something that was asked for, which `aclose` waits for."""
        return self._begin(work, self._deeds)

    async def aclose(self, within_s: float) -> None:
        """Wait so long for what was asked for, and for what follows from it, then cancel all tasks, and wait as long for that."""
        deadline_s = anyio.current_time() + within_s
        while self._deeds and (left_s := deadline_s - anyio.current_time()) > 0:
            await asyncio.wait(self._deeds, timeout=left_s)
        tasks = [*self._spawned, *self._deeds]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)

    def _begin(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        among.add(task)

        def done(ended: asyncio.Task[None]) -> None:
            among.discard(ended)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                self._on_error(error)

        task.add_done_callback(done)
        return task
