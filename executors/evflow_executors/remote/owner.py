"""What the executor of a platform needs of the shard's owner: its runs' contexts, its lease, its store, its inbox."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any, Final

import anyio
import anyio.to_thread

from evflow import diagnostics
from evflow.core.codec import decode_report
from evflow.core.events import AttemptExited
from evflow.core.ids import AttemptId, RunId
from evflow.errors import EvflowError
from evflow.log import commands
from evflow.log.link import Link
from evflow.store import StoreUnusable, open_store
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.pool_orders import NoPackage
from evflow_executors.remote import meeting, reports, sheets
from evflow_executors.remote.command import MOST_ORDER_BYTES, ContainerSettings, command_of, packed_order
from evflow_executors.remote.names import LABELS, NODES_LABEL, labels, run_prefix
from evflow_executors.remote.platform import Job, JobSeen
from evflow_executors.remote.provision import container_settings, keep_framework
from evflow_executors.remote.records import is_away

PATIENCE_S: Final = 120.0
"""How long the log may be away; as for the writer of a shard."""
STORE_PATIENCE_S: Final = 900.0
"""How long a store may be away that holds what a container reported; as a platform for a submit."""
MOST_FAILURES: Final = 10
"""How often such a report is read where the store is there, and does not give it."""
AGAIN_S = 0.5
"""Half the pause before the second try; each is twice the one before, up to ten seconds."""
AT_ONCE: Final = 16
"""How many reports are fetched at once: each that waits for a store takes a thread, of which this process has 40."""
LONGEST_S: Final = 5 * 86_400.0
"""How long a job may run whose step has no `@timeout`: Metaflow's DEFAULT_RUNTIME_LIMIT."""
TIMEOUT_MARGIN_S: Final = 300.0
"""A step with a `@timeout` is ended by the run's owner. The platform ends what no owner is left for: so much later, its image and packages counted in."""

RUNS_KEPT: Final = 2_000
"""Contexts of runs that are kept, of a kilobyte each."""

ASKED: Final = "asked"
"""The option of a run's context that holds what its steps' decorators ask of platforms, by step."""


