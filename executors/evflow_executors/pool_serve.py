"""A worker of a pool as a process: its log, its signals, its end."""

import signal

import anyio

from evflow.log.link import Link
from evflow_executors.packages import PackagedExecutor
from evflow_executors.pool_worker import PoolWorker, WorkerJob


async def serve(job: WorkerJob, link: Link, *, warm_bytes: int) -> None:
    """Be a worker until a signal asks for the end.

    Raises:
        LogUnavailable: The log cannot be used at all.
    """
    executor = PackagedExecutor(warm_bytes=warm_bytes)
    worker = PoolWorker(job, executor, link)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_heed_signals, worker, job)
            await worker.serve()
            group.cancel_scope.cancel()
    finally:
        await executor.aclose()  # has deadlines of its own
        with anyio.CancelScope(shield=True):
            await link.aclose()


async def _heed_signals(worker: PoolWorker, job: WorkerJob) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as group:
            async for _ in signals:
                if worker.draining:
                    await worker.stop()
                    continue
                worker.drain()
                if job.drain_s is not None:
                    group.start_soon(_stop_after, worker, job.drain_s)


async def _stop_after(worker: PoolWorker, drain_s: float) -> None:
    await anyio.sleep(drain_s)
    await worker.stop()
