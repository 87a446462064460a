"""The writer of a shard: an `EventLog`, the shard's lease, and what is done when the server goes away or goes back.

The rules (what may happen between them is in `docs/decisions/0012-what-the-writer-repeats.md`):

* A call whose reply was lost is sent again: the server answers a repeat as it answered the first.
* A server that is away is waited for, with growing pauses, up to `patience_s`; `restart` may bring it back.
* Whole calls are kept until they are as durable as asked. After every new connection the ends of the logs are
  compared with what was written; what the server has lost is written again under a new epoch, and an incident is
  recorded for the owner to put into the log.
* Where somebody else wrote, or holds the lease, the writer stops for good: every later call raises.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import anyio

from evflow import diagnostics
from evflow.core.events import LogRegressed
from evflow.core.ids import Micros, RunId
from evflow.errors import Conflict
from evflow.log.commands import after
from evflow.log.errors import LogUnavailable, LogUnreachable
from evflow.log.protocol import (
    KEEP,
    AppendCall,
    Durability,
    EventLog,
    Head,
    HeadMoved,
    Inbound,
    Keep,
    Lease,
    LeaseHeld,
    LeaseLost,
    RunEntry,
    StoredEvent,
)

T = TypeVar("T")
LEASE_S = 15.0
"""How long a dead owner's shard stays closed to others. Renewed three times in it."""
PATIENCE_S = 120.0
"""How long a server may be away before the owner gives up; its run can be continued then."""
KEPT_S = 5.0
"""How long an `everysec` call counts as not yet on disk: the server may be two seconds late, and its clock ours."""
KEPT_BYTES = 64_000_000
_PAUSES_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def _now_s() -> float:
    """The loop's clock. It is anyio's as well, which looks each time which kind of loop there is."""
    return asyncio.get_running_loop().time()


class LogLostTooMuch(Conflict):
    """The server lost events that nobody holds any more."""

    code = "log-lost-too-much"

    def __init__(self, run: RunId, written: int, found: int, kept_from: int) -> None:
        super().__init__(
            f"The log of '{run}' ended at event {written} and now ends at {found}: the server lost its tail, and its owner "
            f"holds only the events from {kept_from} on.",
            "Restore the server's data, or choose a stronger `--durability` for the next run.",
        )


class RunNumberTaken(Conflict):
    """The server lost a whole run and its request, and the flow's log says that another run goes on in its place."""

    code = "run-number-taken"

    def __init__(self, run: RunId, why: str) -> None:
        super().__init__(f"The run '{run}' is given up: {why}.", f"`evflow why-not {run.flow} --at TIME` says what became of it.")
        self.run = run


class Incident(NamedTuple):
    """Something that happened to a run's log, for its owner to append as a fact."""

    run: RunId
    event: LogRegressed


class _Kept(NamedTuple):
    """A call that the server accepted and may still lose."""

    call: AppendCall
    number: int
    at_s: float
    size: int


