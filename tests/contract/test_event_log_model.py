"""The simulated log against a real server, act by act, over random programs.

The simulation of the scheduler is worth as much as its log is exact. Programs mix everything that an owner, rivals
and workers do; after each act both logs must answer the same, errors included. Names that servers invent (epochs,
entry ids) are compared by their place in the program.
"""

import asyncio
from typing import Any

from hypothesis import example, given, settings, strategies as st

from evflow.core.ids import Seq
from evflow.errors import EvflowError
from evflow.log.protocol import BackfillChange, Deployed, DeploymentChange, FlowChange, Head, Keep, Lease, RunEntry, TagChange
from tests.contract.comparing import compare
from tests.contract.log_worlds import (
    RUN,
    SHARD,
    RawServer,
    RealWorld,
    SimulatedWorld,
    World,
    call_of,
    real_world,
    request,
)
from tests.effort import scaled

TTL_S = 3_600.0

CHANGES: dict[str, FlowChange | None] = {
    "nothing": None,
    "tags": TagChange(RUN, ("a",)),
    "deployed": DeploymentChange("default", b"packed"),
    "undeployed": DeploymentChange("default", b""),
    "backfilled": BackfillChange(2, b"packed"),
}
small = st.integers(0, 3)
APPENDS = st.tuples(
    st.just("append"), st.just(0) | small, st.sampled_from(("here", "here", "here", "stale", "digest")), small,
    st.sets(small, max_size=3), st.sampled_from(("active", "active", "active", "sealed")), st.booleans(),
)  # fmt: skip
PROGRAMS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.sampled_from(("ada", "bob"))),
        st.tuples(st.sampled_from(("renew", "release")), small),
        APPENDS,
        APPENDS,
        st.just(("again", 0)),
        st.tuples(st.just("again"), small),
        st.tuples(st.just("report"), st.binary(max_size=8)),
        st.tuples(st.just("receive"), small),
        st.tuples(st.just("read"), small, st.integers(1, 3)),
        st.tuples(st.sampled_from(("expire", "litter", "head", "active", "owner", "dropped", "request", "identify", "flow_events"))),
        st.tuples(st.just("append_flow"), small, st.sampled_from(sorted(CHANGES))),
        st.tuples(st.just("request_at"), small, small, st.sampled_from(("nothing", "deployed", "backfilled"))),
        st.tuples(st.just("request_of"), st.none() | small, st.sampled_from((b"", b"ticked", b"other"))),
        st.tuples(st.just("offer"), small),
        st.tuples(st.just("index"), small),
        st.tuples(st.just("publish"), small, st.sampled_from((1, 2, 1_000))),
        st.tuples(st.just("runs"), st.one_of(st.none(), small)),
    ),
    max_size=40,
)  # fmt: skip


