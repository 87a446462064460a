"""Drive a flow through disasters: start it, strike at a random moment, go on, and compare with a run that had none."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from evflow.core.ids import RunId
from evflow.core.state import RunState, Task
from evflow.replay.refold import refold
from evflow.store import open_store
from evflow.store.artifacts import ArtifactView
from tests.leaks import own_process
from tests.real_runs import evflow, open_log, run_id, verified
from tests.waiting import wait_until

FLOW = Path(__file__).parent / "flow.py"
WITHIN_S = 90.0
LENGTH_S = 1.6
"""About how long an undisturbed run takes from its process's beginning: moments are drawn from it."""

Results = dict[tuple[str, tuple[int, ...]], dict[str, bytes]]
"""Step and place to the digests of the artifacts that were made there."""

_undisturbed: dict[tuple[str, ...], Results] = {}


@dataclass(frozen=True)
class Note:
    """A line of the flow's book."""

    what: str
    task: int
    attempt: int
    step: str
    pid: int


@dataclass
class Chaos:
    """One flow in a test's own world.

    Attributes:
        root: The test's folder.
        home: EVFLOW_HOME.
        options: Of `run`.
        random: Where moments come from.
        started: The processes that were started, in order.
        begun_again: The first run had died before its first event.
    """

    root: Path
    home: Path
    random: Random
    options: tuple[str, ...] = ()
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    begun_again: bool = False

    def __post_init__(self) -> None:
        self.folder = self.root / "w"
        shutil.copy(FLOW, self.folder / "flow.py")
        # The session's own servers are children of this process, too; a test alone in its session has none.
        self.before = {process.pid for pid in psutil.pids() if (process := own_process(pid, self.root)) is not None}
        os.environ["CHAOS_BOOK"] = str(self.book)  # the test's environment is put back after it

    # --- acts ----------------------------------------------------------------------------------------------

    @property
    def book(self) -> Path:
        """What the bodies wrote."""
        return self.root / "book"

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        """Start the run in a session of its own."""
        return self.start_file("flow.py", *self.options, *options)

    def start_file(self, file: str, *options: str) -> "subprocess.Popen[bytes]":
        """Start a run of another flow."""
        return self.spawn([sys.executable, file, "run", *options])

    def go_on(self, run: RunId) -> "subprocess.Popen[bytes]":
        """Start `evflow continue`."""
        return self.spawn([sys.executable, "-m", "evflow.cli", "continue", str(run)])

    def spawn(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start a process in the flow's folder."""
        output = (self.root / f"output-{len(self.started)}").open("wb")
        with output:
            process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.started.append(process)
        return process

    def output(self, number: int = -1) -> str:
        """What a process printed."""
        return (self.root / f"output-{range(len(self.started))[number]}").read_text()

    def moment(self, longest_s: float = LENGTH_S) -> float:
        """Wait for a random moment."""
        seconds = self.random.uniform(0, longest_s)
        time.sleep(seconds)
        return seconds

    def ended(self, process: "subprocess.Popen[bytes]") -> int:
        """Wait for a process; its exit code."""
        return process.wait(WITHIN_S)

    def finish(self, run: RunId) -> None:
        """Go on with a run whose process died, or see that it had come to its end; a run that never began is started anew."""
        code = self.ended(self.go_on(run))
        text = self.output()
        if code == 0 or f"'{run}' succeeded" in text:
            return
        assert "There is no run" in text or "has no events" in text or "no runs in" in text, text
        self.begun_again = True
        with open_log(self.home) as log:
            assert log.head(run).seq == 0, f"{run} has events and cannot be continued: {text}"
        assert self.ended(self.start()) == 0, self.output()

    # --- victims -------------------------------------------------------------------------------------------

    def fork_server(self, foreground: int) -> psutil.Process | None:
        """The foreground's fork server."""
        return next((child for child in self._children(foreground) if not _is_server(child)), None)

    def attempts(self, foreground: int) -> list[psutil.Process]:
        """The attempts that run."""
        server = self.fork_server(foreground)
        return self._children(server.pid) if server is not None else []

    def embedded_server(self) -> psutil.Process | None:
        """The embedded server."""
        return next((process for process in self.processes() if _is_server(process)), None)

    def processes(self) -> list[psutil.Process]:
        """Everything that this test started and that lives."""
        others = self.before | {os.getpid()}
        return [process for pid in psutil.pids() if pid not in others and (process := own_process(pid, self.root)) is not None]

    def _children(self, pid: int) -> list[psutil.Process]:
        with suppress(psutil.Error):
            return psutil.Process(pid).children()
        return []

    # --- what must hold ------------------------------------------------------------------------------------

    def notes(self) -> list[Note]:
        """The book."""
        lines = self.book.read_text().splitlines() if self.book.exists() else []
        return [Note(what, int(task), int(attempt), step, int(pid)) for what, task, attempt, step, pid in map(str.split, lines)]

    def state(self, run: RunId) -> RunState:
        """The run's state, from its log."""
        with open_log(self.home) as log:
            return refold(log.events(run))

    def check(self, run: RunId | None = None) -> RunState:
        """The run succeeded, made what an undisturbed one makes, ran nothing twice and nothing at once, and verifies."""
        run = run or self.last_run()
        state = self.state(run)
        assert state.status == "succeeded", (state.outcome, self.output())
        self.check_bodies(state)
        verdict = verified(str(run))
        assert verdict["exit"] == 0, verdict
        assert results(state) == self.undisturbed()
        return state

    def check_bodies(self, state: RunState) -> None:
        """No twins, and nothing that was finished began again."""
        notes = self.notes()
        assert not [note for note in notes if note.what == "twin"], notes
        if self.begun_again:
            return
        for task in state.all_tasks():
            begun = [note.attempt for note in notes if note.what == "start" and note.task == task.id]
            accepted = [attempt.number for attempt in task.attempts if attempt.outcome == "succeeded"]
            assert len(begun) == len(set(begun)), f"an attempt of task {task.id} began twice: {begun}"
            assert not (accepted and begun) or max(begun) == accepted[0], (
                f"task {task.id} was finished by attempt {accepted[0]} and ran as {begun}"
            )

    def last_run(self) -> RunId:
        """The newest run."""
        with open_log(self.home) as log:
            return log.client.runs(run_id("ChaosFlow").flow)[0].run

    def undisturbed(self) -> Results:
        """What a run makes to which nothing happens; made once for all tests."""
        found = _undisturbed.get(self.options)
        if found is None:
            assert self.ended(self.start()) == 0, self.output()
            found = _undisturbed[self.options] = results(self.state(self.last_run()))
        return found

    def gone(self) -> None:
        """No process is left."""
        wait_until(lambda: not self.processes(), "no process of the test is left")


def kill(process: psutil.Process | None) -> bool:
    """Kill -9; whether there was something to kill."""
    if process is None:
        return False
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)
        return True
    return False


def results(state: RunState) -> Results:
    """What every task made."""
    store = open_store(state.header["store"])
    made: Results = {}
    for task in state.all_tasks():
        if task.manifest is not None:
            view = ArtifactView.open(store, task.manifest)
            made[task.step, _place(task)] = {name: view.entry(name).digest for name in view.names()}
    return made


def tell(run: RunId, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of evflow on a run."""
    return evflow(words[0], str(run), *words[1:])


def until(predicate: Callable[[], object], what: str) -> None:
    """Wait for something that a real process does."""
    wait_until(predicate, what, timeout_s=WITHIN_S / 2)


def _place(task: Task) -> tuple[int, ...]:
    return tuple(frame.index for frame in task.frames())


def _is_server(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "valkey" in process.name() or "redis" in process.name()
    return False
