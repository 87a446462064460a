"""The scheduler as a process that stays: it owns shared shards and carries out the runs that are asked of them.

One tree of tasks: each shard has an owner's loop of its own, all share an executor and this machine's slots. Schedulers say each
second that they live, so each knows its fair share: it takes shards that are free up to that, and gives others back beyond it:
idle ones, and where it has no slot left, those with the least to end. One that is lost is given up, and waited for again.

A server that is away is waited for without end: runs wait in the log meanwhile, and their attempts go on. Where a scheduler on
another machine may have taken the shards over, they do not: an attempt would run beside its successor.

The first SIGTERM or Ctrl-C drains: no run is taken in and nothing is launched any more, what runs may end, and the shards are
given back. The second one, or the end of the time that draining may take, ends what runs; the next owner starts those tasks again.
"""

import os
import signal
import traceback
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
from anyio import CancelScope

from evflow import aws, diagnostics
from evflow.archives import connect
from evflow.core import versions
from evflow.core.admit import Slots
from evflow.core.events import RunStarted
from evflow.core.ids import RunId
from evflow.core.values import value
from evflow.deployments.claims import claim_again
from evflow.errors import Conflict, EvflowError
from evflow.log import open_event_log
from evflow.log.errors import LogUnavailable
from evflow.log.keys import shared_shards
from evflow.log.owners import host_of, owner_name
from evflow.log.pools import PoolFenced
from evflow.log.protocol import Durability, LeaseHeld
from evflow.log.shard_sets import announced, may_own
from evflow.log.writer import ShardWriter
from evflow_executors.packages import PackagedExecutor
from evflow_executors.places import Places
from evflow_scheduler import archiving, offers
from evflow_scheduler.connection import Connection
from evflow_scheduler.drive import capacity, leaves, only_error
from evflow_scheduler.faceless import Faceless
from evflow_scheduler.pools import PoolsOf
from evflow_scheduler.run import OwnedRun
from evflow_scheduler.shard import Batch, Shard
from evflow_scheduler.shares import Holding, assigned, fair_share, is_superseded, moves
from evflow_scheduler.takeover import TakeOver
from evflow_scheduler.tenancy import Premises, Tenancies, Tenancy
from evflow_scheduler.ticks import look_after

if TYPE_CHECKING:
    from evflow_scheduler.http.health import Condition
    from evflow_scheduler.metrics.census import Census
    from evflow_scheduler.sources import Sources

_AFTER_A_DEFECT_S: Final = 30.0
_AGAIN_AFTER_S: Final = 1.0
"""Before a shard that was lost, or whose server is away, is tried again."""
LEASE_S: Final = 4.0
"""How long the shards of a scheduler that died stay closed to others. A process that sleeps for longer is no owner any more."""
_SAY_EVERY_S: Final = 1.0
_LIVES_FOR_S: Final = 3.0
"""A scheduler that has not said for so long that it lives has no share any more."""
_MIND_EVERY_S: Final = 0.25
"""How often it is looked whether the log still answers: so much later than its leases end its attempts do."""
_ASK_EVERY_S: Final = 0.5
"""How often a shard of this scheduler's share is asked for that another one still owns."""


@value
class Duty:
    """What a scheduler is asked to do.

    Attributes:
        user: Who runs it.
        max_workers: Attempts at once on this machine.
        durability: When an event counts as written.
        warm_bytes: Memory that fork servers without work may keep.
        streams: Redis Streams whose entries are events, as STREAM=EVENT.
        folders: Folders whose new files are, as FOLDER=EVENT.
        queues: Queues of SQS whose messages are, as URL=EVENT.
        buckets: Parts of buckets whose new objects are, as s3://BUCKET/PREFIX=EVENT.
        drain_s: How long attempts may go on after the first signal; None: until they end.
        http: Where it answers HTTP, `HOST:PORT`; None: nowhere.
        hot_for_s: How long the log of a run that is over stays at the server.
        shards: The numbers of the shards that it may own; none: all.
    """

    user: str
    max_workers: int
    durability: Durability
    warm_bytes: int
    drain_s: float | None = None
    streams: Sequence[str] = ()
    folders: Sequence[str] = ()
    queues: Sequence[str] = ()
    buckets: Sequence[str] = ()
    http: str | None = None
    hot_for_s: float = 86_400.0
    shards: Sequence[int] = ()


def serve(duty: Duty) -> None:
    """Be a scheduler until this process is told to end.

    Raises:
        EnvironmentProblem: The log cannot be used at all, or the address of HTTP cannot, or a package is missing.
    """
    if duty.queues or duty.buckets:
        aws.installed("A scheduler with `event_queues` or `event_buckets`")
    face = _face(duty.http)
    try:
        _serve(duty, face)
    finally:
        face.close()


