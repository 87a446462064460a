"""Three schedulers and four workers of a pool on a real server, and everything that may happen to processes, connections and servers.

Afterwards all logs are looked at: every run is sealed and verifies, each task has one accepted result and each tick one decision, what was
made is what an undisturbed run makes, the pool has no order and no claim, no process is left. `make chaos` goes on for longer; EVFLOW_TEST_SEED repeats a failure.
"""

import signal
import time
from pathlib import Path

import pytest

from evflow.client.connection import disconnect
from evflow.deployments import backfills
from evflow.deployments.backfills import Name
from evflow.log.keys import shard_keys, shared_shards
from evflow.log.protocol import LogClient
from evflow_scheduler.daemon import LEASE_S
from tests.chaos.fleet import FLOW, POOL, Fleet, processes_of
from tests.chaos.inspection import Found, inspect, last_events, left_in_pool, open_runs, runs
from tests.chaos.members import WITHIN_S
from tests.chaos.sentinel_fleet import SentinelFleet
from tests.effort import rng, scaled
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

LENGTH_S = scaled(40, at_least=10)
"""Of each of the two long tests: less than two minutes in CI together."""
POOL_WITHIN_S = 60.0
pytestmark = [
    pytest.mark.skipif(DebianRedis.why_missing() is not None, reason=str(DebianRedis.why_missing())),
    pytest.mark.timeout(LENGTH_S + 400),
]


def disturb(fleet: Fleet, length_s: float) -> None:
    """Let one thing after the other happen."""
    deadline = time.monotonic() + length_s
    while time.monotonic() < deadline:
        time.sleep(fleet.random.uniform(0.2, 2.0))
        fleet.strike()


def in_pool(log: LogClient) -> str:
    """What the pool has left."""
    return left_in_pool(log.url, POOL)


def settled(log: LogClient) -> bool:
    """Whether nothing is left to do."""
    return all(found.is_over for _, found in backfills.listed(log, FLOW)) and not open_runs(log, FLOW)


def calm(fleet: Fleet, *, lost: bool = False) -> Found:
    """Let everything come to its end, end the schedulers, and look."""
    fleet.calm_down()
    try:
        wait_until(lambda: fleet.ask(settled), "everything is over", WITHIN_S)
    except TimeoutError as error:
        stuck = fleet.ask(lambda log: open_runs(log, FLOW))
        said = fleet.ask(lambda log: f"{left_in_pool(log.url, POOL)}\n{last_events(log, stuck)}")
        raise AssertionError(f"{stuck} are open after: {fleet.story()}\n{said}\n{fleet.last_lines(stuck)}") from error
    try:
        wait_until(lambda: not fleet.ask(in_pool), "no order and no claim is left", POOL_WITHIN_S)
    except TimeoutError as error:
        raise AssertionError(f"the pool has {fleet.ask(in_pool)} left after: {fleet.story()}") from error
    fleet.end()
    disconnect()
    found = fleet.ask(lambda log: inspect(log, FLOW, fleet.book, lost=lost, may_have_twins=fleet.may_have_twins, torn=fleet.torn))
    for shard in shared_shards():
        keys = shard_keys(shard)
        if fleet.server.call("SCARD", keys.active) or (fleet.server.call("XLEN", keys.inbox) and not lost):
            left = fleet.server.call("SMEMBERS", keys.active), fleet.server.call("XRANGE", keys.inbox, "-", "+")
            found.problems.append(f"shard {shard} has something left: {left}")
    wait_until(lambda: not processes_of(fleet.root), "no process is left")
    print(f"\nwhat happened: {fleet.tally()}\nwhat was found: {found.summary()}")
    return found


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def test_nothing_is_lost_or_done_twice_whatever_dies_sleeps_is_cut_off_or_full(root: Path, name: str) -> None:
    with Fleet(root, rng("fleet", name)) as fleet:
        fleet.begin(minutes=30)
        disturb(fleet, LENGTH_S)
        found = calm(fleet)
        assert found.problems == [], "\n".join([*found.problems, fleet.story(), fleet.twins()])
        assert len(found.never_begun) <= fleet.unknown, "a run that was asked for without an error was never offered"
        assert found.succeeded > 20
        with fleet.log() as log:
            backfill = backfills.find(log, Name(FLOW, 1))
            assert (backfill.status, backfill.succeeded + backfill.failed, backfill.skipped) == ("done", backfill.ticks, 0)
            assert len(runs(log, FLOW)) >= found.succeeded


def test_fail_overs_that_lose_acknowledged_writes_leave_whole_logs(root: Path, name: str) -> None:
    """What a server forgot may be decided anew; what stands in the logs holds all the same."""
    with SentinelFleet(root, rng("fleet", name)) as fleet:
        fleet.begin(minutes=20)
        disturb(fleet, LENGTH_S)
        while not fleet.lost_bytes:
            fleet.fail_over()
        found = calm(fleet, lost=True)
        assert found.problems == [], "\n".join([*found.problems, fleet.story(), fleet.twins()])
        assert found.succeeded > 10


def test_an_owner_that_slept_writes_nothing_after_it_woke_up(root: Path, name: str) -> None:
    """Others have taken its shards by then: its appends are refused, and it begins anew as one of several."""
    with Fleet(root, rng("fleet", name)) as fleet:
        fleet.begin(minutes=20)
        sleeper = fleet.schedulers[0]
        wait_until(lambda: b"run begins" in sleeper.said.read_bytes(), "it carries runs out", WITHIN_S)
        sleeper.process.send_signal(signal.SIGSTOP)
        before = len(sleeper.said.read_bytes())
        time.sleep(LEASE_S + 3)
        others = sum(scheduler.said.read_bytes().count(b"run is taken over") for scheduler in fleet.schedulers[1:])
        sleeper.process.send_signal(signal.SIGCONT)
        wait_until(lambda: b"shard given up" in sleeper.said.read_bytes()[before:], "it notices", WITHIN_S)
        found = calm(fleet)
        assert found.problems == [], (others, sleeper.said.read_text())
        said = sleeper.said.read_text()
        assert "has been taken over by" in said or "has no owner any more" in said
