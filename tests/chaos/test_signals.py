"""Signals and terminals: a run that is asked to end ends, once, and leaves nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evflow.core import events as ev
from evflow.core.codec import decode
from evflow.core.ids import RunId
from tests.chaos.driver import Chaos, until
from tests.chaos.terminal import Terminal
from tests.effort import rng, scaled
from tests.leaks import describe
from tests.real_runs import open_log, run_id, verified
from tests.waiting import wait_until

RUN = run_id("PatientFlow")
CTRL_C = b"\x03"
PATIENT = Path(__file__).parent / "patient.py"
COMMAND = [sys.executable, "patient.py", "run"]


@pytest.fixture
def chaos(root: Path, evflow_home: Path, request: pytest.FixtureRequest) -> Chaos:
    """The patient flow in its folder."""
    chaos = Chaos(root, evflow_home, rng("signals", request.node.name))
    shutil.copy(PATIENT, chaos.folder / "patient.py")
    return chaos


def waits(chaos: Chaos, tasks: int = 3) -> bool:
    """Whether all its bodies run."""
    return sum(note.what == "start" for note in chaos.notes()) >= tasks


def events(chaos: Chaos, run: RunId = RUN) -> list[ev.Event]:
    with open_log(chaos.home) as log:
        return [decode(event.seq, event.payload).event for event in log.events(run)]


def cancelled_once(chaos: Chaos, *, forced: bool = False) -> None:
    """One cancellation, no retry, nothing caught, no process, and a log that verifies."""
    found = events(chaos)
    assert [type(event) for event in found].count(ev.RunCancelled) == 1
    assert [event.forced for event in found if isinstance(event, ev.RunCancelRequested)] == [False, True][: 1 + forced]
    assert not [event for event in found if isinstance(event, (ev.RetryScheduled, ev.AttemptFailed))]
    assert not [event for event in found if isinstance(event, ev.AttemptSucceeded) and event.caught]
    assert {type(found[-1]), type(found[-2])} == {ev.RunSealed, ev.RunCancelled}
    assert verified(str(RUN))["exit"] == 0
    chaos.gone()


def test_ctrl_c_in_a_terminal_cancels_the_run_once(chaos: Chaos) -> None:
    """No retry, no caught exception, no process is left."""
    with Terminal(COMMAND, chaos.folder) as terminal:
        until(lambda: terminal.screen() and waits(chaos), "the bodies run")
        terminal.press(CTRL_C)
        until(terminal.ended, "the run has ended")
        assert terminal.process.returncode == 1, terminal.screen()
        assert "Traceback" not in terminal.screen()
    cancelled_once(chaos)


def test_ctrl_c_twice_kills_what_does_not_listen(chaos: Chaos, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bodies ignore SIGTERM."""
    monkeypatch.setenv("CHAOS_LONG_GRACE", "1")
    with Terminal([*COMMAND, "--deaf", "True"], chaos.folder) as terminal:
        until(lambda: terminal.screen() and waits(chaos), "the bodies run")
        terminal.press(CTRL_C)
        until(lambda: "once more" in terminal.screen(), "the first one is heard")
        terminal.press(CTRL_C)
        until(terminal.ended, "the run has ended")
        assert terminal.process.returncode == 1, terminal.screen()
    cancelled_once(chaos, forced=True)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux")
def test_ctrl_c_in_tmux_cancels_the_run_once(chaos: Chaos) -> None:
    """With a shell above the run, as people have it."""
    tmux = ["tmux", "-S", str(chaos.root / "tmux"), "-f", "/dev/null"]
    command = f"cd {chaos.folder} && {' '.join(COMMAND)}"
    subprocess.run([*tmux, "new-session", "-d", "-x", "120", "-y", "40", "sh"], check=True)
    try:
        subprocess.run([*tmux, "send-keys", command, "Enter"], check=True)
        until(lambda: waits(chaos), "the bodies run")
        subprocess.run([*tmux, "send-keys", "C-c"], check=True)
        until(lambda: isinstance(events(chaos)[-1], ev.RunSealed), "the run is sealed")
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
    cancelled_once(chaos)


@pytest.mark.parametrize("view", ["live", "plain"])
def test_a_closed_terminal_cancels_the_run(chaos: Chaos, view: str) -> None:
    """SIGHUP, and nothing that is printed arrives any more."""
    with Terminal([*COMMAND, "--view", view], chaos.folder) as terminal:
        until(lambda: terminal.screen() and waits(chaos), "the bodies run")
        terminal.close()
        until(terminal.ended, "the run has ended")
    cancelled_once(chaos)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_to_the_process_cancels_the_run(chaos: Chaos, number: signal.Signals) -> None:
    """A service manager, a shell that ends, another program."""
    process = chaos.start_file("patient.py")
    until(lambda: waits(chaos), "the bodies run")
    process.send_signal(number)
    assert chaos.ended(process) == 1, chaos.output()
    cancelled_once(chaos)


