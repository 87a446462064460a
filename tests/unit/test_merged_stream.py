"""The stream in which what several fork servers say comes together."""

import anyio
import pytest

from evflow.core.ids import AttemptId
from evflow_executors.merged import MergedStream
from evflow_executors.protocol import OutputLine

pytestmark = pytest.mark.virtual_time


def line(number: int) -> OutputLine:
    return OutputLine(AttemptId.parse("Flow/1/1.0"), "stdout", number, str(number))


async def test_sources_wait_for_the_taker_and_lose_nothing() -> None:
    stream = MergedStream(2)
    put: list[int] = []
    got: list[int] = []
    taken = stream.take()

    async def source(first: int) -> None:
        for number in range(first, first + 5):
            await stream.put(line(number))
            put.append(number)

    async with anyio.create_task_group() as group:
        for first in (0, 100):
            group.start_soon(source, first)
        await anyio.wait_all_tasks_blocked()
        assert len(put) == 2
        while len(got) < 10:
            seen = await anext(taken)
            assert isinstance(seen, OutputLine)
            got.append(seen.at_us)
    assert (sorted(got), [n for n in got if n < 100]) == ([0, 1, 2, 3, 4, 100, 101, 102, 103, 104], [0, 1, 2, 3, 4])
    await taken.aclose()


async def test_a_takers_deadline_takes_nothing_away() -> None:
    stream = MergedStream(2)
    with anyio.move_on_after(1):
        await anext(stream.take())
    await stream.put(line(1))
    taken = stream.take()
    assert await anext(taken) == line(1)
    await taken.aclose()


async def test_nobody_waits_for_a_taker_once_the_bound_is_lifted() -> None:
    stream = MergedStream(1)
    await stream.put(line(0))
    async with anyio.create_task_group() as group:
        group.start_soon(stream.put, line(1))
        await anyio.wait_all_tasks_blocked()
        stream.lift()
    await stream.put(line(2))
    stream.close()
    assert [seen async for seen in stream.take()] == [line(0), line(1), line(2)]


async def test_a_mistake_reaches_the_taker_after_what_was_there() -> None:
    stream = MergedStream(2)
    await stream.put(line(0))
    stream.close(LookupError("ours"))
    taken = stream.take()
    assert await anext(taken) == line(0)
    with pytest.raises(LookupError, match="ours"):
        await anext(taken)
