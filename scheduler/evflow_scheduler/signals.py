"""Ctrl-C: once to cancel the run, twice to kill what still runs. Either way the log says so."""

import signal
from collections.abc import Awaitable, Callable

import anyio

from evflow.core.events import RunCancelRequested
from evflow_scheduler.early_signals import NAMES, EarlySignals, heeded


async def cancel_on_signal(
    tell: Callable[[RunCancelRequested], Awaitable[None]], notice: Callable[[str], None], early: EarlySignals
) -> None:
    """Turn signals into requests to cancel, for ever; the first asks, every later one insists.

    Args:
        tell: Takes the request.
        notice: Tells people.
        early: What came before this began.
    """
    asked = False

    async def ask(number: int) -> None:
        nonlocal asked
        name = NAMES.get(signal.Signals(number), str(number))
        notice(f"{name} again: killing what still runs." if asked else f"{name}: cancelling the run; once more to kill it.")
        await tell(RunCancelRequested(name, forced=asked))
        asked = True

    with anyio.open_signal_receiver(*heeded()) as signals:
        for number in early.take():
            await ask(number)
        async for number in signals:
            await ask(number)
