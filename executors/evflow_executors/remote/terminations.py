"""Jobs are ended, however often that has to be asked for.

Three kinds are: what the run asks for, what it insists on, and strays. A stray is a job that nobody waits for: a former owner submitted it after the new one
had looked, or it may be there although its attempt counts as over.
"""

from typing import Final

import anyio

from evflow import diagnostics
from evflow.aws import pause_s
from evflow.core.events import AttemptExited
from evflow_executors.remote.in_flight import InFlight
from evflow_executors.remote.notices import Notices
from evflow_executors.remote.platform import JobSeen, Platform, PlatformProblem
from evflow_executors.remote.records import Dispatch, Out
from evflow_executors.remote.tasks import Tasks

LEAVE_S: Final = 5.0
"""How long a platform may take to be told to end a job when the run insists, or a store to give what its container reported. Then that is left behind."""
_MOST_REFUSALS: Final = 3


class Terminations:
    """What ends the jobs of one executor.

    Args:
        platform: The platform.
        dispatch: What the owner knows.
        in_flight: The attempts that are in flight.
        tasks: The executor's tasks.
        notices: Hears what cannot be ended yet.
    """

    def __init__(self, platform: Platform, dispatch: Dispatch, in_flight: InFlight, tasks: Tasks, notices: Notices) -> None:
        self._platform = platform
        self._dispatch = dispatch
        self._in_flight = in_flight
        self._tasks = tasks
        self._notices = notices
        self._strays: set[str] = set()

    def ask(self, out: Out, grace_s: float) -> None:
        """The run asks for an attempt's end."""
        out.terminating = self._tasks.do(self._terminate(out.name, "the run asked for it", grace_s))

    def insist(self, out: Out) -> None:
        """The run asks a second time: without grace, and a platform that cannot be told is not waited for.

        The attempt is then observed to exit, and its job is left behind. It is ended later where this process lives on.
        """
        self._tasks.do(self._insist(out))

    def end_stray(self, name: str, why: str) -> None:
        """Have a job ended that may be there although its attempt is over."""
        self._strays.add(name)
        self._tasks.do(self._terminate(name, why, 0.0))

    def heed(self, seen: JobSeen) -> None:
        """Look at a job that is of no attempt in flight: one that a former owner of this shard submitted is ended."""
        if seen.phase == "ended":
            self._strays.discard(seen.name)
        elif seen.name not in self._strays and 0 < seen.epoch < self._dispatch.epoch and self._dispatch.is_ours(seen):
            diagnostics.warning("a job of a former owner is ended: nobody waits for it", job=seen.name, platform=self._platform.name)
            self.end_stray(seen.name, "its owner is gone, and its attempt was given up")

    async def _terminate(self, name: str, why: str, grace_s: float) -> None:
        failures, outs = 0, self._in_flight.outs
        out = outs.get(name)
        while outs.get(name) is out if out is not None else name in self._strays:
            try:
                await self._platform.terminate(name, why, grace_s)
            except PlatformProblem as error:
                failures += 1
                diagnostics.debug("a job cannot be ended yet", job=name, why=error.message)
                self._notices.tell(f"{self._platform.name}: jobs cannot be ended yet. {error.message}")
                if not error.transient and failures > _MOST_REFUSALS:
                    self._notices.tell(f"{self._platform.name}: the job {name} cannot be ended: {error.message}")
                    return
                await anyio.sleep(max(error.retry_after_s, pause_s(failures)))
            else:
                return

    async def _insist(self, out: Out) -> None:
        if out.terminating is not None:
            out.terminating.cancel()
        with anyio.move_on_after(LEAVE_S) as scope:
            await self._terminate(out.name, "the run insists", 0.0)
        if scope.cancelled_caught and self._in_flight.outs.get(out.name) is out and not out.ending:
            platform, run = self._platform.name, out.attempt.run
            self._notices.tell(
                f"{platform} cannot be told to end the jobs of {run}, and they are left behind. `evflow {platform} kill {run}` ends them when it answers."
            )
            await self._in_flight.over(out.name, AttemptExited(out.attempt.task, out.attempt.attempt, None, None, "left-behind"))
            self._strays.add(out.name)
            self._tasks.spawn(self._terminate(out.name, "its run was cancelled", 0.0))  # nobody waits for it at the end
