"""The jobs that a platform does not start, or not take, with what it says of them: whoever asks why they do not begin is told through the log's server."""

from itertools import islice
from typing import Final

import anyio

from evflow.core.explain_said import MOST_NAMED, UnstartedJob
from evflow.core.ids import AttemptId, RunId
from evflow.log.said_waits import Waits

SOON_S = 1.0
"""For so long what changes is collected: of a wide foreach without a node, thousands of jobs wait within seconds."""
AGAIN_S: Final = 120.0
"""After so long it is said anew that jobs still wait: what was said is not believed for ever."""


class Unstarted:
    """Which jobs of an executor's attempts do not start, and why.

    Args:
        executor: Its name.
        waits: Hears of the runs.
    """

    def __init__(self, executor: str, waits: Waits) -> None:
        self._executor = executor
        self._waits = waits
        self._whys: dict[RunId, dict[AttemptId, str]] = {}
        self._changed: set[RunId] = set()
        self._something = anyio.Event()

    def note(self, attempt: AttemptId, why: str) -> None:
        """What the platform says of an attempt's job now; an empty string: nothing, it has begun, or is over."""
        of_run = self._whys.get(attempt.run, {})
        if of_run.pop(attempt, "") == why:
            if why:
                of_run[attempt] = why
            return
        if why:  # behind all others: said last
            self._whys.setdefault(attempt.run, of_run)[attempt] = why
        elif not of_run:
            del self._whys[attempt.run]
        self._changed.add(attempt.run)
        self._something.set()

    async def go_on(self) -> None:
        """Tell of runs what changes, and again of those that still wait, until it is cancelled."""
        again_s = anyio.current_time() + AGAIN_S
        while True:
            with anyio.CancelScope(deadline=again_s):
                await self._something.wait()
                await anyio.sleep(SOON_S)
            if anyio.current_time() >= again_s:  # also of runs of which nothing changes while others do
                self._changed.update(self._whys)
                again_s = anyio.current_time() + AGAIN_S
            self._something = anyio.Event()
            changed, self._changed = self._changed, set()
            for run in changed:
                await self._say(run)

    async def _say(self, run: RunId) -> None:
        whys = self._whys.get(run)
        if whys:
            latest = [UnstartedJob(attempt.task, attempt.attempt, why) for attempt, why in islice(reversed(whys.items()), MOST_NAMED)]
            await self._waits.say_unstarted(run, self._executor, len(whys), latest)
        else:
            await self._waits.unsay_unstarted(run, self._executor)
