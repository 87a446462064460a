"""How many calls a second."""

import anyio
import anyio.lowlevel
import pytest

from evflow_executors.remote.rate import CallRate

pytestmark = pytest.mark.virtual_time


async def instants(rate: CallRate, calls: int) -> list[float]:
    began_s, found = anyio.current_time(), list[float]()

    async def call() -> None:
        async with rate.call():
            found.append(anyio.current_time() - began_s)

    async with anyio.create_task_group() as group:
        for _ in range(calls):
            group.start_soon(call)
    return sorted(found)


async def test_no_second_has_more_calls_than_the_rate() -> None:
    found = await instants(CallRate(10.0), 50)
    assert found[9] == 0
    assert found[-1] == pytest.approx(4.0, abs=0.1)
    for first in found:
        assert sum(first <= at < first + 0.999 for at in found) <= 10


async def test_a_rate_below_one_call_a_second_lets_one_go_at_once() -> None:
    assert await instants(CallRate(0.5), 2) == pytest.approx([0.0, 2.0], abs=0.1)


async def test_nobody_calls_while_the_platform_asked_for_silence_nor_all_at_once_behind_it() -> None:
    rate = CallRate(100.0)
    async with rate.call():
        rate.hold(5.0)
    found = await instants(rate, 50)
    assert found[0] >= 5.0
    assert found[-1] == pytest.approx(5.5, abs=0.1)


async def test_what_was_not_used_is_no_credit() -> None:
    rate = CallRate(10.0)
    await instants(rate, 10)
    await anyio.sleep(60)
    assert sum(at == 0 for at in await instants(rate, 30)) == 10


async def test_a_call_has_its_place_until_a_second_after_its_answer() -> None:
    rate = CallRate(2.0)

    async def slow() -> None:
        async with rate.call():
            await anyio.sleep(5.0)

    async with anyio.create_task_group() as group:
        group.start_soon(slow)
        group.start_soon(slow)
        await anyio.lowlevel.checkpoint()
        assert await instants(rate, 2) == pytest.approx([6.0, 6.0], abs=0.1)
