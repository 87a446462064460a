"""What runs in a container: one attempt, as a worker of a pool runs it, and its reports.

    python -P -m evflow_executors.remote.container

What it is to do stands in the variable EVFLOW_ORDER, or in the store at EVFLOW_ORDER_AT; for a member of an array, in the entry of its index in the
sheet at EVFLOW_ORDERS_AT. The code comes from the run's package in the store, the
environment from its lock; what the attempt prints goes to the store, and to the container's own output for the platform's log.

Reports go to the log's inbox, or, with EVFLOW_REPORT_VIA=store, into a file of the store (`reports`). The container's exit code is the
attempt's, 128 + n where signal n ended it. An attempt that has reported its failure exits with 0; a node of a gang with 1, so that its platform ends the others.

A node of a gang first learns where node 0 is (`meeting`). A gang's nodes share their orders, and the platform's JOB_COMPLETION_INDEX says which one is meant.

SIGTERM comes from the platform: a spot instance goes away, a pod is evicted, a host is drained; or from the run, whose owner knows. The attempt gets
it as well, and what is left of the grace to end in; the end is reported as the container's, for which nobody counts it against `@retry`. But for a node of a
gang: the platform ends it when another one has failed, too, and which of the two it was its owner sees, and says.
"""

import base64
import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from evflow import config
from evflow.aws import pause_s
from evflow.clock import now_us
from evflow.core.codec import encode_report
from evflow.core.events import AttemptExited, AttemptFailed, AttemptStarted, EnvironmentReady
from evflow.core.ids import AttemptId, TaskId
from evflow.errors import EvflowError
from evflow.log import commands
from evflow.log.errors import LogUnavailable
from evflow.log.link import Link
from evflow.store import StoreFull, StoreUnusable, open_store
from evflow.store.patience import hold_results
from evflow.worker.report import place_of
from evflow.worker.spec import AttemptOrder, RunContext
from evflow_executors.packages import PackagedExecutor
from evflow_executors.pool_orders import PoolOrder, settle, unsettled
from evflow_executors.protocol import Observation
from evflow_executors.remote import meeting, reports, sheets
from evflow_executors.remote.bootstrap import EXIT_NO_LOG, EXIT_NO_ORDER, EXIT_NO_STORE
from evflow_executors.remote.command import ARRAY_INDEX, ATTEMPT, NODES, ORDER, ORDER_AT, ORDERS_AT
from evflow_executors.remote.memory import TOO_LITTLE, killed_for_memory
from evflow_executors.remote.verdicts import CONTAINER_STOPPED

STOPPED: Final = CONTAINER_STOPPED
REACH_LOG_S: Final = 60.0
REPORT_WITHIN_S: Final = 600.0
EXIT_UNFIT: Final = 1
EXIT_FAILED: Final = 1
EXIT_DEFECT: Final = 70

INDEX: Final = "JOB_COMPLETION_INDEX"
"""Which of a gang's nodes a container is, as Kubernetes tells it."""

Seen = AttemptStarted | AttemptFailed | AttemptExited | EnvironmentReady


class OrderMissing(Exception):
    """The container was not told what to do; the text says why."""


class _Reports:
    """Where the reports go."""

    def __init__(self, attempt: AttemptId, context: RunContext, link: Link | None) -> None:
        self._attempt = attempt
        self._context = context
        self._link = link
        self._principal = f"worker:{os.uname().nodename}:{os.getpid()}"
        self._kept: list[bytes] = []

    async def say(self, event: Seen) -> None:
        """Report something; by way of the store it is kept until `finish`."""
        payload = encode_report(event, principal=self._principal)
        if self._link is None:
            self._kept.append(payload)
        else:
            await self._link.repeated(commands.report(self._context.shard, self._attempt.run, payload), REPORT_WITHIN_S)

    async def say_end(self, end: AttemptFailed | AttemptExited) -> None:
        """Report the attempt's end, unless who had it ended left word of that: the owner carries it, from the same file."""
        left = await self.word_left() if isinstance(end, AttemptExited) and end.why == STOPPED else ()
        if not left:
            await self.say(end)
        elif self._link is None:
            self._kept += left

    async def word_left(self) -> Sequence[bytes]:
        """What whoever had the container ended said of that before."""
        try:
            return await anyio.to_thread.run_sync(reports.take, self._context.store_url, self._attempt)
        except EvflowError as error:
            _note(f"why this container is to end cannot be asked: {error.message}")
            return ()

    async def finish(self, folder: Path | None) -> None:
        """Write what was kept, and what the attempt itself left, into the store; one that is away is waited for, as the log is.

        Raises:
            StoreUnusable, StoreFull: It does not take it.
        """
        if self._link is not None:
            return
        own = Path(place_of(str(folder), self._attempt.task, self._attempt.attempt)) if folder is not None else None
        if own is not None and await anyio.Path(own).exists():
            self._kept.append(await anyio.Path(own).read_bytes())
        hold_results()
        deadline_s, failures = anyio.current_time() + REPORT_WITHIN_S, 0
        while True:
            try:
                await anyio.to_thread.run_sync(reports.leave, self._context.store_url, self._attempt, self._kept)
            except StoreUnusable as error:
                if not error.is_transient or anyio.current_time() >= deadline_s:
                    raise
                failures += 1
                _note(f"the report waits for the store: {error.message}")
                await anyio.sleep(pause_s(failures))
            else:
                return


