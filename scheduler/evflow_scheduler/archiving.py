"""Archiving, in a scheduler: it looks after the logs of the flows whose ticks it decides, of runs in the foreground too."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from evflow import config, diagnostics
from evflow.archives import connect
from evflow.archives.archiving import Archivist
from evflow.archives.keeping import LOOK_EVERY_S, Caretaker
from evflow.errors import EvflowError
from evflow_scheduler.tenancy import Premises
from evflow_scheduler.ticks import is_of

_AGAIN_AFTER_S: Final = 5.0


async def look_after(premises: Premises, owned: Callable[[], frozenset[str]], hot_for_s: float, told: Callable[[int | None], None]) -> None:
    """Archive what is due of the flows of the owned shards, until cancelled.

    Args:
        premises: This machine.
        owned: The shards that this process owns now.
        hot_for_s: How long a log stays at the server after its run's end.
        told: Told after each look how many bytes wait to be archived; None where this process looks after no flow.
    """
    with closing(connect(premises.log_url)) as log:
        caretaker = Caretaker(log, Archivist(log, config.get("store"), "scheduler"), round(hot_for_s * 1e6))
        said = False
        while True:
            shards, wait_s = owned(), LOOK_EVERY_S
            if shards:
                try:
                    wait_s = await anyio.to_thread.run_sync(partial(caretaker.look, partial(is_of, shards)))
                    said = False
                    told(caretaker.unarchived_bytes)
                except EvflowError as error:  # a server that is away, most of all: once is enough
                    (diagnostics.debug if said else diagnostics.warning)("archives wait for the log", why=str(error))
                    said, wait_s = True, _AGAIN_AFTER_S
            else:
                told(None)
            await anyio.sleep(wait_s)
