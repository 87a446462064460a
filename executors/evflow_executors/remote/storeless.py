"""The attempts of which no job can be made yet because their run's store is away: whoever asks why they do not begin is told through the log's server."""

from collections.abc import Iterable, Mapping

import anyio

from evflow.core.ids import RunId
from evflow.log.said_waits import LATE_S, NO_ANSWER, Waits
from evflow_executors.remote.records import Out


class Storeless:
    """Which attempts of an executor wait for a store.

    Args:
        executor: Its name.
        waits: Hears of the runs.
        out: All attempts of the executor that have not ended, by name.
    """

    def __init__(self, executor: str, waits: Waits, out: Mapping[str, Out]) -> None:
        self._executor = executor
        self._waits = waits
        self._out = out
        self._answers: dict[str, str] = {}  # by name, what the store answered

    def add(self, outs: Iterable[Out], answer: str) -> None:
        """Their store is away."""
        self._answers.update(dict.fromkeys([out.name for out in outs if out.name in self._out], answer))

    def drop(self, name: str) -> None:
        """A job was made of this one."""
        self._answers.pop(name, None)

    async def say(self, outs: Iterable[Out]) -> None:
        """Tell of the runs of these attempts whether, and how many of theirs, wait now."""
        for run in {out.attempt.run for out in outs}:
            answers = [answer for name, answer in self._answers.items() if self._is_of(name, run)]
            if answers:
                await self._waits.say(run, self._executor, len(answers), answers[-1])
            else:
                await self._waits.unsay(run, self._executor)

    async def say_if_late(self, outs: Iterable[Out]) -> None:
        """Tell that there is no answer yet, unless it is cancelled within `LATE_S`."""
        await anyio.sleep(LATE_S)
        waiting = [out for out in outs if out.name in self._out]
        self._answers = {**dict.fromkeys([out.name for out in waiting], NO_ANSWER), **self._answers}
        await self.say(waiting)

    async def end(self, out: Out) -> None:
        """The attempt is over, and not among `out` any more; how many are left is told with the next try."""
        run = out.attempt.run
        if self._answers.pop(out.name, None) is not None and not any(self._is_of(name, run) for name in self._answers):
            await self._waits.unsay(run, self._executor)

    def _is_of(self, name: str, run: RunId) -> bool:
        return self._out[name].attempt.run == run