class Program:
    """Carries acts out on one world and remembers what it invented."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.log = world.log()
        self.client = world.client()
        self.leases: list[Lease] = [Lease(SHARD, "nobody", 7, TTL_S)]
        self.entries: list[bytes] = []
        self.last = call_of([b"never sent"])

    async def do(self, act: tuple[Any, ...]) -> object:
        """Answer what the act answered, in terms that compare."""
        try:
            return await getattr(self, act[0])(*act[1:])
        except EvflowError as error:
            facts = {name: getattr(error, name) for name in ("owner", "found", "expected") if hasattr(error, name)}
            return type(error).__name__, facts

    async def take(self, owner: str) -> object:
        lease = await self.log.take(SHARD, owner, TTL_S)
        assert lease.epoch > max(known.epoch for known in self.leases)
        self.leases.append(lease)
        return len(self.leases)

    async def renew(self, which: int) -> object:
        await self.log.renew(self.lease(which))
        return None

    async def release(self, which: int) -> object:
        await self.log.release(self.lease(which))
        return None

    async def append(self, which: int, where: str, count: int, consumed: set[int], status: str, drop: bool) -> object:
        head = await self.log.head(SHARD, RUN)
        at = {"here": head, "stale": Head(max(0, head.seq - 1), head.digest), "digest": Head(head.seq, b"\x07" * 32)}[where]
        entries = tuple(self.entries[-1 - number] for number in sorted(consumed) if number < len(self.entries))
        events = [b"%d/%d" % (at.seq, number) for number in range(count)]
        self.last = call_of(events, at, consumed=entries, status=status, wake_at_us=5 if drop else None, dropped={"odd": 2} if drop else {})
        return await self.again(which)

    async def again(self, which: int) -> object:
        head = await self.log.append(self.lease(which), self.last)
        return head, await self.log.active(SHARD), self.client.dropped(SHARD, RUN), len(await self.log.receive(SHARD, b"0", 0))

    async def report(self, payload: bytes) -> object:
        return self.client.report(SHARD, RUN, payload), await self.receive(0)

    async def receive(self, which: int) -> object:
        after = self.entries[-which] if 0 < which <= len(self.entries) else b"0"
        inbound = await self.log.receive(SHARD, after, 0)
        for entry in inbound:
            if entry.id not in self.entries:
                self.entries.append(entry.id)
        return [(self.entries.index(entry.id), entry.run, entry.payload) for entry in inbound]

    async def read(self, after: int, limit: int) -> object:
        events = await self.log.read(SHARD, RUN, after, limit)
        assert events == self.client.read(SHARD, RUN, after, limit)
        return events

    async def expire(self) -> object:
        # Only a lease that exists can be over: the real world would write half of one.
        if self.client.owner(SHARD) is not None:
            self.world.expire(SHARD)
        return None

    async def litter(self) -> object:
        self.world.litter(SHARD)
        return None

    async def publish(self, which: int, most: int) -> object:
        placed = self.client.publish(f"e{which}", b"body", Keep(most=most))
        events = self.client.published()
        assert events == await self.log.published(0, 0)
        assert self.client.event_bounds().last_us == events[-1].at_us
        return placed.is_new, [(event.id, event.body) for event in events], self.client.event_bounds().trimmed_us > 0

    async def head(self) -> object:
        return self.client.head(SHARD, RUN)

    async def active(self) -> object:
        return await self.log.active(SHARD)

    async def owner(self) -> object:
        owner = self.client.owner(SHARD)
        return owner and owner[0]

    async def dropped(self) -> object:
        return self.client.dropped(SHARD, RUN)

    async def request(self) -> object:
        return self.client.request_run(RUN.flow, request()), self.client.flows()

    async def request_at(self, expected: int, minimum: int, changed: str) -> object:
        changes: dict[str, DeploymentChange | BackfillChange] = {
            "deployed": DeploymentChange("default", b"ticked"),
            "backfilled": BackfillChange(1, b"asked"),
        }
        change = changes.get(changed)
        return self.client.request_run(RUN.flow, request(), minimum, Seq(expected), change), self.client.flow_seqs([RUN.flow])

    async def request_of(self, minimum: int | None, packed: bytes) -> object:
        deployed = Deployed("default", packed)
        return self.client.request_run(RUN.flow, request(), minimum, deployed=deployed), self.client.flow_seqs([RUN.flow])

    async def offer(self, value: int) -> object:
        taken = self.client.offer_run(RunEntry(RUN, SHARD, {"value": value}), b"offer")
        inbox = await self.log.receive(SHARD, b"0", 0)
        return taken, self.client.run(RUN), [(entry.run, entry.payload) for entry in inbox], self.client.dropped(SHARD, RUN)

    async def identify(self) -> object:
        return self.client.installation() == self.client.installation()

    async def flow_events(self) -> object:
        changed = self.client.tags(RUN), self.client.all_tags(RUN.flow), self.client.deployments(RUN.flow), self.client.backfills(RUN.flow)
        return self.client.flow_events(RUN.flow), self.client.flow_seq(RUN.flow), changed

    async def append_flow(self, expected: int, change: str) -> object:
        return self.client.append_flow(RUN.flow, Seq(expected), b"event", CHANGES[change]), self.client.flows(), self.client.backfilled()

    async def index(self, value: int) -> object:
        self.client.index_run(RunEntry(RUN, SHARD, {"value": value}))
        return None

    async def runs(self, limit: int | None) -> object:
        return self.client.runs(RUN.flow, limit), self.client.run(RUN)

    def lease(self, which: int) -> Lease:
        return self.leases[-1 - which % len(self.leases)]

    async def aclose(self) -> None:
        await self.log.aclose()


@settings(max_examples=scaled(300, at_least=30))
@given(acts=PROGRAMS)
@example(acts=[("append_flow", 1, "backfilled"), ("append_flow", 0, "deployed")])  # refused, the flow's name is kept
@example(acts=[("offer", 0), ("append_flow", 0, "backfilled")])
@example(acts=[("request_at", 0, 0, "backfilled"), ("append_flow", 1, "nothing")])
def test_the_simulated_log_answers_as_the_real_one_does(either_server: RawServer, acts: list[tuple[Any, ...]]) -> None:
    asyncio.run(_compare(real_world("real", either_server.unix_url), acts))


async def _compare(real: RealWorld, acts: list[tuple[Any, ...]]) -> None:
    real.call("FLUSHALL")
    try:
        # Without an owner and a report most acts come to nothing.
        await compare(Program(real), Program(SimulatedWorld(_steps())), [("take", "ada"), ("report", b"first"), *acts])
    finally:
        real.close()


def _steps() -> Any:
    """Answer a clock that goes on by a second at every look: no two epochs meet."""
    instants = iter(range(1_700_000_000_000_000, 1_800_000_000_000_000, 1_000_000))
    return lambda: next(instants)
