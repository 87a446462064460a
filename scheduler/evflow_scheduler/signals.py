"""Ctrl-C: once to cancel the run, twice to kill what still runs. Either way the log says so."""

import signal
from collections.abc import Awaitable, Callable

import anyio

from evflow.core.events import RunCancelRequested

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the terminal was closed"}


async def cancel_on_signal(tell: Callable[[RunCancelRequested], Awaitable[None]], notice: Callable[[str], None]) -> None:
    """Turn signals into requests to cancel, for ever; the first asks, every later one insists."""
    with anyio.open_signal_receiver(*NAMES) as signals:
        asked = False
        async for number in signals:
            name = NAMES.get(signal.Signals(number), str(number))
            if asked:
                notice(f"{name} again: killing what still runs.")
            else:
                notice(f"{name}: cancelling the run; once more to kill it.")
            await tell(RunCancelRequested(name, forced=asked))
            asked = True
