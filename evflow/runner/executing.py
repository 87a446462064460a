"""`ExecutingRun` and `ExecutingTask`: what a `Runner` started, while it goes on and afterwards."""

from collections.abc import AsyncIterator
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import evflow
from evflow.errors import UsageError
from evflow.imports import framework_view
from evflow.runner.errors import RunElsewhere, TaskNotKept
from evflow.runner.process import FlowProcess

if TYPE_CHECKING:
    from evflow.client.run import Run
    from evflow.client.task import Task

_STREAMS: Final = ("stdout", "stderr")
_ENDING_S: Final = 30.0
"""Longer than a process takes that has to be killed: see `evflow.runner.process`."""


class Command:
    """The command behind a run, under the names that programs for Metaflow read (`ExecutingRun.command_obj`)."""

    def __init__(self, process: FlowProcess) -> None:
        self._process = process
        self._folder: TemporaryDirectory[str] | None = None

    @property
    def command(self) -> list[str]:
        """Its words."""
        return [*self._process.command]

    @property
    def process(self) -> FlowProcess:
        """The process: `returncode`, `pid`."""
        return self._process

    @property
    def log_files(self) -> dict[str, str]:
        """Files with what it has printed until now, as `stdout` and `stderr`; they are gone with this object.

        Raises:
            OSError: They cannot be written.
        """
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="evflow-runner-")
        files = {name: Path(self._folder.name, f"{name}.log") for name in _STREAMS}
        for name, file in files.items():
            file.write_text(getattr(self._process, name).text(), "utf-8")
        return {name: str(file) for name, file in files.items()}


class ExecutingProcess:
    """The process of a run or of a task. As a context it ends what still goes on when the context is left."""

    def __init__(self, process: FlowProcess, answer: dict[str, Any], file: Path) -> None:
        self._process = process
        self._answer = answer
        self._file = file
        self._timed_out = False

    @property
    def returncode(self) -> int | None:
        """The process's exit code; None while it goes on, negative for a signal."""
        return self._process.returncode

    @property
    def status(self) -> str:
        """`running`, `successful` or `failed`, or `timeout` where `wait` ended it. As it is now."""
        if self._timed_out:
            return "timeout"
        code = self._process.returncode
        if code is None:
            return "running"
        return "failed" if code else "successful"

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._process.stdout.text()

    @property
    def stderr(self) -> str:
        """What it has printed so far on stderr: the lines of the run itself, and errors."""
        return self._process.stderr.text()

    @cached_property
    def command_obj(self) -> Command:
        """Its command and process, as programs for Metaflow read them."""
        return Command(self._process)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    async def wait(self, timeout: float | None = None, stream: str | None = None) -> Self:  # noqa: ASYNC109 - Metaflow's name
        """Wait until the process has ended. Whoever cancels the waiting cancels the run.

        Args:
            timeout: Seconds after which the run is cancelled; `status` is `timeout` then. None: never.
            stream: Print what comes on `stdout` or `stderr` of the process while waiting.

        Returns:
            This object.
        """
        import asyncio

        try:
            async with asyncio.timeout(timeout):
                await (self._print(stream) if stream is not None else self._ended())
        except TimeoutError:
            self._timed_out = self.returncode is None
            await self.async_end()
        except BaseException:
            if self.returncode is None:
                await self.async_end()
            raise
        return self

    async def stream_log(self, stream: str, position: int | None = None) -> AsyncIterator[tuple[int, str]]:
        """Each line of a stream as it comes, until the process has ended.

        Args:
            stream: `stdout` or `stderr`.
            position: Where to begin, as an earlier call gave it; without it at the first line.

        Yields:
            Where the next line begins, and the line without its end.
        """
        if stream not in _STREAMS:
            raise UsageError(f"There is no stream {stream!r}.", "It is stdout or stderr.")
        process, at = self._process, position or 0
        captured = process.stdout if stream == "stdout" else process.stderr
        line: tuple[int, str] | None = None

        def found() -> bool:
            nonlocal line
            ended = process.returncode is not None  # asked first: what is there when it has ended is all
            line = captured.line(at, ended=ended)
            return line is not None or ended

        while True:
            await process.async_wait(found)
            if line is None:
                return
            yield line
            at = line[0]

    def end(self) -> None:
        """Cancel the run if it still goes on, and wait until it has ended."""
        self._process.end()
        self._process.wait(self._process.over, _ENDING_S)

    async def async_end(self) -> None:
        """The same without blocking the event loop; a cancelled caller waits too."""
        self._process.end()
        with framework_view():
            from anyio import move_on_after
        with move_on_after(_ENDING_S, shield=True):
            await self._ended()

    async def _ended(self) -> None:
        await self._process.async_wait(self._process.over)

    async def _print(self, stream: str) -> None:
        async for _, line in self.stream_log(stream):
            print(line, flush=True)  # noqa: T201 - asked for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.async_end()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._pathspec}: {self.status}>"

    @property
    def _pathspec(self) -> str:
        return f"{self._answer['flow_name']}/{self._answer['run_id']}"


class ExecutingRun(ExecutingProcess):
    """A run that a `Runner` started."""

    @cached_property
    def run(self) -> "Run":
        """The run, as the client has it; in no matter which namespace. It shows how far the run is now.

        Raises:
            RunElsewhere: It is in a log that this process does not use.
        """
        with framework_view():
            from evflow.client.connection import shared_log
            from evflow.client.run import Run

            here = shared_log().where
            if self._answer["metadata"] != here:
                raise RunElsewhere(self._pathspec, self._answer["metadata"], here)
            return Run.of((self._answer["flow_name"], self._answer["run_id"]), None)


class ExecutingTask(ExecutingProcess):
    """A task that a `Runner` ran again."""

    @property
    def outcome(self) -> dict[str, Any]:
        """What became of it, as `python flow.py spin --json` says it: its status, error, next steps, artifacts."""
        return self._answer

    @cached_property
    def task(self) -> "Task":
        """The task, as the client has it.

        Raises:
            TaskNotKept: It was not asked for with `persist=True`.
        """
        if not self._answer.get("task"):
            raise TaskNotKept(self._pathspec)
        parts = tuple(self._answer["task"].split("/"))
        inspect: Any = evflow.inspect_spin  # pyright: ignore[reportAttributeAccessIssue]
        with inspect(Path(self._answer["home"]).parent), framework_view():
            from evflow.client.objects import find_run
            from evflow.client.task import Task

            return Task.of(parts, find_run(*parts[:2]))

    @property
    def _pathspec(self) -> str:
        return str(self._answer["origin"])
