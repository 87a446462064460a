"""What carries the output of this machine's attempts into a store that lies elsewhere (`evflow.store.remote_output`), a carrier for each run."""

from typing import Final

import anyio
import anyio.to_thread

from evflow import diagnostics
from evflow.core.ids import AttemptId, RunId
from evflow.store.remote_output import Carrier, carrier_of
from evflow.worker.spec import RunContext

CLOSE_WITHIN_S: Final = 120.0
"""How long an executor waits for the last lines to be in the store. They stay on this machine where that is not enough."""


class Carriers:
    """The carriers of an executor; none for a run whose store is a folder."""

    def __init__(self) -> None:
        self._of: dict[RunId, Carrier] = {}
        self._released: list[Carrier] = []

    def begin(self, run: RunId, context: RunContext) -> None:
        """Attempts of a run may come."""
        if run not in self._of:
            carrier = carrier_of(context.store_url, run, context.log_folder, lambda why: _tell(run, why))
            if carrier is not None:
                self._of[run] = carrier
                carrier.start()

    def ended(self, attempt: AttemptId) -> None:
        """An attempt has ended, and what it printed is complete."""
        carrier = self._of.get(attempt.run)
        if carrier is not None:
            carrier.ended(attempt.task, attempt.attempt)

    def release(self, run: RunId) -> None:
        """No attempt of a run will come: its carrier ends when the rest is in the store."""
        carrier = self._of.pop(run, None)
        if carrier is not None:
            carrier.finish()
            self._released = [*filter(Carrier.is_alive, self._released), carrier]

    async def aclose(self) -> None:
        """No attempt of any run will come. All output is in the store when this returns, unless that takes too long."""
        for run in [*self._of]:
            self.release(run)
        async with anyio.create_task_group() as group:
            for carrier in self._released:
                group.start_soon(anyio.to_thread.run_sync, carrier.wait, CLOSE_WITHIN_S)


def _tell(run: RunId, why: str) -> None:
    diagnostics.warning("what tasks print does not get into the store", run=str(run), why=why)
