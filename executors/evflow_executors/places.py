"""The executors of a shard, by the names that steps have for them."""

from collections.abc import Callable, Iterator, Mapping

import anyio

from evflow.core.graph import LOCAL, pool_of
from evflow_executors.protocol import Executor


class Places(Mapping[str, Executor]):
    """This machine, and each pool as soon as somebody asks for it.

    Args:
        here: Runs attempts on this machine.
        pool: Makes the executor of a pool.
    """

    def __init__(self, here: Executor, pool: Callable[[str], Executor]) -> None:
        self._pool = pool
        self._made: dict[str, Executor] = {LOCAL: here}
        self._pools: list[Executor] = []

    def __getitem__(self, name: str) -> Executor:
        found = self._made.get(name)
        if found is not None:
            return found
        pool = pool_of(name)
        if pool is None:
            raise KeyError(name)
        made = self._made[name] = self._pool(pool)
        self._pools.append(made)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._made))

    def __len__(self) -> int:
        return len(self._made)

    async def leave_pools(self) -> None:
        """Close the executors of pools, whose attempts go on; that of this machine is its maker's to close."""
        async with anyio.create_task_group() as group:
            for made in self._pools:
                group.start_soon(made.aclose)
