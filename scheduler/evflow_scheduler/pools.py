"""The pools that an owner's runs use: one connection for all of them, and an executor for each shard and pool.

A run in the foreground looks, before it takes its number, whether somebody would run its steps; runs of schedulers wait for workers.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from evflow.core.graph import LOCAL, Graph, pool_of
from evflow.core.ids import RunId
from evflow.errors import EnvironmentProblem
from evflow.flow.decorators.remote import PLACES
from evflow.log.writer import ShardWriter
from evflow.worker.spec import RunContext
from evflow_scheduler.request import RunView

if TYPE_CHECKING:  # a run without pools loads none of it
    from evflow.log.link import Link
    from evflow_executors.pool import PoolExecutor


class PoolHasNoWorker(EnvironmentProblem):
    """A step is to run in a pool in which nobody works, and the run must not fall back."""

    code = "pool-has-no-worker"

    def __init__(self, pool: str) -> None:
        super().__init__(
            f"No worker of the pool '{pool}' is alive, and `--fallback error` forbids to run its steps here.",
            f"`evflow worker --pool {pool}` starts one; `--fallback wait` waits for one, `--fallback local` runs them on this machine.",
        )


class ExecutorNotThere(EnvironmentProblem):
    """A step is to run where this version of evflow cannot run it, and the run must not fall back."""

    code = "executor-not-there"

    def __init__(self, executor: str, fallback: str) -> None:
        why = "forbids to run its steps here" if fallback == "error" else "has nothing to wait for"
        super().__init__(
            f"This version of evflow has no executor for {PLACES.get(executor, executor)} (@{executor}), and `--fallback {fallback}` {why}.",
            "`--fallback local` runs them on this machine; `@pool` runs steps on other ones.",
        )


class PoolsOf:
    """The pools of one owner.

    Args:
        url: The log.
        restart: Brings the server back, where the caller can.
    """

    def __init__(self, url: str, restart: Callable[[], Awaitable[None]] | None) -> None:
        self._url = url
        self._restart = restart
        self._link: Link | None = None

    def executor(self, pool: str, writer: ShardWriter, context_of: Callable[[RunId], RunContext], *, live: bool) -> "PoolExecutor":
        """The executor of a pool, for the shard that the writer holds."""
        from evflow.log.link import Link
        from evflow_executors.pool import PoolExecutor

        if self._link is None:
            self._link = Link(self._url, self._restart)
        return PoolExecutor(pool, self._link, writer.shard, lambda: writer.epoch, context_of, live=live)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._link is not None:
            await self._link.aclose()


def replaced(url: str, graph: Graph, fallback: str, view: RunView | None) -> Mapping[str, str]:
    """Which executors of a graph are replaced by this machine, because they do not exist or nobody works in the pool, and why. Blocking.

    Args:
        url: The log.
        graph: The flow's graph.
        fallback: `local`: the steps run here; `error`: that is an error; `wait`: they wait for a worker.
        view: Hears of it.

    Raises:
        PoolHasNoWorker: Nobody works there, and that is an error.
        ExecutorNotThere: There is no such executor, and that is an error.
    """
    from evflow.log import pools

    found: dict[str, str] = {}
    for executor in sorted(graph.executors):
        pool = pool_of(executor)
        if pool is None and executor != LOCAL:
            if fallback != "local":
                raise ExecutorNotThere(executor, fallback)
            place = PLACES.get(executor, executor)
            found[executor] = f"this version of evflow has no executor for {place}"
            if view is not None:
                view.on_notice(f"There is no executor for {place} yet: steps with @{executor} run on this machine.")
        if pool is None or pools.ask(url, pools.picture(pool)).workers:
            continue
        if fallback == "error":
            raise PoolHasNoWorker(pool)
        if fallback == "local":
            found[executor] = f"no worker of pool {pool} is alive"
        if view is not None:
            then = "its steps run on this machine" if fallback == "local" else "its steps wait for one"
            view.on_notice(f"No worker of the pool '{pool}' is alive: {then}. `evflow worker --pool {pool}` starts one.")
    return found
