"""A mailbox loses nothing, whenever its taker stops waiting."""

import anyio
import pytest

from evflow_executors.mailbox import Mailbox

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def test_an_item_that_comes_as_the_wait_ends_is_still_there() -> None:
    mail = Mailbox[int](10)

    async def deliver() -> None:
        await anyio.sleep(1)
        await mail.put(7)

    async with anyio.create_task_group() as group:
        group.start_soon(deliver)
        with anyio.move_on_after(1):
            await mail.wait()
    assert mail.take() == 7
    assert mail.take() is None


async def test_items_are_taken_in_the_order_in_which_they_came() -> None:
    mail = Mailbox[int](10)
    for item in range(5):
        await mail.put(item)
    await mail.wait()
    assert [mail.take() for _ in range(6)] == [0, 1, 2, 3, 4, None]


async def test_who_puts_more_than_the_bound_waits_until_some_is_taken() -> None:
    mail = Mailbox[int](2)
    done = anyio.Event()
    taken: list[int | None] = []

    async def deliver() -> None:
        for item in range(4):
            await mail.put(item)
        done.set()

    async with anyio.create_task_group() as group:
        group.start_soon(deliver)
        await anyio.sleep(1)
        assert not done.is_set()
        taken += [mail.take(), mail.take()]
        await anyio.sleep(1)
        assert done.is_set()
    assert [*taken, mail.take(), mail.take()] == [0, 1, 2, 3]


async def test_all_who_wait_for_room_get_it() -> None:
    mail = Mailbox[int](1)
    await mail.put(0)
    taken: list[int | None] = []
    async with anyio.create_task_group() as group:
        for item in (1, 2, 3):
            group.start_soon(mail.put, item)
        for _ in range(4):
            await anyio.sleep(1)
            taken.append(mail.take())
    assert sorted(item for item in taken if item is not None) == [0, 1, 2, 3]


async def test_an_item_that_may_lie_wakes_nobody_before_its_time() -> None:
    """Two of them wake their taker once, when the first one's time has come."""
    mail = Mailbox[int](10)
    began_s = anyio.current_time()
    await mail.put(1, may_lie_s=3)
    await anyio.sleep(1)
    await mail.put(2, may_lie_s=3)
    await mail.wait()
    assert anyio.current_time() - began_s == 3
    assert [mail.take(), mail.take()] == [1, 2]
    with anyio.move_on_after(10) as scope:
        await mail.wait()
    assert scope.cancelled_caught


async def test_an_item_that_cannot_lie_wakes_for_those_that_can() -> None:
    """They are taken together, and nothing is left to wake for."""
    mail = Mailbox[int](10)
    await mail.put(1, may_lie_s=3)
    await mail.put(2)
    await mail.wait()
    assert [mail.take(), mail.take()] == [1, 2]
    with anyio.move_on_after(10) as scope:
        await mail.wait()
    assert scope.cancelled_caught


async def test_a_wait_ends_with_its_time_and_takes_nothing() -> None:
    mail = Mailbox[int](10)
    began_s = anyio.current_time()
    await mail.put(1, may_lie_s=5)
    await mail.wait(2)
    assert anyio.current_time() - began_s == 2
    assert mail.take() == 1
    await mail.wait(0)
    assert anyio.current_time() - began_s == 2


async def test_who_is_woken_between_two_waits_finds_it_at_the_next_one() -> None:
    mail = Mailbox[int](10)
    mail.wake()
    await mail.wait()
    with anyio.move_on_after(1) as scope:
        await mail.wait()
    assert scope.cancelled_caught
