"""`TriggeredRun`: a run that was asked for, from the request to its end."""

import time
from collections.abc import Iterator
from typing import Any, Final

from evflow import clock, config
from evflow.client.history import RunHistory
from evflow.client.objects import find_run, split
from evflow.client.run import Run
from evflow.core.codec import encode_report
from evflow.core.events import RunCancelRequested
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.summary import GONE, OVER
from evflow.errors import EnvironmentProblem
from evflow.imports import framework_view
from evflow.log.owners import seen_owner

_LOOK_EVERY_S: Final = 0.1
"""Looks are short questions: a read that waits at the server would keep the process's one connection from everybody else."""


class RunLate(EnvironmentProblem, TimeoutError):
    """A run did not come so far within the time that was given."""

    code = "run-late"

    def __init__(self, run: RunId, wanted: str, timeout_s: float, status: str, scheduler: str | None) -> None:
        hint = "" if scheduler is not None else "No scheduler is there: `evflow scheduler` starts one. "
        super().__init__(
            f"'{run}' has not {wanted} within {timeout_s:g} s: it is {status}.", f"{hint}`evflow explain {run}` says what it waits for."
        )


class TriggeredRun:
    """A run that `DeployedFlow.trigger` asked for."""

    __slots__ = ("_id", "version")

    _id: RunId
    version: int
    """The deployment's version, where it is known; else 0."""

    def __init__(self, pathspec: str) -> None:
        """Look a run up.

        Raises:
            EvflowInvalidPathspec, EvflowNotFound: As for `Run`.
        """
        flow, number = split("Run", 2, pathspec)
        self._id = find_run(flow, number).run
        self.version = 0

    @classmethod
    def of(cls, run: RunId, version: int) -> "TriggeredRun":
        """One that is known to exist."""
        made = cls.__new__(cls)
        made._id = run  # noqa: SLF001 - its own class
        made.version = version
        return made

    @property
    def pathspec(self) -> str:
        """The run's name, `Flow/3`: it has it from the request on."""
        return str(self._id)

    @property
    def name(self) -> str:
        """The same, as Metaflow calls it."""
        return self.pathspec

    @property
    def run(self) -> Run | None:
        """The run, once a scheduler has begun it; until then None. Its namespace plays no part."""
        history = self._history
        return self._as_run(history) if history.now().seq else None

    @property
    def status(self) -> str:
        """`requested`, then as `Run.status`: `running`, `succeeded`, `failed`, `cancelled` or `interrupted`.

        `refused` or `given-up` where it never runs. As it is now.
        """
        return self._as_run(self._history).status

    @property
    def is_running(self) -> bool:
        """Whether it is not over."""
        return self.status not in OVER

    def wait_for_run(self, check_interval: float | None = None, timeout: float | None = None) -> Run:
        """Wait until a scheduler has begun the run.

        Args:
            check_interval: Seconds between two looks.
            timeout: Seconds after which to give up; None: never.

        Raises:
            RunLate: It has not begun by then; a `TimeoutError`.
            RunGone: It never begins: no scheduler can carry it out.
        """
        for pause_s in self._looks(check_interval, timeout, "begun"):
            found = self._begun()
            if found is not None:
                return found
            time.sleep(pause_s)
        raise AssertionError  # the looks end by raising

    def wait_for_completion(self, check_interval: float | None = None, timeout: float | None = None) -> Run:
        """Wait until the run is over, however it ended; the arguments and errors are those of `wait_for_run`."""
        for pause_s in self._looks(check_interval, timeout, "ended"):
            if not self.is_running:
                return self._as_run(self._history)
            time.sleep(pause_s)
        raise AssertionError  # as above

    async def async_wait_for_run(
        self,
        check_interval: float | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the same words as without async
    ) -> Run:
        """As `wait_for_run`, without blocking the event loop."""
        with framework_view():
            from anyio import sleep
            from anyio.to_thread import run_sync

        for pause_s in self._looks(check_interval, timeout, "begun"):
            found = await run_sync(self._begun)
            if found is not None:
                return found
            await sleep(pause_s)
        raise AssertionError  # as above

    async def async_wait_for_completion(
        self,
        check_interval: float | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the same words as without async
    ) -> Run:
        """As `wait_for_completion`, without blocking the event loop."""
        with framework_view():
            from anyio import sleep
            from anyio.to_thread import run_sync

        for pause_s in self._looks(check_interval, timeout, "ended"):
            if not await run_sync(lambda: self.is_running):
                return self._as_run(self._history)
            await sleep(pause_s)
        raise AssertionError  # as above

    def terminate(self, reason: str = "TriggeredRun.terminate()") -> bool:
        """Ask for the run's end: its running tasks are ended, then the run is cancelled. Returns before that.

        Returns:
            False if it was over before.
        """
        history = self._history
        if self._as_run(history).status in OVER:
            return False
        report = encode_report(RunCancelRequested(reason), principal=f"user:{config.get('user')}")
        return history.log.ask(lambda log: log.report(history.shard, self._id, report))

    cancel = terminate
    """evflow's name for it."""

    def __repr__(self) -> str:
        return f"TriggeredRun('{self.pathspec}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TriggeredRun) and other.pathspec == self.pathspec

    def __hash__(self) -> int:
        return hash(("TriggeredRun", self.pathspec))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._id.flow, self._id.number, self.version)

    @property
    def _history(self) -> RunHistory:
        return find_run(self._id.flow, str(self._id.number))

    def _begun(self) -> Run | None:
        history = self._history
        if history.now().seq:
            return self._as_run(history)
        line = history.line()  # `find_run` remembers what it found: the run may have been refused since
        if line.summary.get("status") in GONE:
            from evflow.replay.load import RunGone

            raise RunGone(line)
        return None

    def _as_run(self, history: RunHistory) -> Run:
        return Run.of((self._id.flow, str(self._id.number)), history)

    def _looks(self, check_interval: float | None, timeout: float | None, wanted: str) -> Iterator[float]:
        """Seconds to pause after each look, until the time is over; the last look is at its end."""
        pause_s = _LOOK_EVERY_S if check_interval is None else max(check_interval, 0.001)
        deadline_s = None if timeout is None else clock.monotonic_s() + timeout
        while deadline_s is None or clock.monotonic_s() < deadline_s:
            left_s = pause_s if deadline_s is None else deadline_s - clock.monotonic_s()
            yield max(0.0, min(pause_s, left_s))
        yield 0.0
        history = self._history
        owner = history.log.ask(lambda log: seen_owner(log, history.shard))
        raise RunLate(self._id, wanted, timeout or 0.0, self.status, owner)


def _restored(flow: str, number: int, version: int) -> TriggeredRun:
    return TriggeredRun.of(RunId(FlowName(flow), RunNumber(number)), version)
