"""The writer of a shard, in virtual time, against every way in which a server can fail it."""

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from evflow.core.chain import links
from evflow.core.events import LogRegressed
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.errors import Conflict
from evflow.log.errors import LogAccessDenied, LogOutOfMemory, LogUnavailable, LogUnreachable
from evflow.log.protocol import AppendCall, Head, Inbound, LeaseHeld, LeaseLost
from evflow.log.writer import KEPT_S, LogLostTooMuch, RunNumberTaken, ShardWriter
from evflow.testing.faults import Crash, RandomFaults
from evflow.testing.simulated_log import SimulatedEventLog, SimulatedLogClient
from evflow.testing.simulated_server import SimulatedServer
from tests.effort import rng, seeds

pytestmark = pytest.mark.virtual_time

SHARD = "run:Flow:1"
RUN = RunId(FlowName("Flow"), RunNumber(1))
OTHER = RunId(FlowName("Flow"), RunNumber(2))


class Owner:
    """A writer and what it has written, on a server of its own."""

    def __init__(self, server: SimulatedServer | None = None, **options: Any) -> None:
        self.server = server or SimulatedServer()
        self.log = SimulatedEventLog(self.server)
        self.client = SimulatedLogClient(self.server)
        self.writer = ShardWriter(self.log, SHARD, "owner", **options)
        self.heads: dict[RunId, Head] = {}

    async def write(self, *events: bytes, run: RunId = RUN, consumed: Sequence[bytes] = (), status: str = "active") -> Head:
        at = self.heads.get(run, Head())
        call = AppendCall(run, at, events, tuple(links(at.digest, events)), tuple(consumed), status)
        self.heads[run] = await self.writer.append(call)
        return self.heads[run]

    def written(self, run: RunId = RUN) -> list[bytes]:
        return [event.payload for event in self.client.read(SHARD, run)]


async def owner(**options: Any) -> Owner:
    new = Owner(**options)
    await new.writer.take()
    return new


async def server_taken_by(server: SimulatedServer, name: str, ttl_s: float) -> None:
    await SimulatedEventLog(server).take(SHARD, name, ttl_s)


async def write_behind_its_back(owner: Owner) -> None:
    """Let another process take the shard, append, and go."""
    log = SimulatedEventLog(owner.server)
    lease = owner.server.steal_lease(SHARD, ttl_s=1.0)
    head = await log.head(SHARD, RUN)
    events = [b"foreign"]
    await log.append(lease, AppendCall(RUN, head, events, links(head.digest, events)))
    await log.release(lease)


async def test_a_lost_reply_is_asked_for_again_and_the_turn_stands_once() -> None:
    me = await owner()
    faults = RandomFaults(rng("lost reply"), lost_reply=1.0, budget=3)
    me.log.faults = faults
    await me.write(b"a", b"b")
    assert len(faults.log) == 3
    assert me.written() == [b"a", b"b"]


async def test_a_server_that_is_away_is_waited_for() -> None:
    troubles: list[LogUnavailable] = []

    def hear(error: LogUnavailable, away_s: float) -> None:
        troubles.append(error)

    me = await owner(on_trouble=hear)
    me.server.kill()
    async with anyio.create_task_group() as group:
        group.start_soon(me.write, b"a")
        await anyio.sleep(10)
        assert me.server.down
        me.server.start()
    assert me.written() == [b"a"]
    assert any(isinstance(error, LogUnreachable) for error in troubles)


async def test_a_server_that_can_be_restarted_is_restarted() -> None:
    restarts: list[float] = []

    async def restart() -> None:
        restarts.append(anyio.current_time())
        me.server.start()

    me = await owner(restart=restart)
    me.server.kill()
    await me.write(b"a")
    assert len(restarts) == 1
    assert me.written() == [b"a"]


async def test_patience_ends() -> None:
    me = await owner(patience_s=30)
    me.server.kill()
    began_s = anyio.current_time()
    with pytest.raises(LogUnreachable):
        await me.write(b"a")
    assert 30 <= anyio.current_time() - began_s < 35


