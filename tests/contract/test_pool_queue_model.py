"""The simulated queue of a pool against a real server's, act by act, over random programs.

Owners of two epochs, three workers, and everything that they do; workers die, what they had read goes back, the server loses its
memory, and its clock jumps. After each act both must answer the same, errors included, and hold the same. What servers invent (entries' ids, instants)
is compared by its place in the program.
"""

import asyncio
from typing import Any

from hypothesis import given, settings, strategies as st

from evflow.core.ids import AttemptId
from evflow.errors import EvflowError
from evflow.log import pools
from evflow.log.keys import pool_keys
from evflow.log.link import Link
from evflow.log.pools import Entry
from tests.contract.comparing import compare
from tests.contract.log_worlds import RawServer, RealWorld, real_world
from tests.contract.test_pool_queue import ABOUT, POOL, SHARD, SimulatedPoolWorld, attempt, jump
from tests.effort import scaled

WAIT_S = 0.001
workers = st.sampled_from(("a", "b", "c"))
tasks = st.lists(st.integers(1, 5), max_size=3)
orders = st.lists(st.tuples(st.integers(1, 5), st.sampled_from((0, 0, 0, 1, 7, -1, -5_000))), max_size=3)
epochs = st.sampled_from((5, 5, 5, 6))
ACTS = st.one_of(
    st.tuples(st.just("order"), orders, epochs, st.integers(0, 4)),
    st.tuples(st.just("order"), orders, epochs, st.integers(0, 4)),
    st.tuples(st.just("fetch"), workers, st.integers(1, 3)),
    st.tuples(st.just("claim"), workers, st.integers(0, 3)),
    st.tuples(st.just("take"), workers, st.integers(1, 3)),
    st.tuples(st.just("cancel"), st.integers(1, 5), epochs),
    st.tuples(st.just("look"), tasks, st.sampled_from((None, None, 5, 6))),
    st.tuples(st.just("release"), tasks),
    st.tuples(st.just("confirm"), workers, tasks),
    st.tuples(st.sampled_from(("join", "beat", "give_back", "leave", "die", "hear")), workers),
    st.tuples(st.just("jump"), st.sampled_from((-100_000_000, 100_000_000))),
    st.tuples(st.sampled_from(("forget", "litter"))),
)
PROGRAMS = st.lists(ACTS, max_size=40)


class Program:
    """Carries acts out on one world and remembers what it invented."""

    def __init__(self, world: "RealWorld | SimulatedPoolWorld") -> None:
        self.world = world
        self.link = Link(world.url, connector=world.async_connector)
        self.wait = self.link.wait()
        self.entries: list[Entry] = []
        self.number = 0

    async def do(self, act: tuple[Any, ...]) -> object:
        """Answer what the act answered and what the pool holds then, in terms that compare."""
        try:
            answer = await getattr(self, act[0])(*act[1:])
        except EvflowError as error:
            answer = type(error).__name__
        picture = await self.link.do(pools.picture(POOL))
        holds = picture.queued, [worker.name for worker in picture.workers], {name: worker for name, (worker, _) in picture.running.items()}
        keys = pool_keys(POOL)
        places = self.world.call("ZRANGE", keys.ranks, "0", "-1", "WITHSCORES")
        counts = self.world.call("XLEN", keys.queue), self.world.call("HLEN", keys.given)
        return answer, holds, places, counts, self.world.call("HGET", keys.fences, SHARD)

    async def order(self, ordered: list[tuple[int, int]], epoch: int, back: int) -> Any:
        self.number += back == 0  # else a repeat, or an older call that comes late
        orders = [(str(attempt(task)), b"order %d" % task, priority) for task, priority in ordered]
        return await self.link.do(pools.order(POOL, SHARD, epoch, max(1, self.number - back), orders))

    async def fetch(self, worker: str, count: int) -> Any:
        found = await self.wait.do(pools.fetch(POOL, worker, count, WAIT_S), WAIT_S)
        self.entries += found
        return [(entry.attempt, entry.order) for entry in found]

    async def claim(self, worker: str, back: int) -> Any:
        if not self.entries:
            return None
        return await self._claim(worker, self.entries[-1 - back :][:2])

    async def take(self, worker: str, count: int) -> Any:
        found = await self.fetch(worker, count)
        return (found, await self._claim(worker, self.entries[-len(found) :])) if found else found

    async def _claim(self, worker: str, entries: list[Entry]) -> list[tuple[str, bytes]]:
        claimed: list[Entry] = await self.link.do(pools.claim(POOL, worker, entries))
        return [(entry.attempt, entry.order) for entry in claimed]

    async def cancel(self, task: int, epoch: int) -> Any:
        return await self.link.do(pools.cancel(POOL, SHARD, epoch, attempt(task), 2.5))

    async def look(self, numbers: list[int], epoch: int | None) -> Any:
        seen = await self.link.do(pools.look(POOL, SHARD, [attempt(task) for task in dict.fromkeys(numbers)], epoch))
        return seen.workers, seen.fates

    async def release(self, numbers: list[int]) -> Any:
        gone: list[AttemptId] = [attempt(task) for task in numbers]
        return await self.link.do(pools.release(POOL, gone)) if gone else None

    async def join(self, worker: str) -> Any:
        return await self.link.do(pools.join(POOL, worker, 60.0, ABOUT))

    async def beat(self, worker: str) -> Any:
        return await self.link.do(pools.beat(POOL, worker, 60.0, ABOUT))

    async def confirm(self, worker: str, numbers: list[int]) -> Any:
        return await self.link.do(pools.beat(POOL, worker, 60.0, ABOUT, [str(attempt(task)) for task in numbers]))

    async def give_back(self, worker: str) -> Any:
        return await self.link.do(pools.give_back(POOL, worker))

    async def leave(self, worker: str) -> Any:
        return await self.link.do(pools.leave(POOL, worker))

    async def hear(self, worker: str) -> Any:
        told = await self.wait.do(pools.messages(POOL, worker, b"0", WAIT_S), WAIT_S)
        return [(message.cancel, message.grace_s) for message in told]

    async def die(self, worker: str) -> Any:
        keys = pool_keys(POOL)
        if worker in [one.name for one in (await self.link.do(pools.picture(POOL))).workers]:
            self.world.call("ZADD", keys.workers, "1", worker)
        return None

    async def jump(self, by_us: int) -> Any:
        jump(self.world, by_us)
        return None

    async def forget(self) -> Any:
        self.world.call("FLUSHALL")
        return None

    async def litter(self) -> Any:
        self.world.call("XADD", pool_keys(POOL).queue, "*", "what", "ever")
        return None

    async def aclose(self) -> None:
        await self.wait.aclose()
        await self.link.aclose()


@settings(max_examples=scaled(300, at_least=30))
@given(acts=PROGRAMS)
def test_the_simulated_queue_answers_as_the_real_one_does(either_server: RawServer, acts: list[tuple[Any, ...]]) -> None:
    asyncio.run(_compare(real_world("real", either_server.unix_url), acts))


async def _compare(real: RealWorld, acts: list[tuple[Any, ...]]) -> None:
    real.call("FLUSHALL")
    try:
        # Without workers and an order most acts come to nothing.
        await compare(
            Program(real), Program(SimulatedPoolWorld()), [("join", "a"), ("join", "b"), ("order", [(1, 0), (2, 0)], 5, 0), *acts]
        )
    finally:
        real.close()
