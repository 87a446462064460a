"""The pools and platforms that an owner's runs use: one connection to the log for all of them, and an executor for each shard and one of them.

A run in the foreground looks, before it takes its number, whether somebody would run its steps; runs of schedulers wait for workers.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from evflow import diagnostics
from evflow.core.graph import LOCAL, PLATFORMS, TAKES_GANGS, Graph, pool_of
from evflow.core.ids import RunId
from evflow.core.state import RunState
from evflow.errors import EnvironmentProblem
from evflow.log.writer import ShardWriter
from evflow.worker.spec import RunContext
from evflow_scheduler.request import RunView

if TYPE_CHECKING:  # a run without pools loads none of it
    from evflow.log.link import Link
    from evflow.log.said_waits import Counts, SaidWaits
    from evflow_executors.protocol import Executor


class PoolHasNoWorker(EnvironmentProblem):
    """A step is to run in a pool in which nobody works, and the run must not fall back."""

    code = "pool-has-no-worker"

    def __init__(self, pool: str) -> None:
        super().__init__(
            f"No worker of the pool '{pool}' is alive, and `--fallback error` forbids to run its steps here.",
            f"`evflow worker --pool {pool}` starts one; `--fallback wait` waits for one, `--fallback local` runs them on this machine.",
        )


class ExecutorNotThere(EnvironmentProblem):
    """A step is to run on a platform that cannot be used from here, and the run must not fall back."""

    code = "executor-not-there"

    def __init__(self, executor: str, why: str, fallback: str) -> None:
        then = "forbids to run its steps here" if fallback == "error" else "has nothing to wait for"
        super().__init__(
            f"{PLATFORMS.get(executor, executor)} (@{executor}) cannot be used: {why.rstrip('.')}. `--fallback {fallback}` {then}.",
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
        self._waits: dict[str, SaidWaits] = {}  # by shard

    def executor(
        self,
        name: str,
        writer: ShardWriter,
        context_of: Callable[[RunId], RunContext],
        *,
        live: bool,
        on_notice: Callable[[str], None] = diagnostics.info,
    ) -> "Executor":
        """The executor of a pool or a platform, for the shard that the writer holds.

        Raises:
            KeyError: There is none of this name.
        """
        link = self._linked()
        pool = pool_of(name)
        if pool is None:
            from evflow_executors.remote.kinds import remote_executor

            return remote_executor(
                name,
                link,
                writer.shard,
                writer.owner,
                lambda: writer.epoch,
                context_of,
                live=live,
                on_notice=on_notice,
                waits=self.waits(writer),
            )
        from evflow_executors.pool import PoolExecutor

        return PoolExecutor(pool, link, writer.shard, lambda: writer.epoch, context_of, live=live)

    def waits(self, writer: ShardWriter) -> "SaidWaits":
        """Says of the runs of the writer's shard what they wait for that only their owner sees; one for all that the owner does."""
        from evflow.log.said_waits import SaidWaits

        found = self._waits.get(writer.shard)
        if found is None or found.owner != writer.owner:
            found = self._waits[writer.shard] = SaidWaits(self._linked(), writer.shard, writer.owner)
        return found

    def said(self, shard: str, run: RunId, state: RunState) -> "Counts":
        """How many tasks of a run wait for what, as the shard's owner said it."""
        from evflow.log.said_waits import Counts

        found = self._waits.get(shard)
        return Counts() if found is None else found.counts(run, state)

    def _linked(self) -> "Link":
        from evflow.log.link import Link

        if self._link is None:
            self._link = Link(self._url, self._restart)
        return self._link

    async def aclose(self) -> None:
        """Close the connection."""
        if self._link is not None:
            await self._link.aclose()


def replaced(url: str, graph: Graph, fallback: str, view: RunView | None) -> Mapping[str, str]:
    """Which executors of a graph are replaced by this machine, because they cannot be used from here or nobody works in the pool, and why. Blocking.

    Args:
        url: The log.
        graph: The flow's graph.
        fallback: `local`: the steps run here; `error`: that is an error; `wait`: they wait for a worker.
        view: Hears of it.

    Raises:
        PoolHasNoWorker: Nobody works there, and that is an error.
        ExecutorNotThere: A platform cannot be used from here, and that is an error.
    """
    from evflow.log import pools

    found: dict[str, str] = {}
    for executor in sorted(graph.executors):
        pool = pool_of(executor)
        if pool is None and executor != LOCAL and (why := _why_not(executor, graph)):
            if fallback != "local":
                raise ExecutorNotThere(executor, why, fallback)
            place = PLATFORMS.get(executor, executor)
            found[executor] = f"{place} cannot be used: {why}"
            if view is not None:
                view.on_notice(f"{place} cannot be used: {why.rstrip('.')}. Steps with @{executor} run on this machine.")
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


def _why_not(executor: str, graph: Graph) -> str:
    """Why a platform cannot be used for the steps that want it; an empty string where it can."""
    from evflow_executors.remote.kinds import kind_of

    kind = kind_of(executor)
    if kind is None:
        return "this version of evflow has no executor for it"
    nodes = [node for node in graph.nodes.values() if node.policy.executor == executor]
    if executor not in TAKES_GANGS and (gang := next((node.name for node in nodes if node.policy.parallel), "")):
        # Each node would be a container of its own, and none would know the address of node 0.
        return f"step {gang} is a gang, whose nodes run on one machine or on Kubernetes"
    return kind.why_not([node.policy.asked for node in nodes])