async def test_the_time_for_which_nothing_came_is_no_time_that_the_server_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    away: list[float] = []

    def hear(_: LogUnavailable, away_s: float) -> None:
        away.append(away_s)

    me = await owner(patience_s=25, on_trouble=hear)
    receive = me.log.receive

    async def cut_off(shard: str, after: bytes, timeout_s: float) -> list[Inbound]:
        if not away:
            await anyio.sleep(timeout_s)
            me.server.kill()
        return await receive(shard, after, 0)

    monkeypatch.setattr(me.log, "receive", cut_off)
    async with anyio.create_task_group() as group:
        group.start_soon(me.writer.receive, b"0", 30)
        await anyio.sleep(40)
        me.server.start()
    assert away[0] == 0
    assert 5 < away[-1] <= 10


async def test_what_waiting_cannot_mend_is_raised_at_once() -> None:
    me = await owner()
    me.server.refusal = LogAccessDenied("here", "NOPERM")
    began_s = anyio.current_time()
    with pytest.raises(LogAccessDenied):
        await me.write(b"a")
    assert anyio.current_time() == began_s


async def test_a_server_without_memory_is_waited_for() -> None:
    me = await owner()
    me.server.refusal = LogOutOfMemory("here", "OOM")
    async with anyio.create_task_group() as group:
        group.start_soon(me.write, b"a")
        await anyio.sleep(5)
        me.server.refusal = None
    assert me.written() == [b"a"]


async def test_what_the_server_lost_is_written_again_under_a_new_epoch() -> None:
    me = await owner()
    epoch = me.writer.lease.epoch
    await me.write(b"a")
    me.client.report(SHARD, RUN, b"report")
    (report,) = await me.writer.receive(b"0", 0)
    await me.write(b"b", b"c", consumed=[report.id])
    await me.write(b"d")
    assert me.server.regress(2) == 2
    assert me.written() == [b"a"]
    await me.write(b"e")
    assert me.written() == [b"a", b"b", b"c", b"d", b"e"]
    assert await me.writer.receive(b"0", 0) == []
    assert me.writer.lease.epoch > epoch
    ((run, event),) = me.writer.take_incidents()
    assert (run, event) == (RUN, LogRegressed(2, 4, me.writer.lease.epoch))
    assert me.writer.take_incidents() == []


async def test_a_run_whose_number_is_another_s_is_not_written_again_and_what_else_was_lost_is() -> None:
    """The owner stops, and whoever takes the shard next goes on with what is there."""
    asked: list[tuple[RunId, bytes]] = []

    async def claim(run: RunId, first: bytes) -> str:
        asked.append((run, first))
        return "its number is another run's" if run == RUN else ""

    made = await owner(claim=claim)
    await made.write(b"a")
    await made.write(b"b", run=OTHER)
    made.server.regress(2)
    with pytest.raises(RunNumberTaken, match="given up: its number is another run's"):
        await made.write(b"c", run=OTHER)
    assert asked == [(RUN, b"a"), (OTHER, b"b")]
    assert (made.written(), made.written(OTHER)) == ([], [b"b"])


async def test_a_loss_is_found_without_an_append_when_the_lease_is_renewed() -> None:
    me = await owner(ttl_s=9)
    async with anyio.create_task_group() as group:
        group.start_soon(me.writer.keep)
        await anyio.sleep(8)
        await me.write(b"a", b"b")
        me.server.regress(1)
        assert me.written() == []
        await anyio.sleep(4)
        group.cancel_scope.cancel()
    assert me.written() == [b"a", b"b"]
    assert len(me.writer.take_incidents()) == 1


async def test_a_loss_in_another_run_of_the_shard_is_found_by_the_next_append() -> None:
    me = await owner()
    await me.write(b"mine")
    await me.write(b"other's", run=OTHER)
    me.server.regress(1)
    await me.write(b"more")
    assert me.written(OTHER) == [b"other's"]
    assert me.written() == [b"mine", b"more"]


async def test_a_loss_of_the_lease_alone_is_mended() -> None:
    me = await owner()
    await me.write(b"a")
    epoch = me.writer.lease.epoch
    me.server.forget_lease(SHARD)
    await anyio.sleep(0.001)
    await me.write(b"b")
    assert me.written() == [b"a", b"b"]
    assert me.writer.lease.epoch > epoch


async def test_a_lost_lease_stops_the_writer_before_its_next_append() -> None:
    me = await owner()
    await me.write(b"a")
    thief = me.server.steal_lease(SHARD)
    for _ in range(2):
        with pytest.raises(LeaseLost):
            await me.write(b"b")
    await me.log.release(thief)
    with pytest.raises(LeaseLost):
        await me.write(b"b")
    assert me.written() == [b"a"]


