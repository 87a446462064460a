"""Signals that ask for a run's end while nobody listens yet.

A run that has its number is cancelled and never just left: what comes before its loop listens is kept for it. The loop is
a heavy import, so this has none. What the program was told to ignore when it was started, by `nohup` or by a shell's `&`,
it ignores.
"""

import os
import signal
from types import FrameType, TracebackType
from typing import Any, Final, Self

NAMES: Final = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the terminal was closed"}


class EarlySignals:
    """Keeps the first signal that asks for the run's end until somebody listens; a second one acts as if nobody kept any.

    A context, from the main thread: at its end signals act as before.
    """

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._before: dict[signal.Signals, Any] = {}

    def keep(self) -> None:
        """Keep what comes from now on."""
        for number in heeded():
            self._before[number] = signal.signal(number, self._on_signal)

    def take(self) -> list[int]:
        """What was kept; it is the caller's to act on."""
        kept, self._kept = self._kept, []
        return kept

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._kept:
            self._restore()
            os.kill(os.getpid(), number)
        else:
            self._kept.append(number)

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def heeded() -> list[signal.Signals]:
    """The signals that ask for a run's end and are not ignored by this process."""
    return [number for number in NAMES if signal.getsignal(number) is not signal.SIG_IGN]
