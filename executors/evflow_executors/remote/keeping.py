"""What jobs that wait in a platform's queue will read is kept from `evflow gc` for as long as they wait.

A collection spares what is younger than its grace, an hour at least. A job may wait for days, and what it reads first belongs to no run: the archive of evflow,
an order that is too large for a variable, the sheet of an array. So all of that is said to be in use, over and over, until the container has begun.

What a job reads stands in its variables: the owner that submits it has made them, and one that adopts it sees them where the platform shows them.
"""

from collections.abc import Callable, Mapping
from typing import Final

import anyio

from evflow.core.ids import AttemptId
from evflow_executors.remote.records import Dispatch, Out

KEEP_EVERY_S: Final = 1_800.0
"""How often: half of what `evflow gc` spares at least."""
AGAIN_S: Final = 60.0
"""How soon it is tried again where the store did not answer."""


class Keeping:
    """What keeps the objects of the attempts that are out.

    Args:
        dispatch: The owner, who knows their stores.
        outs: The attempts, as they are at each look.
    """

    def __init__(self, dispatch: Dispatch, outs: Callable[[], Mapping[str, Out]]) -> None:
        self._dispatch = dispatch
        self._outs = outs
        self._now = anyio.Event()

    def soon(self) -> None:
        """Look at once: attempts were adopted, and nobody knows how old their objects are."""
        self._now.set()

    async def go_on(self) -> None:
        """Keep them until cancelled. While nothing waits nothing is asked of a store."""
        while True:
            self._now = anyio.Event()
            waiting = self._waiting()
            is_done = not waiting or await self._dispatch.keep(waiting)
            with anyio.move_on_after(KEEP_EVERY_S if is_done else AGAIN_S):
                await self._now.wait()

    def _waiting(self) -> Mapping[AttemptId, frozenset[bytes]]:
        return {out.attempt: out.reads for out in self._outs().values() if out.submitted and not out.started and not out.ending}
