"""Executors over the plain platform: an owner of attempts, and containers that are local processes."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from evflow import config
from evflow.core.explain_said import WaitsForStore
from evflow.log import commands
from evflow.log.link import Link
from evflow.log.said_waits import SaidWaits, said as said_of_runs
from evflow.worker.spec import RunContext
from evflow_executors.remote.executor import RemoteExecutor
from evflow_executors.remote.owner import OwnerDispatch
from evflow_executors.remote.platform import Platform
from tests.fakes.container_host import ContainerHost, PlainService
from tests.pool_world import SHARD

OWNER = "owner-1"


@asynccontextmanager
async def a_service(root: Path) -> AsyncGenerator[PlainService]:
    """A service whose containers end with the block."""
    host = ContainerHost(root / "containers")
    try:
        yield PlainService(host)
    finally:
        with anyio.CancelScope(shield=True):
            await host.aclose()


@asynccontextmanager
async def a_remote_executor(
    url: str,
    context: RunContext,
    platform: Platform,
    *,
    live: bool = True,
    epoch: int = 7,
    owner: str = OWNER,
    said: list[str] | None = None,
) -> AsyncGenerator[RemoteExecutor]:
    """The executor of a shard's owner."""
    link = Link(url)
    dispatch = OwnerDispatch(link, SHARD, owner, lambda: epoch, lambda _: context)
    waits = SaidWaits(link, SHARD, owner)
    executor = RemoteExecutor(platform, dispatch, live=live, on_notice=(said if said is not None else []).append, waits=waits)
    try:
        yield executor
    finally:
        await executor.aclose()
        await link.aclose()


async def reports_of(url: str) -> list[bytes]:
    """The payloads in the shard's inbox."""
    link = Link(url)
    wait = link.wait()
    try:
        return [entry.payload for entry in await wait.do(commands.receive(SHARD, b"0", 0.01), 0.01)]
    finally:
        await wait.aclose()
        await link.aclose()


async def store_waits(url: str) -> list[tuple[str, str, int, str, str]]:
    """What is said of runs of the shard that wait for their store: run, executor, tasks, why, and who said it."""
    link = Link(url)
    try:
        told = await link.do(said_of_runs([SHARD]))
    finally:
        await link.aclose()
    return [(run, one.executor, one.tasks, one.why, one.by) for run, each in told.items() for one in each if isinstance(one, WaitsForStore)]


def via(way: str) -> None:
    """How containers report."""
    config.set_option("report_via", way, "--report-via")