async def test_keeping_the_lease_ends_when_another_has_it() -> None:
    me = await owner(ttl_s=9)
    me.server.steal_lease(SHARD)
    with pytest.raises(LeaseLost):
        await me.writer.keep()


async def test_a_renewed_lease_outlives_its_time_to_live() -> None:
    me = await owner(ttl_s=9)
    async with anyio.create_task_group() as group:
        group.start_soon(me.writer.keep)
        await anyio.sleep(100)
        with pytest.raises(LeaseHeld):
            await me.log.take(SHARD, "rival", 9)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("rest_s", [0, 10], ids=["holds", "has run out"])
@pytest.mark.parametrize("act", ["append", "keep"])
async def test_a_predecessor_s_lease_that_a_fail_over_brings_back_is_taken_over(act: str, rest_s: float) -> None:
    server = SimulatedServer()
    await server_taken_by(server, "predecessor", ttl_s=9)
    server.expire_lease(SHARD)
    me = await owner(server=server, ttl_s=9)
    await me.write(b"a")
    await anyio.sleep(rest_s)
    server.regress(3)
    if act == "append":
        await me.write(b"b")
    else:
        with anyio.move_on_after(60):
            await me.writer.keep()
    assert me.written() == [b"a", b"b"][: 2 if act == "append" else 1]
    holder = me.client.owner(SHARD)
    assert holder is not None
    assert holder[0] == "owner"
    assert [incident.event.from_seq for incident in me.writer.take_incidents()] == [1]


async def test_a_shard_that_somebody_owned_meanwhile_and_left_is_not_taken_again() -> None:
    """It may have begun runs there: whoever slept has to look at the shard anew."""
    me = await owner(ttl_s=9)
    me.server.expire_lease(SHARD)
    await server_taken_by(me.server, "successor", ttl_s=9)
    SimulatedLogClient(me.server).bury(SHARD, "successor")
    with pytest.raises(LeaseLost):
        await me.write(b"a")


async def test_a_shard_with_runs_that_nobody_told_of_is_not_taken_again_though_the_server_forgot_who_owned_it() -> None:
    me = await owner()
    log = SimulatedEventLog(me.server)
    lease = me.server.steal_lease(SHARD)
    await log.append(lease, AppendCall(OTHER, Head(), [b"foreign"], links(Head().digest, [b"foreign"])))
    me.server.forget_lease(SHARD)
    with pytest.raises(LeaseLost):
        await me.write(b"a")


async def test_a_successor_s_lease_after_a_fail_over_is_respected() -> None:
    me = await owner(ttl_s=9)
    await me.write(b"a")
    me.server.regress(2)
    await server_taken_by(me.server, "successor", ttl_s=9)
    with pytest.raises(LeaseLost):
        await me.write(b"b")
    assert me.written() == []


async def test_where_another_wrote_in_between_the_writer_stops() -> None:
    me = await owner()
    await me.write(b"a")
    await write_behind_its_back(me)
    for _ in range(2):
        with pytest.raises(Conflict):
            await me.write(b"b")
    assert me.written() == [b"a", b"foreign"]


async def test_a_loss_after_which_another_wrote_stops_the_writer() -> None:
    me = await owner()
    await me.write(b"a")
    await me.write(b"b")
    me.server.regress(1)
    await write_behind_its_back(me)
    with pytest.raises(Conflict):
        await me.write(b"c")
    assert me.written() == [b"a", b"foreign"]


async def test_a_loss_of_more_than_is_kept_stops_the_writer() -> None:
    me = await owner()
    await me.write(b"a")
    await anyio.sleep(KEPT_S + 1)
    await me.write(b"b")
    me.server.regress(2)
    with pytest.raises(LogLostTooMuch):
        await me.write(b"c")
    assert me.written() == []


async def test_a_loss_of_a_run_that_was_sealed_long_ago_does_not_stop_the_writer() -> None:
    """A scheduler's writer lives on after its runs."""
    me = await owner()
    await me.write(b"a")
    await anyio.sleep(KEPT_S + 1)
    await me.write(b"the end", status="sealed")
    await anyio.sleep(KEPT_S + 1)
    me.server.regress(2)
    with anyio.move_on_after(30):
        await me.writer.keep()
    await me.write(b"b", run=OTHER)
    assert (me.written(), me.written(OTHER)) == ([], [b"b"])