class OwnerDispatch:
    """The dispatch of one owner of one shard; see `records.Dispatch`.

    Args:
        link: The log; the caller closes it.
        shard: The shard.
        owner: The name of its owner: this process.
        epoch: Its epoch of now.
        context_of: What the attempts of a run share.
        secrets: The variables that the platform takes from its secrets.
        how: How that is told to it, for the error.
    """

    def __init__(
        self,
        link: Link,
        shard: str,
        owner: str,
        epoch: Callable[[], int],
        context_of: Callable[[RunId], RunContext],
        *,
        secrets: Collection[str] = (),
        how: str = "",
    ) -> None:
        self._epoch = epoch
        self._link = link
        self._shard = shard
        self._owner = owner
        self._context_of = context_of
        self._contexts: dict[RunId, RunContext] = {}  # a job may end after its run, which its owner has forgotten by then
        self._secrets = secrets
        self._how = how
        self._settings: dict[str, ContainerSettings] = {}
        self._turns: dict[str, asyncio.Lock] = {}  # by store: one thread makes jobs, or waits for a store that is away
        self._away: dict[str, tuple[float, StoreUnusable]] = {}  # by store: when it was found so, by the loop's clock
        self._fetching = asyncio.Semaphore(AT_ONCE)

    @property
    def epoch(self) -> int:
        """The owner's epoch of now."""
        return self._epoch()

    def _context(self, run: RunId) -> RunContext:
        found = self._contexts.get(run)
        if found is None:
            while len(self._contexts) >= RUNS_KEPT:
                del self._contexts[next(iter(self._contexts))]
            found = self._contexts[run] = self._context_of(run)
        return found

    def log_of(self, attempt: AttemptId) -> str:
        """The identity of the log, for names."""
        return str(self._context(attempt.run).options.get("installation", ""))

    def store_of(self, attempt: AttemptId) -> str:
        """The URL of the store of the attempt's run."""
        return self._context(attempt.run).store_url

    async def jobs(self, orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> Mapping[str, Job | EvflowError]:
        """What is to be submitted, by name; the error where there cannot be such a job. All of their runs have one store."""
        if not orders:
            return {}
        return await self._made(self.store_of(orders[0][1]), [name for name, _, _ in orders], partial(self._jobs, orders))

    async def gang(self, name: str, orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> Job | EvflowError:
        """A gang as it is to be submitted, with its nodes as jobs of their own; the error where there cannot be such jobs."""
        return (await self._made(self.store_of(orders[0][1]), [name], lambda: {name: self._gang(name, orders)}))[name]

    async def _made(
        self, store_url: str, names: Sequence[str], make: Callable[[], Mapping[str, Job | EvflowError]]
    ) -> Mapping[str, Job | EvflowError]:
        """What a thread makes of orders. A store that was found to be away while this waited for its turn is not asked once more: that takes long."""
        since_s = anyio.current_time()
        async with self._turns.setdefault(store_url, asyncio.Lock()):
            found_s, away = self._away.get(store_url, (-inf, None))
            if away is not None and found_s >= since_s:
                return dict.fromkeys(names, away)
            made = await anyio.to_thread.run_sync(make, abandon_on_cancel=True)
            if (away := next(filter(is_away, made.values()), None)) is not None:
                self._away[store_url] = (anyio.current_time(), away)
            return made

    async def is_owner(self) -> bool:
        """Whether the shard is still this process's; nobody else has it where its lease has run out."""
        held = await self._link.repeated(commands.lease_owner(self._shard), PATIENCE_S)
        return held is None or held[0] == self._owner

    async def carry(self, attempt: AttemptId, *, unless: str, tell: Callable[[str], None]) -> None:
        """Bring what the container left in the store into the inbox, but for an exit with this reason. A store or a log that is away is waited for."""
        context = self._contexts.get(attempt.run)
        if context is None:
            return  # so many runs were begun since that this one is long over
        payloads = await self._left(context, attempt, tell)
        for payload in payloads:
            event, _ = decode_report(payload)
            if unless and isinstance(event, AttemptExited) and event.why == unless:
                continue
            await self._link.repeated(commands.report(self._shard, attempt.run, payload), PATIENCE_S)
        if payloads:
            try:
                await anyio.to_thread.run_sync(reports.remove, context.store_url, attempt, abandon_on_cancel=True)
            except EvflowError as error:  # it is in the way of nothing
                diagnostics.info("a file of reports stays in the store", attempt=str(attempt), why=error.message)

    async def write_sheet(self, run: RunId, members: Sequence[str], own: Sequence[Mapping[str, str]]) -> bytes:
        """See `platform.Sheets`."""
        return await anyio.to_thread.run_sync(sheets.write, open_store(self._context(run).store_url), members, own)

    async def sheet_members(self, prefix: str, digest: bytes, size: int) -> Sequence[str] | None:
        """See `platform.Sheets`."""
        store_url = self._store_of(prefix)
        if store_url is None:
            return None
        return await anyio.to_thread.run_sync(sheets.members_if_there, store_url, digest, size, prefix)

    async def keep(self, waiting: Mapping[AttemptId, frozenset[bytes]]) -> bool:
        """See `records.Dispatch`."""
        return await anyio.to_thread.run_sync(self._keep, waiting)

    def _keep(self, waiting: Mapping[AttemptId, frozenset[bytes]]) -> bool:
        by_store: dict[str, set[bytes]] = {}
        for attempt, digests in waiting.items():
            if (context := self._contexts.get(attempt.run)) is not None:  # else so many runs were begun since that this one is long over
                by_store.setdefault(context.store_url, set()).update(digests)
        is_done = True
        for store_url, needed in by_store.items():
            try:
                keep_framework(store_url)
                store = open_store(store_url)
                gone = [store.where(digest) for digest in sorted(needed) if not store.confirm(digest)]
            except EvflowError as error:
                diagnostics.warning(
                    "what waiting jobs will read could not be kept from being collected", store=store_url, why=error.message
                )
                is_done = False
                continue
            if gone:
                diagnostics.warning("what waiting jobs will read is not in the store", store=store_url, objects=len(gone), first=gone[0])
        return is_done

    def _store_of(self, prefix: str) -> str | None:
        """The store of the run whose jobs' names begin so, where the run is known."""
        for run, context in list(self._contexts.items()):  # a thread that makes jobs may add to them
            if run_prefix(str(context.options.get("installation", "")), run) == prefix:
                return context.store_url
        return None

    def is_ours(self, seen: JobSeen) -> bool:
        """Whether a job is of this shard."""
        return seen.labels.get(LABELS[1]) == self._shard

    def asked_by(self, attempts: Sequence[AttemptId]) -> Sequence[Mapping[str, Any]]:
        """What the steps of these attempts' runs ask of platforms."""
        return [asked for run in {attempt.run for attempt in attempts} for asked in self._context(run).options.get(ASKED, {}).values()]

    async def forget_gang(self, control: AttemptId) -> None:
        """Remove what the nodes of a gang told each other by the store; it is in the way of nothing."""
        context = self._contexts.get(control.run)
        if context is None:
            return
        try:
            await anyio.to_thread.run_sync(meeting.remove, context.store_url, control, abandon_on_cancel=True)
        except EvflowError as error:
            diagnostics.info("the address of a gang's node 0 stays in the store", attempt=str(control), why=error.message)

    async def _left(self, context: RunContext, attempt: AttemptId, tell: Callable[[str], None]) -> Sequence[bytes]:
        failures, deadline_s = 0, anyio.current_time() + STORE_PATIENCE_S
        while True:
            try:
                async with self._fetching:
                    return await anyio.to_thread.run_sync(reports.take, context.store_url, attempt, abandon_on_cancel=True)
            except EvflowError as error:
                failures += 1
                waits = is_away(error) and anyio.current_time() < deadline_s
                if waits:
                    tell(f"the store {context.store_url} is away, or busy, and what containers reported is there. It is tried again.")
                if failures >= MOST_FAILURES and not waits:
                    diagnostics.warning("what a container reported cannot be read", attempt=str(attempt), why=error.message)
                    return ()
                await anyio.sleep(min(10.0, AGAIN_S * 2**failures))

    def _jobs(self, orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> Mapping[str, Job | EvflowError]:
        found: dict[str, Job | EvflowError] = {}
        away: EvflowError | None = None
        for name, attempt, order in orders:
            try:
                found[name] = away or self._job(name, attempt, order)
            except EvflowError as error:
                found[name] = error
                away = error if is_away(error) else None  # the others would meet the same, each after its own wait
        return found

    def _gang(self, name: str, orders: Sequence[tuple[str, AttemptId, AttemptOrder]]) -> Job | EvflowError:
        try:
            nodes = [self._job(node, attempt, order) for node, attempt, order in orders]
            whole = self._job(name, orders[0][1], *(order for _, _, order in orders))
        except EvflowError as error:
            return error
        return replace(whole, labels={**whole.labels, NODES_LABEL: str(len(nodes))}, nodes=nodes)

    def _job(self, name: str, attempt: AttemptId, order: AttemptOrder, *others: AttemptOrder) -> Job:
        """The job of an attempt; with the orders of others that of a gang, whose node 0 it is."""
        context = self._context(attempt.run)
        if context.package is None:
            raise NoPackage(str(attempt.run))
        settings = self._settings.get(context.store_url)
        if settings is None:
            settings = container_settings(context.store_url, self._link.url, secrets=self._secrets, how=self._how)
            self._settings[context.store_url] = settings
        asked: Mapping[str, Any] = context.options.get(ASKED, {}).get(order.step, {})
        nodes = (order, *others)
        packed, order_at = packed_order(context, nodes if others else order, settings.store), ""
        if len(packed) > MOST_ORDER_BYTES:
            order_at = open_store(context.store_url).put([packed]).hex()
        command = command_of(
            str(attempt), packed, settings, executable=asked.get("executable"), order_at=order_at, nodes=len(nodes) if others else 0
        )
        log = str(context.options.get("installation", ""))
        return Job(
            name=name,
            attempt=attempt,
            step=order.step,
            asked=asked,
            command=command,
            labels=labels(log, attempt, shard=self._shard, epoch=self.epoch, step=order.step),
            timeout_s=order.timeout_s + TIMEOUT_MARGIN_S if order.timeout_s else LONGEST_S,
        )
