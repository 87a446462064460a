"""The executors of a shard, by the names that steps have for them."""

from collections.abc import Callable, Iterator, Mapping

import anyio

from evflow.core.graph import LOCAL
from evflow_executors.protocol import Executor


class Places(Mapping[str, Executor]):
    """This machine, and each pool or platform as soon as somebody asks for it.

    Args:
        here: Runs attempts on this machine.
        elsewhere: Makes the executor of a pool or a platform, by its name; raises KeyError where there is none.
    """

    def __init__(self, here: Executor, elsewhere: Callable[[str], Executor]) -> None:
        self._elsewhere = elsewhere
        self._made: dict[str, Executor] = {LOCAL: here}
        self._others: list[Executor] = []

    def __getitem__(self, name: str) -> Executor:
        found = self._made.get(name)
        if found is not None:
            return found
        made = self._made[name] = self._elsewhere(name)
        self._others.append(made)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._made))

    def __len__(self) -> int:
        return len(self._made)

    async def leave_others(self) -> None:
        """Close the executors of pools and platforms, whose attempts go on; that of this machine is its maker's to close."""
        async with anyio.create_task_group() as group:
            for made in self._others:
                group.start_soon(made.aclose)