class ShardWriter:
    """Writes one shard. One `append` at a time; anything else may go on beside it.

    Args:
        log: The log; the writer does not close it.
        shard: The shard.
        owner: A random name of this owner, never used before.
        ttl_s: The lease's time to live.
        patience_s: How long the server may be away.
        restart: Brings the server back, where the caller can (the embedded one). Called when nobody listens.
        on_trouble: Hears of each try that failed: the error, and how long the server has been away.
        events_kept: How much of what is published is kept.
        claim: Asked before a run is written again from its first event: claims its number, and answers why it must be given up, or nothing.
    """

    def __init__(
        self,
        log: EventLog,
        shard: str,
        owner: str,
        *,
        ttl_s: float = LEASE_S,
        patience_s: float = PATIENCE_S,
        restart: Callable[[], Awaitable[None]] | None = None,
        on_trouble: Callable[[LogUnavailable, float], None] | None = None,
        events_kept: Keep = KEEP,
        claim: Callable[[RunId, bytes], Awaitable[str]] | None = None,
    ) -> None:
        self.shard = shard
        self.owner = owner
        self.incidents: list[Incident] = []
        self.log = log
        self._ttl_s = ttl_s
        self._patience_s = patience_s
        self._restart = restart
        self._on_trouble = on_trouble
        self._events_kept = events_kept
        self._claim = claim
        self._lease: Lease | None = None
        self._leased_s = 0.0
        self._generation = 0
        self._repairs = 0  # begun, and ended
        self._proven_epoch = 0
        self._heads: dict[RunId, Head] = {}
        self._known: set[RunId] = set()
        self._knows_all = False
        self._kept: deque[_Kept] = deque()
        self._kept_bytes = 0
        self._number = 0
        self._waits = False
        self._pending: AppendCall | None = None
        self._stopped: Conflict | None = None
        self._writing = asyncio.Lock()  # taken for each append: anyio's costs three times as much
        self._restarting = anyio.Lock(fast_acquire=True)

    @property
    def lease(self) -> Lease:
        """The lease; it changes when the shard had to be taken anew."""
        if self._lease is None:
            raise RuntimeError("The shard is not taken yet.")
        return self._lease

    @property
    def epoch(self) -> int:
        """The epoch under which the log was last seen to be as this owner left it: the one by which others are told anything.

        A lease that was taken anew is not proven yet: while its owner slept another one may have come, done all that was left, and gone.
        """
        return self._proven_epoch

    @property
    def lease_age_s(self) -> float:
        """Seconds since the lease was last taken or asked to be renewed, of those times that were answered."""
        return _now_s() - self._leased_s

    # --- the lease ---------------------------------------------------------------------------------------

    async def take(self, wait_s: float = 0.0, since: int = 0) -> Lease:
        """Become the shard's owner, waiting up to `wait_s` for a former owner's lease to end.

        Args:
            wait_s: That long, in seconds.
            since: The latest epoch of the shard that is known; the new one is behind it, also where the server has forgotten that one.

        Raises:
            LeaseHeld: It has a living owner.
            LogUnavailable: The server cannot be used.
        """
        deadline_s = _now_s() + wait_s
        while True:
            try:
                self._lease = await self.patiently(partial(self.log.take, self.shard, self.owner, self._ttl_s, since))
            except LeaseHeld as held:
                left_s = deadline_s - _now_s()
                if left_s <= 0:
                    raise
                await anyio.sleep(min(left_s, max(held.expires_in_s, 0.01)))
            else:
                self._generation, self._leased_s = self.log.generation, _now_s()
                self._proven_epoch = self._lease.epoch
                diagnostics.info("shard taken", shard=self.shard, epoch=self._lease.epoch)
                return self._lease

    async def keep(self) -> None:
        """Renew the lease for ever; run it in a task group beside the shard's loop.

        Raises:
            LeaseLost: The shard has another owner: the loop must stop.
            HeadMoved: As for `append`.
            LogUnavailable: The server was away for too long.
        """
        while True:
            await anyio.sleep(self._ttl_s / 3)
            lease, asked_s = self.lease, _now_s()
            try:
                await self.patiently(partial(self.log.renew, lease))
            except LeaseLost as lost:
                async with self._writing:
                    # An append may have found it out and taken the shard anew.
                    if self._lease is lease:
                        self._check()
                        self._refuse_a_rival(lost)
                        await self._repair(fence=True)
            else:
                self._leased_s = max(self._leased_s, asked_s)  # the answer may have taken its time
            await self._repair_after_reconnection()

    async def release(self) -> None:
        """Give the shard back. A server that is away is left alone: the lease ends by itself."""
        if self._lease is not None:
            try:
                await self.log.release(self._lease)
            except LogUnavailable:
                return

    # --- writing -----------------------------------------------------------------------------------------

    async def append(self, call: AppendCall) -> Head:
        """Append whole turns: see `EventLog.append`. Repeats what may be repeated.

        Raises:
            LeaseLost: The shard has another owner; the writer has stopped.
            HeadMoved: Somebody else wrote; the writer has stopped.
            LogLostTooMuch: The server lost more than the writer kept; the writer has stopped.
            LogUnavailable: The server was away for too long, or refuses for good.
        """
        self._known.add(call.run)
        async with self._writing:
            self._pending = call
            while True:
                self._check()
                try:
                    head = await self.patiently(partial(self.log.append, self.lease, call))
                except LeaseLost as lost:
                    self._refuse_a_rival(lost)
                    await self._repair(fence=True)
                except HeadMoved as moved:
                    self._refuse_a_rival_s_events(call, moved)
                    await self._repair()
                else:
                    self._keep(call, head)
                    if self.log.generation != self._generation:
                        await self._repair()
                    return head

    async def wait_durable(self, level: Durability) -> None:
        """Return when everything appended before is as durable as the level says.

        Raises:
            NotDurable: The server cannot do that.
            LogUnavailable: The server was away for too long.
        """
        if level == "everysec":
            return
        self._waits = True
        while True:
            written, before = self._number, (self._generation, self._repairs)
            await self.patiently(partial(self.log.wait_durable, level))
            async with self._writing:  # a repair that is under way writes behind what was waited for
                pass
            if (self.log.generation, self._repairs) == before:
                while self._kept and self._kept[0].number <= written:
                    self._forget()
                return
            # A new connection, or something was written again: what was waited for may not be all that was written.
            await self._repair_after_reconnection()

    async def index_run(self, entry: RunEntry) -> None:
        """Write a run's line in the index of runs."""
        await self.patiently(partial(self.log.index_run, entry))

    async def publish(self, event_id: str, body: bytes) -> None:
        """Publish an event; of one id one event is published, however often this is repeated."""
        await self.patiently(partial(self.log.publish, event_id, body, self._events_kept))

    # --- reading -----------------------------------------------------------------------------------------

    async def receive(self, after: bytes, timeout_s: float) -> list[Inbound]:
        """The shard's reports behind entry `after`: see `EventLog.receive`."""
        return await self._patiently(partial(self.log.receive, self.shard, after, timeout_s), waits=True)

    async def heads(self, runs: Sequence[RunId]) -> list[Head]:
        """The ends of runs' logs, in order."""
        self._known.update(runs)
        return await self.patiently(partial(self.log.heads, self.shard, runs))

    async def read(self, run: RunId, after: int = 0, limit: int = 5_000) -> list[StoredEvent]:
        """Events of a run behind position `after`."""
        self._known.add(run)
        return await self.patiently(partial(self.log.read, self.shard, run, after, limit))

    async def active(self) -> list[RunId]:
        """The shard's runs that are not sealed."""
        active = await self.patiently(partial(self.log.active, self.shard))
        self._known.update(active)
        self._knows_all = True
        return active

    def now_us(self) -> Micros:
        """The writer's clock set to the server's."""
        return self.log.clock_us()

    def take_incidents(self) -> list[Incident]:
        """What happened to the logs since the last call."""
        incidents, self.incidents = self.incidents, []
        return incidents

    # --- what was written and may be lost ----------------------------------------------------------------

    def _keep(self, call: AppendCall, head: Head) -> None:
        self._heads[call.run] = head
        now_s = _now_s()
        size = sum(map(len, call.events)) + sum(map(len, call.consumed))
        self._number += 1
        self._kept.append(_Kept(call, self._number, now_s, size))
        self._kept_bytes += size
        # Where somebody waits for the disk or a replica, that wait's end is what lets go.
        horizon_s = 0.0 if self._waits else now_s - KEPT_S
        while self._kept and (self._kept[0].at_s < horizon_s or self._kept_bytes > KEPT_BYTES):
            self._forget()

    def _forget(self) -> None:
        kept = self._kept.popleft()
        self._kept_bytes -= kept.size
        if kept.call.status == "sealed":
            # Nothing follows a seal.
            self._heads.pop(kept.call.run, None)
            self._known.discard(kept.call.run)

    async def _repair_after_reconnection(self) -> None:
        if self.log.generation != self._generation:
            async with self._writing:
                await self._repair()

    async def _repair(self, *, fence: bool = False) -> None:
        """Bring the server back to what was written, under the lock of writing.

        Args:
            fence: Take the shard anew first, because the server does not know our lease.
        """
        self._repairs += 1
        try:
            await self._mend(fence=fence)
        finally:
            self._repairs += 1

    async def _mend(self, *, fence: bool) -> None:
        """One repair; it begins again where the server goes away in the middle of it."""
        taken: RunNumberTaken | None = None
        while True:
            generation = self.log.generation
            try:
                if fence:
                    await self._take_again()
                for run, written in list(self._heads.items()):
                    found = await self.patiently(partial(self.log.head, self.shard, run))
                    if found != written and not self._is_pending(run, found):
                        try:
                            await self._write_again(run, written, found)
                        except RunNumberTaken as one:
                            taken = one
            except LeaseLost as lost:
                self._refuse_a_rival(lost)
                fence = True
                continue
            if fence or self._knows_all:
                await self._refuse_unknown_runs()
            if self.log.generation == generation:
                self._generation, self._proven_epoch = generation, self.lease.epoch
                if taken is not None:  # what else was lost is there again: whoever takes the shard next goes on with all but this run
                    raise self._stop(taken)
                return
            fence = False

    async def _refuse_unknown_runs(self) -> None:
        """Stop where the shard has runs that are not known here; whoever takes it next goes on with them.

        Somebody owned it meanwhile, and the server forgot who. Or a run is back that was over, since the server has lost its end.
        """
        active = await self.patiently(partial(self.log.active, self.shard))
        if not self._known.issuperset(active):
            raise self._stop(LeaseLost(self.shard, ""))

    def _is_pending(self, run: RunId, found: Head) -> bool:
        """Whether the log ends with the call that is under way: it arrived, and its reply was lost."""
        return self._pending is not None and self._pending.run == run and after(self._pending) == found

    async def _write_again(self, run: RunId, written: Head, found: Head) -> None:
        if found.seq >= written.seq:
            raise self._stop(HeadMoved(run, written, found))
        kept = [kept for kept in self._kept if kept.call.run == run]
        calls = [one.call for one in kept]
        missing = [call for call in calls if call.expected.seq >= found.seq]
        if not missing or missing[0].expected != found:
            if written.status == "sealed" and (not kept or kept[-1].at_s < _now_s() - KEPT_S):
                self._heads.pop(run)  # It is over for so long that nothing of it would be kept, had anything followed.
                self._known.discard(run)
                diagnostics.warning("the server has lost a run that was over", run=run, seq=written.seq, found=found.seq)
                return
            kept_from = calls[0].expected.seq + 1 if calls else written.seq + 1
            raise self._stop(LogLostTooMuch(run, written.seq, found.seq, kept_from))
        if found.seq == 0 and self._claim is not None and missing[0].events:
            claim = self._claim
            why = await self.patiently(partial(claim, run, missing[0].events[0]))
            if why:
                diagnostics.warning("run given up", run=run, why=why)
                self._heads.pop(run)
                raise RunNumberTaken(run, why)
        # Under a new epoch: whoever was told of the old one is fenced off.
        await self._take_again()
        for call in missing:
            try:
                await self.patiently(partial(self.log.append, self.lease, call))
            except HeadMoved as moved:
                self._refuse_a_rival_s_events(call, moved)
                return  # Lost once more, within this connection or another: the next look finds it.
        diagnostics.warning("lost events written again", run=run, seq=written.seq, lost_from=found.seq + 1, epoch=self.lease.epoch)
        self.incidents.append(Incident(run, LogRegressed(found.seq + 1, written.seq, self.lease.epoch)))

    async def _take_again(self) -> None:
        try:
            self._lease = await self.patiently(partial(self.log.take, self.shard, self.owner, self._ttl_s, self.lease.epoch))
            self._leased_s = _now_s()
        except LeaseHeld as held:
            raise self._stop(LeaseLost(self.shard, held.owner, held.epoch)) from None

    def _refuse_a_rival(self, lost: LeaseLost) -> None:
        """Stop where somebody took the lease after us, and may have let go of it since.

        A lease from before ours, or none at all, is what a server that went back knows.
        """
        held, mine = lost.epoch, self.lease.epoch
        if lost.owner != self.owner and (held > mine or (held == mine and lost.owner)):
            raise self._stop(lost) from None

    def _refuse_a_rival_s_events(self, call: AppendCall, moved: HeadMoved) -> None:
        """Stop where the log holds what we never wrote; where it ends before our end, the server has lost some."""
        written = self._heads.get(call.run)
        if written is None or moved.found.seq >= min(written.seq, call.expected.seq):
            raise self._stop(moved) from None

    def _stop(self, why: Conflict) -> Conflict:
        self._stopped = why
        return why

    def _check(self) -> None:
        if self._stopped is not None:
            raise self._stopped

    # --- a server that is away ---------------------------------------------------------------------------

    async def patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Carry `act` out, again and again while the server is away and patience lasts; only what may be repeated.

        Raises:
            LogUnavailable: The server was away for too long, or refuses for good.
        """
        return await self._patiently(act, waits=False)

    async def _patiently(self, act: Callable[[], Awaitable[T]], *, waits: bool) -> T:
        """As `patiently`; what `waits` at the server for something to come says nothing of how long that was away, before it fails."""
        began_s = None if waits else _now_s()
        tries = 0
        while True:
            try:
                return await act()
            except LogUnavailable as error:
                if began_s is None:
                    began_s = _now_s()
                away_s = _now_s() - began_s
                if not error.transient or away_s >= self._patience_s:
                    raise
                diagnostics.info("server away", shard=self.shard, why=error.code, away_s=round(away_s, 3), tries=tries + 1)
                if self._on_trouble is not None:
                    self._on_trouble(error, away_s)
                if self._restart is not None and isinstance(error, LogUnreachable):
                    async with self._restarting:
                        await self._restart()
            await anyio.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1
