"""Orders in a pool's queue that no worker can run, with a real worker over a real server."""

from pathlib import Path

import msgpack
import pytest

from evflow.core.codec import decode_report
from evflow.core.events import AttemptFailed
from evflow.core.ids import AttemptId
from evflow.log import commands, pools
from evflow.log.link import Link
from evflow.worker.spec import AttemptOrder
from evflow_executors.pool_orders import OrderUnreadable, PoolOrder
from tests.fork_bench import a_context
from tests.pool_world import EPOCH, POOL, SHARD, a_pool_executor, a_worker
from tests.waiting import wait_until_async

ATTEMPT = AttemptId.parse("Flow/1/1.0")


def test_an_order_that_cannot_be_read_names_its_shard_where_that_can_be_read(root: Path) -> None:
    context = a_context(root, shard=SHARD).pack()
    whole = PoolOrder.pack(context, AttemptOrder(step="start", task=1, attempt=0, mode="run", last=True), live=False)
    for attempt, data, shard in (
        (str(ATTEMPT), msgpack.packb((context, b"of another version", False)), SHARD),
        ("Flow/1/2.0", whole, SHARD),
        ("no attempt", whole, None),
        (str(ATTEMPT), msgpack.packb((msgpack.packb(["Flow", 1, "", 7]), b"", False)), None),
        (str(ATTEMPT), b"rubbish", None),
    ):
        with pytest.raises(OrderUnreadable) as raised:
            PoolOrder.unpack(attempt, data)
        assert raised.value.shard == shard, attempt


async def test_the_shard_of_an_order_that_cannot_be_read_is_told_why_and_its_claim_is_given_back(redis_url: str, root: Path) -> None:
    link, data = Link(redis_url), msgpack.packb((a_context(root, shard=SHARD).pack(), b"of another version", False))
    wait = link.wait()
    async with a_worker(redis_url, root):
        await link.do(pools.order(POOL, SHARD, EPOCH, 1, [(str(ATTEMPT), data, 0)]))
        report = (await wait.do(commands.receive(SHARD, b"0", 30.0), 30.0))[0]
        await wait_until_async(lambda: _is_gone(link), "the claim is given back")
    event, _ = decode_report(report.payload)
    assert isinstance(event, AttemptFailed)
    assert (event.task, event.attempt, event.kind, event.error) == (1, 0, "load", "order-unreadable")
    assert "The order of 'Flow/1/1.0' in the pool's queue cannot be read" in event.message
    await wait.aclose()
    await link.aclose()


async def test_an_order_that_says_nothing_is_given_back_and_missed_by_its_owner(redis_url: str, root: Path) -> None:
    context = a_context(root, shard=SHARD)
    link = Link(redis_url)
    async with a_worker(redis_url, root), a_pool_executor(redis_url, context) as executor:
        await link.do(pools.order(POOL, SHARD, EPOCH, 1, [(str(ATTEMPT), b"rubbish", 0)]))
        await wait_until_async(lambda: _is_gone(link), "the claim is given back")
        assert await executor.adopt([ATTEMPT]) == []
    await link.aclose()


async def _is_gone(link: Link) -> bool:
    return (await link.do(pools.look(POOL, SHARD, [ATTEMPT], None))).fates[ATTEMPT].what == "gone"
