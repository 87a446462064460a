"""A worker's process: it joins the log that the settings name, an embedded one as well, and works until it is told to end."""

import anyio

from evflow.log.link import Link
from evflow_executors import pool_serve
from evflow_executors.pool_worker import WorkerJob
from evflow_scheduler.connection import Connection
from evflow_scheduler.drive import only_error


def serve(job: WorkerJob, *, warm_bytes: int) -> None:
    """Be a worker until this process is told to end.

    Raises:
        EnvironmentProblem: The log cannot be used at all.
    """
    connection = Connection.begin()
    try:
        url, restart = connection.ready(), connection.restart

        async def work() -> None:
            await pool_serve.serve(job, Link(url, restart), warm_bytes=warm_bytes)

        with only_error():
            anyio.run(work)
    finally:
        connection.release()