def _face(address: str | None) -> Faceless:
    if address is None:
        return Faceless()
    from evflow_scheduler.http.face import Face  # starlette, uvicorn and prometheus-client take 0.25 s

    return Face(address)


def _serve(duty: Duty, face: Faceless) -> None:
    connection = Connection.begin()
    try:
        url = connection.require(duty.durability)
        if evicting := connection.evicting():
            diagnostics.warning("the log's server evicts", why=evicting)
        client = connect(url)
        try:
            installation = client.installation()
        finally:
            client.close()
        premises = Premises(connection.home, os.uname().nodename, url, installation)
        with only_error():
            anyio.run(Daemon(duty, connection, premises, face).serve)
    finally:
        connection.release()


class Daemon:
    """A scheduler process.

    Args:
        duty: What it is asked to do.
        connection: Where the log is.
        premises: This machine.
        face: What it is measured by, and where it answers.
    """

    def __init__(self, duty: Duty, connection: Connection, premises: Premises, face: Faceless) -> None:
        self._duty = duty
        self._connection = connection
        self._premises = premises
        self._face = face
        self._executor = PackagedExecutor(warm_bytes=duty.warm_bytes)
        self._name = announced(owner_name(), duty.shards, versions.shown(versions.GENERATION))
        self._mine_to_be: frozenset[str] | None = None  # where schedulers may own certain shards only; None: any, up to the share
        self._client = connect(premises.log_url)  # used by one thread at a time
        self._pools = PoolsOf(premises.log_url, connection.restart)
        self._slots = Slots(capacity(duty.max_workers))
        self._shards: dict[str, Shard] = {}
        self._writers: dict[str, ShardWriter] = {}
        self._mine: set[str] = set()  # owned, or about to be
        self._share = 0
        self._owning: dict[str, CancelScope] = {}
        self._since: dict[str, int] = {}  # by shard, an epoch that a pool knows of
        self._rivals = False  # schedulers on other machines live, as far as we last heard
        self._living = 0  # schedulers, as far as we last heard
        self._heard_s = 0.0
        self._waiting: set[CancelScope] = set()
        self._draining = False
        self._sources: Sources | None = None
        self._unarchived_bytes: int | None = None
        self._superseded = False  # a scheduler of a later version lives

    @property
    def log_url(self) -> str:
        """Where the log is."""
        return self._premises.log_url

    async def serve(self) -> None:
        """Own shards until a signal asks for the end."""
        tenancies = Tenancies(self._executor, self._premises)
        diagnostics.info("scheduler begins", host=self._premises.host, pid=os.getpid(), slots=self._slots.capacity.slots)
        try:
            async with anyio.create_task_group() as around:
                around.start_soon(tenancies.watch)
                async with anyio.create_task_group() as owners:
                    around.start_soon(self._heed_signals, owners.cancel_scope)
                    around.start_soon(self._say_that_it_lives)
                    around.start_soon(self._mind_the_silence)
                    around.start_soon(look_after, self._premises, self._owned, self._face.on_offer)
                    around.start_soon(self._face.serve, self)
                    around.start_soon(self._follow_sources)
                    around.start_soon(archiving.look_after, self._premises, self._owned, self._duty.hot_for_s, self._hear_of_backlog)
                    for shard in map(shared_shards().__getitem__, may_own(self._name)):
                        owners.start_soon(self._own, shard, tenancies)
                around.cancel_scope.cancel()
        finally:
            await self._executor.aclose()  # has deadlines of its own
            with CancelScope(shield=True):
                await self._pools.aclose()
            self._client.close()
            diagnostics.info("scheduler ends")

    async def _follow_sources(self) -> None:
        """Publish what comes from elsewhere."""
        duty = self._duty
        if duty.streams or duty.folders or duty.queues or duty.buckets:
            from evflow_scheduler.sources import Sources

            self._sources = Sources(self._premises, duty, self._name, self._owned)
            await self._sources.follow()

    # --- its share -----------------------------------------------------------------------------------------

    async def _say_that_it_lives(self) -> None:
        """Say it each second, and own a fair share."""
        self._heard_s = anyio.current_time()
        while not self._draining:
            asked_s = anyio.current_time()
            try:
                living = await anyio.to_thread.run_sync(self._client.schedulers, self._name, _LIVES_FOR_S)
            except LogUnavailable as error:
                diagnostics.debug("nobody can be asked which schedulers live", why=str(error))
            else:
                self._heard_s, self._living = asked_s, len(living)
                self._rivals = any(host_of(name) != self._premises.host for name in living)
                self._note_version(is_superseded(self._name, living))
                mine = assigned(self._name, living)
                self._own_at_most(fair_share(len(living)) if mine is None else len(mine), mine)
            await self._pause(_SAY_EVERY_S)
        with suppress(LogUnavailable):  # it is forgotten soon enough
            await anyio.to_thread.run_sync(self._client.schedulers, self._name, 0.0)

    def _note_version(self, superseded: bool) -> None:
        if superseded and not self._superseded:
            diagnostics.warning("a scheduler of a later version lives: shards are handed over to it")
        self._superseded = superseded

    def _own_at_most(self, share: int, mine: frozenset[str] | None) -> None:
        if (share, mine) != (self._share, self._mine_to_be):
            diagnostics.info(
                "share changes", shards=share, owned=len(self._mine), **({} if mine is None else {"which": " ".join(sorted(mine))})
            )
            self._share, self._mine_to_be = share, mine
            for scope in self._waiting:  # those that wait for a shard look at once
                scope.cancel()
        held = {name: Holding(shard.live, shard.draining) for name, shard in self._shards.items()}
        told = moves(
            held,
            len(self._mine) - share,
            has_room=bool(self._slots.unused) and not self._superseded,
            strange=[name for name in held if not self._is_due(name)],
        )
        for name in told.leave:
            diagnostics.info("shard is to be another scheduler's", shard=name, attempts=held[name].live)
            self._shards[name].drain()
        for name in told.stay:
            self._shards[name].stay()

    def _is_due(self, shard: str) -> bool:
        """Whether the shard is one of its share."""
        return self._mine_to_be is None or shard in self._mine_to_be

    async def _mind_the_silence(self) -> None:
        """Give shards up whose leases have run out unheard, where there are others to take them.

        Who waits for an answer cannot do it: where connections hang, that takes as long as `log_timeout` says.
        """
        while True:
            await anyio.sleep(_MIND_EVERY_S)
            lost = [shard for shard, age_s in self._lease_ages_s().items() if age_s > LEASE_S and shard in self._owning]
            if self._rivals and lost:
                diagnostics.warning("the log is out of reach, and other schedulers live: shards given up", shards=len(lost))
                for shard in lost:
                    self._owning[shard].cancel()

    # --- what it says of itself ----------------------------------------------------------------------------

    def condition(self) -> "Condition":
        """How it is now, for those who ask whether it is ready."""
        from evflow_scheduler.http.health import Condition

        silent_s = anyio.current_time() - self._heard_s
        due = None if self._mine_to_be is None else len(self._mine_to_be)
        return Condition(len(self._shards), self._living, silent_s, _LIVES_FOR_S, self._lease_ages_s(), LEASE_S, self._draining, due)

    def census(self) -> "Census":
        """It in numbers, for those who measure it."""
        from evflow_scheduler.metrics.census import census

        counted = census(self._share, self._lease_ages_s(), self._slots, self._shards, self._executor, self._pools.said)
        counted = replace(counted, unarchived_bytes=self._unarchived_bytes)
        return replace(counted, sources=self._sources.now) if self._sources is not None else counted

    def _hear_of_backlog(self, size_bytes: int | None) -> None:
        self._unarchived_bytes = size_bytes

    def _lease_ages_s(self) -> dict[str, float]:
        return {shard: writer.lease_age_s for shard, writer in sorted(self._writers.items())}

    # --- its end -------------------------------------------------------------------------------------------

    async def _heed_signals(self, owners: CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                name = signal.Signals(number).name
                if self._draining:
                    diagnostics.info("scheduler stops now", signal=name)
                    owners.cancel()
                else:
                    self._drain(name)
                    if self._duty.drain_s is not None:
                        owners.deadline = anyio.current_time() + self._duty.drain_s

    def _drain(self, why: str) -> None:
        diagnostics.info("scheduler drains", signal=why, attempts=len(self._slots.taken))
        self._draining = True
        for scope in self._waiting:
            scope.cancel()
        for shard in self._shards.values():
            shard.drain()

    async def _own(self, shard: str, tenancies: Tenancies) -> None:
        """Own a shard whenever nobody else does."""
        while not self._draining:
            try:
                with CancelScope() as scope:
                    self._owning[shard] = scope
                    await self._own_once(shard, tenancies)
            except* (Conflict, LogUnavailable) as group:
                errors = list(leaves(group))
                diagnostics.warning("shard given up", shard=shard, why=str(errors[0]))
                # Of a newer owner, or of one that the server has forgotten while its clock went back.
                told = [error.epoch for error in errors if isinstance(error, PoolFenced)]
                self._since[shard] = max([self._since.get(shard, 0), *told])
                await self._pause(_AGAIN_AFTER_S)
                await self._revive()
            except* Exception as group:  # noqa: BLE001 - a defect must not take the runs of other shards along; it is told
                text = "".join(traceback.format_exception(group))
                diagnostics.warning("shard given up because of a defect of evflow; please report it", shard=shard, traceback=text)
                await self._pause(_AFTER_A_DEFECT_S)
            finally:
                self._owning.pop(shard, None)

    async def _revive(self) -> None:
        """Bring the embedded server back, where it is ours and does not answer."""
        if self._connection.restart is not None:
            try:
                await self._connection.restart()
            except EvflowError as error:
                diagnostics.warning("the embedded server does not come back", why=str(error))

    # --- its shards ----------------------------------------------------------------------------------------

    async def _pause(self, seconds: float) -> None:
        with CancelScope() as scope:
            self._waiting.add(scope)
            try:
                await anyio.sleep(seconds)
            finally:
                self._waiting.discard(scope)

    async def _own_once(self, shard: str, tenancies: Tenancies) -> None:
        log = await open_event_log(self._premises.log_url)
        writer = self._face.writer(log, shard, ttl_s=LEASE_S, restart=self._connection.restart, claim=self._claim)
        try:
            if not await self._take(writer):
                return
            try:
                await self._serve(writer, tenancies)
            finally:
                self._mine.discard(writer.shard)
                with CancelScope(shield=True):  # has a deadline of its own
                    await writer.release()
        finally:
            with CancelScope(shield=True):
                await log.aclose()

    async def _claim(self, run: RunId, first: bytes) -> str:
        """Claim a run's number that the server may have lost; see `evflow.deployments.claims`."""

        def ask() -> str:
            with closing(connect(self._premises.log_url)) as client:
                return claim_again(client, run, first)

        return await anyio.to_thread.run_sync(ask)

    async def _take(self, writer: ShardWriter) -> bool:
        """Wait for the shard; False when the scheduler is drained before."""
        while not self._draining:
            if len(self._mine) < self._share and self._is_due(writer.shard):
                self._mine.add(writer.shard)
                taken = False
                try:
                    await writer.take(since=self._since.get(writer.shard, 0))
                    taken = True
                except LeaseHeld:
                    pass  # asked again below
                finally:
                    if not taken:
                        self._mine.discard(writer.shard)
                if taken:
                    return True
            await self._pause(_ASK_EVERY_S)
        return False

    async def _serve(self, writer: ShardWriter, tenancies: Tenancies) -> None:
        async with anyio.create_task_group() as group:
            tenancy = tenancies.begin(writer.shard, group, self._pools.waits(writer))
            places = Places(tenancy, lambda name: self._pools.executor(name, writer, tenancy.context_elsewhere, live=False))
            try:
                group.start_soon(writer.keep)
                observer = self._face.observer(writer)
                shard = Shard(writer, places, self._slots, observer, self._duty.durability, tenancy)
                first = await self._take_over(shard, writer, tenancy, places)
                self._shards[writer.shard], self._writers[writer.shard] = shard, writer
                if self._draining:
                    shard.drain()
                await shard.serve(first)
            finally:
                self._give_up(writer.shard)
                with CancelScope(shield=True):  # both have deadlines of their own
                    await places.leave_others()
                    await tenancy.end()
            group.cancel_scope.cancel()

    async def _take_over(self, shard: Shard, writer: ShardWriter, tenancy: Tenancy, places: Places) -> Batch:
        """Load the shard's runs. One that nobody can go on with is set aside, and hinders no other."""

        def set_aside(run: OwnedRun, error: Exception) -> None:
            diagnostics.warning("run set aside", run=run.id, why=str(error))
            shard.aside.add(str(run.id))

        runs = [OwnedRun(run) for run in await writer.active()]
        first = await TakeOver(self._premises.host, self._duty.user).of(
            runs, writer, tenancy, set_aside, elsewhere=places, on_loaded=lambda run: tenancy.resume(RunStarted(**run.state.header))
        )
        for run in runs:
            if str(run.id) in shard.aside:
                continue
            started = RunStarted(**run.state.header)
            try:
                offers.check(started, writer.shard)
            except offers.OfferUnfit as error:  # begun by a scheduler that did not look
                set_aside(run, error)
                tenancy.dismiss(run.id)
            else:
                tenancy.resume(started)
                shard.add(run)
        return first

    def _owned(self) -> frozenset[str]:
        return frozenset(self._shards)

    def _give_up(self, name: str) -> None:
        shard = self._shards.pop(name, None)
        self._writers.pop(name, None)
        if shard is not None:
            for attempt in [attempt for attempt in self._slots.taken if attempt.run in shard.runs]:
                self._slots.free(attempt)
            for other in self._shards.values():
                other.look_again()