async def run(variables: Mapping[str, str]) -> int:
    """Run the attempt that the variables name; the container's exit code.

    Raises:
        OrderMissing: They name none.
        LogUnavailable: The log cannot be reached, or did not take a report.
        StoreUnusable, StoreFull: The store did not take the report that was to go there.
    """
    attempt, order = await anyio.to_thread.run_sync(read_order, variables)
    home = Path(variables.get("EVFLOW_HOME") or "/tmp/evflow")  # noqa: S108 - the container's own
    via_store = variables.get("EVFLOW_REPORT_VIA") == "store"
    async with _link(None if via_store else variables.get("EVFLOW_REDIS_URL", "")) as link:
        told = _Reports(attempt, order.context, link)
        folder = home / "reports" if via_store else None
        executor = PackagedExecutor(warm_bytes=0, on_notice=_note)
        try:
            return await _Container(attempt, order, home, folder, executor, told, link.url if link else f"unix://{home}/no-log").run()
        finally:
            with anyio.CancelScope(shield=True):
                await executor.aclose()
                await told.finish(folder)


class _Container:
    """One attempt, from its code to its end."""

    def __init__(
        self,
        attempt: AttemptId,
        order: PoolOrder,
        home: Path,
        folder: Path | None,
        executor: PackagedExecutor,
        told: _Reports,
        log_url: str,
    ) -> None:
        self._attempt = attempt
        self._order = order
        self._home = home
        self._folder = folder
        self._executor = executor
        self._told = told
        self._log_url = log_url
        self._grace_s: float = config.get("container_grace")  # platforms give 30 s, of which the report takes some
        self._failures = home / "failures"
        self._stopped = False
        self._launched = False

    async def run(self) -> int:
        ends: list[AttemptFailed | AttemptExited] = []
        stopped = anyio.Event()
        async with anyio.create_task_group() as signals:
            signals.start_soon(self._heed_sigterm, stopped)
            async with anyio.create_task_group() as group:
                group.start_soon(self._until_its_end, ends, group.cancel_scope)
                group.start_soon(self._until_it_is_stopped, stopped, ends, group.cancel_scope)
            if _is_to_be_said(ends[0]) and not await self._is_left_to_the_owner(ends[0]):
                await self._told.say_end(ends[0])
            signals.cancel_scope.cancel()
        code = _exit_code(ends[0])
        return (
            EXIT_FAILED
            if code == 0 and await anyio.Path(place_of(str(self._failures), self._attempt.task, self._attempt.attempt)).exists()
            else code
        )

    async def _is_left_to_the_owner(self, end: AttemptFailed | AttemptExited) -> bool:
        """Whether a node of a gang was stopped, and nobody left word of that: its owner sees why."""
        if self._order.order.gang is None or not isinstance(end, AttemptExited) or end.why != STOPPED:
            return False
        return not await self._told.word_left()

    async def _until_its_end(self, ends: list[AttemptFailed | AttemptExited], scope: anyio.CancelScope) -> None:
        ends.append(await self._work())
        scope.cancel()

    async def _until_it_is_stopped(self, stopped: anyio.Event, ends: list[AttemptFailed | AttemptExited], scope: anyio.CancelScope) -> None:
        """Give up what has not begun when SIGTERM comes."""
        await stopped.wait()
        ends.append(self._exited(None, None))
        scope.cancel()

    async def _work(self) -> AttemptFailed | AttemptExited:
        order, killed = self._order.order, await anyio.to_thread.run_sync(killed_for_memory)
        is_control = order.gang is not None and order.gang[0] == 0
        try:
            if is_control:  # before anything that takes long: the others wait for it
                order = await self._with_its_gang(order)
            context = await anyio.to_thread.run_sync(settle, self._order.context, self._home, self._log_url)
            if self._folder is not None:
                await anyio.Path(self._folder).mkdir(parents=True, exist_ok=True)
                context = replace(context, options={**context.options, "reports": str(self._folder)})
            if order.gang is not None:
                await anyio.Path(self._failures).mkdir(parents=True, exist_ok=True)
                context = replace(context, options={**context.options, "failures": str(self._failures)})
            await self._executor.prepare(context)
            if not is_control:
                order = await self._with_its_gang(order)
            await self._executor.launch(self._attempt, order)
        except Exception as error:  # noqa: BLE001 - what a package holds is its writer's: it becomes the report
            return unsettled(self._attempt, error, os.uname().nodename)
        self._launched = True
        if self._stopped:
            await self._executor.cancel(self._attempt, grace_s=self._grace_s)
        async for seen in self._executor.watch():
            if not isinstance(seen, Observation):
                print(seen.text, file=sys.stderr if seen.stream == "stderr" else sys.stdout, flush=True)
            elif isinstance(seen.event, AttemptFailed | AttemptExited):
                end = seen.event
                if isinstance(end, AttemptExited) and end.exit_code != 0 and self._stopped:
                    return self._exited(end.exit_code, end.signal)
                is_killed = isinstance(end, AttemptExited) and end.signal == signal.SIGKILL
                if is_killed and await anyio.to_thread.run_sync(killed_for_memory) > killed:
                    return AttemptFailed(end.task, end.attempt, "container", "container-out-of-memory", TOO_LITTLE)
                return end
            else:
                await self._told.say(seen.event)
        return self._exited(None, None, "never-started")

    async def _with_its_gang(self, order: AttemptOrder) -> AttemptOrder:
        """The order, with the address of node 0 where it is one of a gang; what only records a crash needs none."""
        if order.gang is None or order.mode != "run":
            return order
        asked: Mapping[str, Any] = self._order.context.options.get("asked", {}).get(order.step, {})
        within_s = float(asked.get("hostname_resolution_timeout") or meeting.WITHIN_S)
        own = await anyio.to_thread.run_sync(meeting.own_address, os.environ)
        main_ip = await meeting.meet(self._order.context.store_url, self._attempt, order.gang[0], own, within_s)
        return replace(order, main_ip=main_ip)

    async def _heed_sigterm(self, stopped: anyio.Event) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                _note("SIGTERM: the platform ends this container, or the run was cancelled")
                self._stopped = True
                if self._launched:
                    await self._executor.cancel(self._attempt, grace_s=self._grace_s)
                else:
                    stopped.set()

    def _exited(self, exit_code: int | None, number: int | None, why: str = STOPPED) -> AttemptExited:
        return AttemptExited(self._attempt.task, self._attempt.attempt, exit_code, number, why)


