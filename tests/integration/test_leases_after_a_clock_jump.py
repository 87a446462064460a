"""The server's clock went back by an hour: what dead processes said before holds up nobody for an hour."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow.log import commands
from evflow.log.keys import shard_keys
from evflow.log.protocol import LeaseHeld
from evflow.testing.simulated_log import SimulatedEventLog
from evflow.testing.simulated_server import SimulatedServer
from evflow.testing.simulated_state import State
from tests.archive_world import ArchiveWorld, archive_world

HOUR_US = 3_600_000_000
SHARD = "s1"


@pytest.fixture
def world(evflow_home: Path) -> Iterator[ArchiveWorld]:
    with archive_world(evflow_home) as made:
        yield made


def test_a_dead_scheduler_counts_no_more(world: ArchiveWorld) -> None:
    world.log.schedulers("dead", 3.0)
    world.call("ZADD", "evflow:schedulers", time.time_ns() // 1_000 + HOUR_US, "dead")
    assert world.log.schedulers("alive", 3.0) == ["alive"]


def test_a_dead_owner_s_lease_lasts_no_longer_than_the_claimant_s(world: ArchiveWorld) -> None:
    lease = shard_keys(SHARD).lease
    world.call("HSET", lease, "owner", "dead", "epoch", "7", "expires", str(time.time_ns() // 1_000 + HOUR_US))
    before = world.log.owner(SHARD)
    assert before is not None
    assert before[1] > 3_000
    with pytest.raises(LeaseHeld):
        world.log._do(commands.take(SHARD, "next", 60.0))
    after = world.log.owner(SHARD)
    assert after is not None
    assert after[0] == "dead"
    assert after[1] <= 60.0


async def test_the_simulated_server_does_the_same() -> None:
    now_us = 2 * HOUR_US
    server = SimulatedServer(lambda: now_us)
    log = SimulatedEventLog(server)
    await log.take(SHARD, "dead", 4.0)
    now_us = HOUR_US
    with pytest.raises(LeaseHeld):
        await log.take(SHARD, "next", 4.0)
    now_us += 5_000_000
    server.regress(0)  # what it did stands in its journal
    assert (await SimulatedEventLog(server).take(SHARD, "next", 4.0)).owner == "next"
    state = State()
    state.announce("dead", 3_000_000, 2 * HOUR_US)
    assert state.announce("alive", 3_000_000, HOUR_US) == ["alive"]
