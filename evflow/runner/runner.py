"""`Runner`: run a flow from Python, as `python flow.py run` does it from a shell."""

import os
import signal
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from evflow.deployments.own_process import FlowFileMissing, environment
from evflow.flow import dialect
from evflow.flow.invocation import command as flow_command
from evflow.imports import framework_view
from evflow.runner.errors import RunNotStarted, RunStartLate, TaskSpunFailed
from evflow.runner.executing import ExecutingProcess, ExecutingRun, ExecutingTask
from evflow.runner.process import FlowProcess
from evflow.runner.words import call, top_words

_P = TypeVar("_P", bound=ExecutingProcess)
_ENDING_S: Final = 30.0
_ANSWERS: Final = {"spin": "--outcome-file"}
"""The option by which a command answers at its end. The commands of runs answer when the run has begun."""


class Runner:
    """Runs a flow: `Runner("flow.py").run(alpha=0.5)`.

    The flow runs in a process of its own, so its imports, its folder and its settings are its own. As a context, a runner ends what
    it started and still goes on when the context is left.

    Args:
        flow_file: The path of the flow's file, from the current folder, or else from `cwd`.
        show_output: Print what the process prints; for the calls that block.
        profile: Metaflow's, for a flow that says `import metaflow`: its METAFLOW_PROFILE. evflow's own settings have no profiles.
        env: Environment variables of the process, beside those of this one.
        cwd: Its working folder; this process's own if not given.
        file_read_timeout: Seconds that the process may take until its run has begun.
        top_level: Options that stand before the command, by their names in Python: `quiet=True`, `decospecs=["retry:times=3"]`,
            `config={"conf": "conf.json"}`, `config_value={"conf": {"a": 1}}`, `pylint=False`.

    Raises:
        FlowFileMissing: There is no such file.
        ArgumentUnfit: A value of an option is none that can be given.
    """

    def __init__(
        self,
        flow_file: "str | os.PathLike[str]",
        show_output: bool = True,
        profile: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: "str | os.PathLike[str] | None" = None,
        file_read_timeout: float = 3600,
        **top_level: Any,
    ) -> None:
        here, there = Path(flow_file).absolute(), Path(cwd or "", flow_file).absolute()
        self._file = here if here.is_file() else there
        if not self._file.is_file():
            raise FlowFileMissing(here, "Runner takes the path of a flow's file; NBRunner takes a class of a notebook.")
        self._show_output = show_output
        self._env = {**(env or {}), **({"METAFLOW_PROFILE": profile} if profile else {})}
        self._cwd = None if cwd is None else os.fspath(cwd)
        self._start_s = file_read_timeout
        self._words = list(top_words(top_level))
        self._started: weakref.WeakSet[FlowProcess] = weakref.WeakSet()

    # --- what blocks ----------------------------------------------------------------------------------------

    def run(self, **options: Any) -> ExecutingRun:
        """Run the flow, and wait until the run is over.

        Args:
            options: Parameters of the flow, as values or as texts of a command line (None counts as not given), and options of
                `python flow.py run`: `tags=["a"]`, `max_workers=4`, `max_num_splits=1000`, …

        Returns:
            The run, however it ended: see its `status`.

        Raises:
            RunNotStarted: There is no run: a parameter is unknown, is missing or does not fit, the flow has mistakes, …
            ArgumentUnfit: A value is none that can be given.
            RunStartLate: The run did not begin within `file_read_timeout`.
        """
        return self._blocking(ExecutingRun, "run", (), options)

    def resume(self, step_to_rerun: str | None = None, **options: Any) -> ExecutingRun:
        """Make a new run that takes over what another one finished, and wait until it is over.

        Args:
            step_to_rerun: This step and all behind it run again.
            options: As for `run`, with `origin_run_id=`: the run to take over, the flow's last one if not given. Parameters that are
                not given are those of that run.

        Raises: As `run`.
        """
        return self._blocking(ExecutingRun, "resume", _given(step_to_rerun), options)

    def spin(self, pathspec: str, **options: Any) -> ExecutingTask:
        """Run one task of a past run again, with its inputs and the code of now, and wait for it.

        Args:
            pathspec: A step, or `Flow/run/step/task`.
            options: Options of `python flow.py spin`: `persist=True` keeps it, so that `task` is there, `skip_decorators=True`, …

        Raises: As `run`; under Metaflow's rules also TaskSpunFailed, where the task fails.
        """
        return self._blocking(ExecutingTask, "spin", (pathspec,), options)

    # --- what does not --------------------------------------------------------------------------------------

    async def async_run(self, **options: Any) -> ExecutingRun:
        """As `run`, on an event loop of asyncio, and it returns when the run has begun. A cancelled call cancels what it started."""
        return await self._beginning(ExecutingRun, "run", (), options)

    async def async_resume(self, step_to_rerun: str | None = None, **options: Any) -> ExecutingRun:
        """As `resume`, and as `async_run`."""
        return await self._beginning(ExecutingRun, "resume", _given(step_to_rerun), options)

    async def async_spin(self, pathspec: str, **options: Any) -> ExecutingTask:
        """As `spin`, without blocking the event loop: it returns when the task has ended."""
        return await self._beginning(ExecutingTask, "spin", (pathspec,), options)

    # --- the end --------------------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Cancel the runs that still go on, and wait until they have ended. What they printed stays readable."""
        going_on = [process for process in self._started if process.returncode is None]
        for process in going_on:
            process.end()
        for process in going_on:
            process.wait(process.over, _ENDING_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        going_on = [process for process in self._started if process.returncode is None]
        for process in going_on:
            process.end()
        with framework_view():
            from anyio import move_on_after
        with move_on_after(_ENDING_S, shield=True):
            for process in going_on:
                await process.async_wait(process.over)

    def __repr__(self) -> str:
        return f"Runner({str(self._file)!r})"

    # --- how ------------------------------------------------------------------------------------------------

    def _start(self, command: str, arguments: Sequence[object], options: Mapping[str, Any], *, echo: bool) -> FlowProcess:
        def words(call_fd: int, answer_fd: int) -> list[str]:
            answer = _ANSWERS.get(command, "--runner-attribute-file")
            return [
                *flow_command(str(self._file)),
                *self._words,
                command,
                f"--runner-call={call_fd}",
                f"{answer}=/dev/fd/{answer_fd}",
            ]

        process = FlowProcess(words, call(arguments, options), env=environment(self._env), cwd=self._cwd, echo=echo)
        self._started.add(process)
        return process

    def _blocking(self, kind: type[_P], command: str, arguments: Sequence[object], options: Mapping[str, Any]) -> _P:
        process = self._start(command, arguments, options, echo=self._show_output)
        try:
            in_time = process.wait(process.settled, self._start_s)
            executing = self._executing(kind, process) if in_time else None
            if executing is None:
                process.end()
            process.wait(process.over)
        except BaseException as error:
            process.end(by=signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
            try:
                process.wait(process.over, _ENDING_S)
            except KeyboardInterrupt:  # once more, which kills what still runs
                process.insist()
                process.wait(process.over, _ENDING_S)
            raise
        if executing is None:
            raise RunStartLate(self._file, self._start_s)
        return executing

    async def _beginning(self, kind: type[_P], command: str, arguments: Sequence[object], options: Mapping[str, Any]) -> _P:
        import asyncio

        process = self._start(command, arguments, options, echo=False)
        try:
            async with asyncio.timeout(self._start_s):
                await process.async_wait(process.over if command in _ANSWERS else process.settled)
            return self._executing(kind, process)
        except TimeoutError:
            process.end()
            raise RunStartLate(self._file, self._start_s) from None
        except BaseException:
            process.end()  # it says goodbye by itself: a cancelled call does not wait for it
            raise

    def _executing(self, kind: type[_P], process: FlowProcess) -> _P:
        answer = process.answer
        if answer is None:
            process.end()
            process.wait(process.over, _ENDING_S)
            assert process.returncode is not None
            raise RunNotStarted(self._file, process.returncode, process.stderr.text())
        if kind is ExecutingTask and answer.get("status") == "failed" and dialect.is_metaflow():
            process.wait(process.over, _ENDING_S)
            raise TaskSpunFailed(answer, process.stdout.text())
        return kind(process, answer, self._file)


def _given(step: str | None) -> tuple[str, ...]:
    return () if step is None else (step,)