def read_order(variables: Mapping[str, str]) -> tuple[AttemptId, PoolOrder]:
    """What is to be done. Blocking.

    Raises:
        OrderMissing: It is not said, or cannot be read.
    """
    name = variables.get(ATTEMPT, "")
    try:
        if ORDERS_AT in variables:
            store, sheet = open_store(variables["EVFLOW_STORE"]), bytes.fromhex(variables[ORDERS_AT])
            variables = {**variables, **sheets.variables_of(store, sheet, int(variables[ARRAY_INDEX]))}
            name = variables.get(ATTEMPT, "")
        index = int(variables[INDEX]) if NODES in variables else None
        if ORDER_AT in variables:
            data = bytes(open_store(variables["EVFLOW_STORE"]).get(bytes.fromhex(variables[ORDER_AT])))
        else:
            data = base64.b64decode(variables[ORDER], validate=True)
        order = PoolOrder.unpack(name, data, index)
        named = AttemptId.parse(name)
        return AttemptId(named.run, TaskId(order.order.task), named.attempt), order
    except (KeyError, ValueError, EvflowError) as error:
        raise OrderMissing(f"{type(error).__name__}: {error}") from error


def _is_to_be_said(end: AttemptFailed | AttemptExited) -> bool:
    """Whether an attempt has not told of its end itself: so it has where it exits with 0."""
    return not (isinstance(end, AttemptExited) and end.exit_code == 0)


def _exit_code(end: AttemptFailed | AttemptExited) -> int:
    if isinstance(end, AttemptFailed):
        return EXIT_UNFIT
    if end.signal is not None:
        return 128 + end.signal
    if end.exit_code is None:
        return 128 + signal.SIGTERM if end.why == STOPPED else EXIT_DEFECT
    return end.exit_code


@asynccontextmanager
async def _link(url: str | None) -> AsyncGenerator[Link | None]:
    """The log, once it answered; None where nothing is reported there."""
    if url is None:
        yield None
        return
    link = Link(url)
    try:
        await link.repeated(commands.lease_owner("s0"), REACH_LOG_S)
        yield link
    finally:
        with anyio.CancelScope(shield=True):
            await link.aclose()


def _note(text: str) -> None:
    sys.stderr.write(f"evflow: {text}\n")
    sys.stderr.flush()


def main() -> int:
    """Run it; the exit code."""
    began_us = now_us()
    try:
        return anyio.run(run, dict(os.environ))
    except OrderMissing as error:
        _note(f"what is to be done cannot be read: {error}")
        return EXIT_NO_ORDER
    except LogUnavailable as error:
        _note(f"{error.message} After {(now_us() - began_us) / 1e6:.0f} s. EVFLOW_REPORT_VIA=store needs no log in containers")
        return EXIT_NO_LOG
    except (StoreUnusable, StoreFull) as error:
        _note(f"the report cannot be left in the store: {error.message} {error.hint}")
        return EXIT_NO_STORE


if __name__ == "__main__":
    # By its name: `__main__` becomes the flow's file where one is loaded here.
    from evflow_executors.remote import container

    sys.exit(container.main())
