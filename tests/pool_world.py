"""A pool with workers in the test's own loop, and an owner of attempts."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

from evflow.log.link import Link
from evflow.store import open_store
from evflow.store.packages import build
from evflow.worker.spec import RunContext
from evflow_executors.packages import PackagedExecutor
from evflow_executors.pool import PoolExecutor
from evflow_executors.pool_worker import PoolWorker, WorkerJob
from tests.packaged_world import a_real_context

POOL, SHARD, EPOCH = "gpu", "s0", 7
PATIENCE_S = 60.0


def a_pooled_context(root: Path, text: str, **fields: Any) -> RunContext:
    """The context of a run whose code, a flow named `Flow`, is a package in the store."""
    folder = root / "code"
    folder.mkdir(exist_ok=True)
    (folder / "flow.py").write_text(text)
    context = a_real_context(root, shard=SHARD, flow_file="/elsewhere/flow.py", **fields)
    return replace(context, package=build(open_store(context.store_url), folder / "flow.py").digest)


@asynccontextmanager
async def a_worker(url: str, root: Path, *, slots: int = 4, patience_s: float = PATIENCE_S) -> AsyncGenerator[PoolWorker]:
    """A worker that serves for as long as the block lasts, then ends what it runs."""
    link, executor = Link(url), PackagedExecutor(warm_bytes=0)
    worker = PoolWorker(WorkerJob(POOL, slots, "box", root / "worker", patience_s), executor, link)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(worker.serve)
            yield worker
            await worker.stop(0.0)
    finally:
        with anyio.CancelScope(shield=True):
            await executor.aclose()
            await link.aclose()


@asynccontextmanager
async def a_pool_executor(url: str, context: RunContext, *, live: bool = True, epoch: int = EPOCH) -> AsyncGenerator[PoolExecutor]:
    """The executor of the shard's owner."""
    link = Link(url)
    executor = PoolExecutor(POOL, link, SHARD, lambda: epoch, lambda _: context, live=live)
    try:
        yield executor
    finally:
        await executor.aclose()
        await link.aclose()


@asynccontextmanager
async def a_pool(url: str, root: Path, text: str, *, method: str = "fork") -> AsyncGenerator[PoolExecutor]:
    """A worker and an owner."""
    context = a_pooled_context(root, text, options={"start_method": method})
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(a_worker(url, root))
        yield await stack.enter_async_context(a_pool_executor(url, context))