async def test_a_run_that_was_over_and_is_back_is_left_to_whoever_takes_the_shard_next() -> None:
    """The server has lost the seal, which nobody holds any more: only its set of live runs knows of the run."""
    me = await owner()
    assert await me.writer.active() == []
    await me.write(b"a")
    await me.write(b"the end", status="sealed")
    await anyio.sleep(KEPT_S + 1)
    await me.write(b"b", run=OTHER)
    me.server.regress(2)
    with pytest.raises(LeaseLost):
        await me.write(b"c", run=OTHER)
    assert (me.written(), me.written(OTHER)) == ([b"a"], [b"b"])
    assert RUN in await me.log.active(SHARD)


async def test_what_was_waited_for_is_not_kept_and_not_lost() -> None:
    me = await owner()
    await me.write(b"a")
    await me.writer.wait_durable("fsync")
    await me.write(b"b")
    assert me.server.regress(10) == 1
    await me.write(b"c")
    assert me.written() == [b"a", b"b", b"c"]


async def test_waiting_for_the_disk_goes_on_over_a_reconnection() -> None:
    me = await owner()
    await me.write(b"a")
    await me.write(b"b")
    me.server.regress(1)
    await me.writer.wait_durable("fsync")
    assert me.written() == [b"a", b"b"]
    assert me.server.regress(10) == 0


async def test_a_shard_is_taken_when_its_dead_owner_s_lease_ends() -> None:
    me = await owner(ttl_s=9)
    rival = ShardWriter(SimulatedEventLog(me.server), SHARD, "rival", ttl_s=9)
    with pytest.raises(LeaseHeld):
        await rival.take()
    lease = await rival.take(wait_s=60)
    assert lease.epoch > me.writer.lease.epoch
    assert anyio.current_time() == pytest.approx(9, abs=1)


async def test_releasing_to_a_server_that_is_away_does_not_wait() -> None:
    me = await owner()
    me.server.kill()
    began_s = anyio.current_time()
    await me.writer.release()
    assert anyio.current_time() == began_s


@pytest.mark.parametrize("seed", seeds(200))
async def test_whatever_goes_wrong_each_turn_stands_once_and_in_order(seed: int) -> None:
    random = rng("writer", seed)
    me = await owner(patience_s=10_000)

    def regression() -> None:
        me.server.regress(random.randint(1, 4))

    def amnesia() -> None:
        me.server.forget_lease(SHARD)

    me.log.faults = faults = RandomFaults(
        random, lost_request=0.05, lost_reply=0.05, delay=0.05, mischief=[(0.03, regression), (0.02, amnesia)], budget=60
    )
    turns: list[bytes] = []
    async with anyio.create_task_group() as group:
        group.start_soon(me.writer.keep)
        for number in range(60):
            turn = b"turn %d" % number
            turns.append(turn)
            await me.write(turn, status="sealed" if number == 59 else "active")
            if random.random() < 0.2:
                await me.writer.wait_durable("fsync")
        # What nobody waited for may be lost after the last look.
        await me.writer.wait_durable("fsync")
        group.cancel_scope.cancel()
    assert me.written() == turns, "\n".join(faults.log)
    assert me.client.head(SHARD, RUN).status == "sealed"
    epochs = [event.epoch for _, event in me.writer.take_incidents()]
    assert epochs == sorted(set(epochs)), "\n".join(faults.log)


@pytest.mark.parametrize("seed", seeds(50))
async def test_an_owner_that_dies_anywhere_leaves_whole_turns_to_the_next(seed: int) -> None:
    random = rng("crash", seed)
    server = SimulatedServer()
    turns = [b"turn %d" % number for number in range(20)]
    owners = 0
    while True:
        owners += 1
        me = Owner(server, ttl_s=5, patience_s=1_000)
        me.writer.owner = f"owner-{owners}"
        me.log.faults = RandomFaults(random, crash=0.05 if owners < 20 else 0.0)
        try:
            await me.writer.take(wait_s=60)
            [head] = await me.writer.heads([RUN])
            me.heads[RUN] = head
            for turn in turns[head.seq // 2 :]:
                await me.write(turn, turn)
        except Crash:
            assert len(me.written()) % 2 == 0
            continue
        break
    assert me.written() == [event for turn in turns for event in (turn, turn)]
