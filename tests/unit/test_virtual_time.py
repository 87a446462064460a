import asyncio
import time

import anyio
import pytest

from evflow.testing.virtual_time import Deadlock, VirtualTimeLoop, run


def test_a_day_of_sleeping_takes_no_real_time() -> None:
    async def sleep_a_day() -> float:
        await anyio.sleep(86_400)
        return anyio.current_time()

    started = time.perf_counter()
    assert run(sleep_a_day) == 86_400
    assert time.perf_counter() - started < 5


def test_timers_fire_in_the_order_of_their_times() -> None:
    order: list[tuple[str, float]] = []

    async def note(name: str, delay_s: float) -> None:
        await anyio.sleep(delay_s)
        order.append((name, anyio.current_time()))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(note, "late", 7200)
            tasks.start_soon(note, "early", 0.5)
            tasks.start_soon(note, "between", 60)

    run(main)
    assert order == [("early", 0.5), ("between", 60.0), ("late", 7200.0)]


def test_the_clock_stands_still_while_code_runs() -> None:
    async def main() -> tuple[float, float]:
        before = anyio.current_time()
        for _ in range(1000):
            await asyncio.sleep(0)
        return before, anyio.current_time()

    before, after = run(main)
    assert before == after


def test_a_large_start_keeps_microseconds() -> None:
    async def main() -> float:
        await anyio.sleep(0.000_001)
        return anyio.current_time()

    assert run(main, start_s=1_700_000_000.0) == pytest.approx(1_700_000_000.000_001, abs=2e-7, rel=0)


def test_waiting_for_what_cannot_happen_is_a_deadlock_that_names_task_and_place() -> None:
    async def main() -> None:
        await anyio.sleep(3)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.Event().wait, name="waits for nobody")

    with pytest.raises(Deadlock, match=r"virtual time 3 s[^$]*waits for nobody at .*:\d+"):
        run(main)


def test_work_for_a_thread_is_refused() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0)

    with pytest.raises(RuntimeError, match="sleep was handed to a thread inside virtual time"):
        run(main)


def test_a_jump_makes_timers_due_and_never_goes_back() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        sleeper = asyncio.create_task(anyio.sleep(10))
        await asyncio.sleep(0)
        loop.jump(100)
        with pytest.raises(ValueError, match="cannot go back"):
            loop.jump(-1)
        await sleeper
        return anyio.current_time()

    assert run(main) == 100


@pytest.mark.virtual_time
async def test_a_marked_test_runs_in_virtual_time() -> None:
    await anyio.sleep(3600)
    assert anyio.current_time() == 3600


async def test_an_unmarked_test_runs_in_real_time() -> None:
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