def that_has_its_number_and_waits(chaos: Chaos) -> tuple["subprocess.Popen[bytes]", Path]:
    """A run before its first event, and the pipe in which somebody must read its number."""
    pipe = chaos.root / "number"
    os.mkfifo(pipe)
    process = chaos.start_file("patient.py", "--run-id-file", str(pipe))

    def has_its_number() -> bool:
        with open_log(chaos.home) as log:
            return bool(log.client.runs(RUN.flow))

    until(has_its_number, "the run has its number")
    return process, pipe


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_before_the_first_event_cancels_the_run_that_has_a_number(chaos: Chaos, number: signal.Signals) -> None:
    """It is not left behind as one that starts."""
    process, pipe = that_has_its_number_and_waits(chaos)
    process.send_signal(number)
    assert pipe.read_text() == "1\n"
    assert chaos.ended(process) == 1, chaos.output()
    assert "Traceback" not in chaos.output()
    cancelled_once(chaos)


def test_a_second_signal_ends_a_run_that_cannot_begin(chaos: Chaos) -> None:
    process, _ = that_has_its_number_and_waits(chaos)

    def has_heard_two() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    until(has_heard_two, "the process has heard two of them")
    assert (process.returncode, "Traceback" in chaos.output()) == (130, False), chaos.output()
    chaos.gone()


def test_nohup_keeps_a_run_from_its_terminals_end(chaos: Chaos) -> None:
    process = chaos.spawn(["nohup", *COMMAND])
    until(lambda: waits(chaos), "the bodies run")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert chaos.ended(process) == 1, chaos.output()
    cancelled_once(chaos)
    assert [event.reason for event in events(chaos) if isinstance(event, ev.RunCancelRequested)] == ["SIGTERM"]


@pytest.mark.parametrize("moment", range(scaled(5)))
def test_killed_while_it_starts_it_leaves_nothing_and_the_next_run_runs(chaos: Chaos, moment: int) -> None:
    """Before its first event, mostly: there is nothing to go on with then."""
    process = chaos.start()
    chaos.moment(0.25)
    process.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[moment % 3])
    chaos.ended(process)
    # A Ctrl-C among the user's own imports is Python's to show.
    assert "ChaosFlow()" not in chaos.output()
    assert "Internal error" not in chaos.output()
    wait_until(lambda: not [left for left in chaos.processes() if "flow.py" in describe(left)], "its processes are gone")
    chaos.book.unlink(missing_ok=True)  # What a first run had begun is not the next one's.
    assert chaos.ended(chaos.start()) == 0, chaos.output()
    chaos.check()
    chaos.gone()


@pytest.mark.timeout(180)
def test_an_owner_that_slept_through_its_lease_stops_without_another_word(chaos: Chaos) -> None:
    """Stopped for longer than its lease, it finds its run in other hands when it is resumed."""
    chaos.options = ("--pace", "0.4")
    run = run_id("ChaosFlow")
    sleeper = chaos.start()
    until(lambda: len(chaos.notes()) > 3, "some bodies run")
    os.kill(sleeper.pid, signal.SIGSTOP)
    try:
        with open_log(chaos.home) as log:
            with log.lease_kept(run):
                early = chaos.go_on(run)
                assert chaos.ended(early) == 1
            assert "is being run by" in chaos.output(), chaos.output()
            until(lambda: log.client.owner(f"run:{run.flow}:{run.number}") is None, "the lease has run out")
        successor = chaos.go_on(run)
        until(lambda: any(isinstance(event, ev.RunContinued) for event in events(chaos, run)), "the run is in other hands")
        chaos.moment(0.5)
    finally:
        os.kill(sleeper.pid, signal.SIGCONT)
    assert chaos.ended(successor) == 0, chaos.output()
    assert chaos.ended(sleeper) == 1
    assert "taken over" in chaos.output(0) or "has no owner" in chaos.output(0) or "sealed" in chaos.output(0), chaos.output(0)
    chaos.check(run)
    chaos.gone()


def test_a_full_disk_fails_the_step_with_its_reason_and_the_rest_is_kept(chaos: Chaos, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artifacts of other tasks are untouched; a resumed run makes what is missing."""
    monkeypatch.setenv("CHAOS_FULL_DISK", "1")
    process = chaos.start_file("patient.py", "--seconds", "0")
    assert chaos.ended(process) == 1, chaos.output()
    assert "Internal error" not in chaos.output()
    failed = [event for event in events(chaos) if isinstance(event, ev.AttemptFailed)]
    assert {event.kind for event in failed} == {"store"}, failed
    assert verified(str(RUN))["exit"] == 0
    monkeypatch.delenv("CHAOS_FULL_DISK")
    resumed = chaos.spawn([sys.executable, "patient.py", "resume"])
    assert chaos.ended(resumed) == 0, chaos.output()
    chaos.gone()


def test_a_slow_disk_delays_and_loses_nothing(chaos: Chaos, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sync takes long, and the run is killed among them."""
    monkeypatch.setenv("CHAOS_SLOW_DISK", "1")
    process = chaos.start_file("patient.py", "--seconds", "0.05", "--width", "5")
    until(lambda: waits(chaos, 1), "a body runs")
    chaos.moment(0.3)
    process.kill()
    chaos.ended(process)
    chaos.finish(RUN)
    state = chaos.state(RUN)
    assert state.status == "succeeded"
    chaos.check_bodies(state)
    assert verified(str(RUN))["exit"] == 0
    chaos.gone()
