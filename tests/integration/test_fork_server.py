"""The fork server: processes, their output, their ends."""

import ctypes
import errno
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from evflow.core.ids import AttemptId
from evflow.store.logs import read_log, read_text
from evflow.worker import frames, leftovers, locks
from evflow.worker.attempt import _settle
from evflow.worker.forks import ForkLauncher, Started
from evflow.worker.spec import AttemptOrder, RunContext
from tests.effort import scaled
from tests.fork_bench import RUN, ForkBench, a_context, a_fork_server
from tests.waiting import wait_until

SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


def sleep_long() -> None:
    time.sleep(600)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# ---------------------------------------------------------------- start and end


def test_an_attempt_is_started_captured_and_reaped_in_this_order(root: Path) -> None:
    with a_fork_server(root, {"say": lambda: print("hello")}) as bench:
        assert bench.run("say") == (0, None, "")
        kinds = [values[0] for values in bench.seen if values[0] != frames.READY]
        assert kinds == [frames.LOADED, frames.STARTED, frames.LINES, frames.EXITED]
        assert bench.output() == "hello\n"


def test_the_exit_tells_code_or_signal(root: Path) -> None:
    def crash() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    with a_fork_server(root, {"code": lambda: 7, "crash": crash}) as bench:
        assert bench.run("code", 1) == (7, None, "")
        assert bench.run("crash", 2) == (None, signal.SIGSEGV, "")


def test_an_attempt_leads_a_session_and_group_of_its_own_and_reads_nothing(root: Path) -> None:
    def tell() -> None:
        print(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid(), repr(os.read(0, 10)), repr(sys.stdin.read()))

    with a_fork_server(root, {"tell": tell}) as bench:
        bench.run("tell")
        assert bench.output() == "True True b'' ''\n"


def test_a_second_launch_of_the_same_name_changes_nothing(root: Path) -> None:
    with a_fork_server(root, {"sleep": sleep_long, "say": lambda: None}) as bench:
        bench.launch("sleep")
        bench.launch("sleep")
        bench.until(frames.STARTED)
        bench.run("say", 2)
        bench.cancel(grace_s=0)
        bench.until(frames.EXITED)
        assert [values[:4] for values in bench.seen].count((frames.STARTED, RUN, 1, 0)) == 1


def test_the_next_attempt_of_a_task_waits_for_the_exit_of_the_one_before(root: Path) -> None:
    with a_fork_server(root, {"sleep": sleep_long, "say": lambda: None}) as bench:
        bench.launch("sleep", 1, 0)
        bench.until(frames.STARTED)
        bench.launch("say", 1, 1)
        bench.run("say", 2)  # the fork server has surely seen the launch
        assert (frames.STARTED, RUN, 1, 1) not in [values[:4] for values in bench.seen]
        bench.cancel(1, 0, grace_s=0)
        assert bench.until(frames.EXITED, 1, 1) == (0, None, "")
        order = [values[:4] for values in bench.seen if values[2:4] in {(1, 0), (1, 1)}]
        assert order.index((frames.EXITED, RUN, 1, 0)) < order.index((frames.STARTED, RUN, 1, 1))


def test_of_orders_that_come_together_each_attempt_starts_once_and_those_of_a_task_one_after_the_other(root: Path) -> None:
    with a_fork_server(root, {"say": lambda: print("said")}) as bench:
        wanted = [("say", 1, 0), ("say", 2, 0), ("say", 1, 0), ("say", 1, 1), ("say", 3, 0), ("say", 1, 2)]
        bench.launch_together(*wanted)
        for _, task, attempt in wanted:
            assert bench.until(frames.EXITED, task, attempt) == (0, None, "")
        told = [(values[0], *values[2:4]) for values in bench.seen if values[0] in {frames.STARTED, frames.EXITED}]
        assert len(told) == len(set(told)) == 2 * len(set(wanted))
        assert [one[:1] + one[2:] for one in told if one[1] == 1] == [
            (kind, attempt) for attempt in range(3) for kind in (frames.STARTED, frames.EXITED)
        ]


def test_of_orders_that_come_together_one_without_a_process_costs_the_others_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forked = ForkLauncher.launch

    def launch(self: ForkLauncher, context: RunContext, order: bytes) -> Started:
        if AttemptOrder.unpack(order).step == "none":
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return forked(self, context, order)

    monkeypatch.setattr(ForkLauncher, "launch", launch)
    with a_fork_server(root, {"say": lambda: None}) as bench:
        bench.launch_together(("none", 1, 0), ("say", 2, 0), ("say", 1, 1))
        assert bench.until(frames.EXITED, 1, 0) == (None, None, f"never-started: {os.strerror(errno.EAGAIN)}")
        assert bench.until(frames.EXITED, 2, 0) == bench.until(frames.EXITED, 1, 1) == (0, None, "")


def test_cancelling_an_attempt_that_waits_for_its_turn_never_starts_it(root: Path) -> None:
    with a_fork_server(root, {"sleep": sleep_long}) as bench:
        bench.launch("sleep", 1, 0)
        bench.launch("sleep", 1, 1)
        bench.cancel(1, 1)
        assert bench.until(frames.EXITED, 1, 1) == (None, None, "never-started")
        bench.cancel(1, 0, grace_s=0)
        bench.until(frames.EXITED, 1, 0)


def test_hundred_forked_children_draw_hundred_different_numbers(root: Path) -> None:
    def draw() -> None:
        _settle(a_context(root), AttemptOrder("draw", 1, 0))
        print(random.random(), np.random.random())

    count, drawn = scaled(100, at_least=20), list[list[str]]()
    with a_fork_server(root, {"draw": draw}) as bench:
        for first in range(
            1, count + 1, 100
        ):  # side by side; a fork of a large process takes a while, and the server forks all before it tells
            tasks = range(first, min(first + 100, count + 1))
            for task in tasks:
                bench.launch("draw", task)
            drawn += [bench.wait_for_output("\n", task).split() for task in tasks]
            for task in tasks:
                bench.until(frames.EXITED, task)
    assert len({pair[0] for pair in drawn}) == count
    assert len({pair[1] for pair in drawn}) == count


def test_what_is_over_leaves_nothing_in_the_fork_server_for_later_forks(root: Path) -> None:
    """No collector runs there: what a cycle holds would be in every later fork, and looked at by its collector."""
    with a_fork_server(root, {"count": lambda: print(len(gc.get_objects()))}) as bench:
        for task in range(1, 61):
            assert bench.run("count", task) == (0, None, "")
        early, late = (int(bench.wait_for_output("\n", task)) for task in (20, 60))
    assert late - early < 40, "each attempt left an object or more"


# ---------------------------------------------------------------- the spare


def spare_of(bench: ForkBench) -> psutil.Process:
    """The child that waits for an order."""
    [child] = wait_until(psutil.Process(bench.server.pid).children, "a process waits for its order")
    return child


def test_the_next_attempt_gets_the_process_that_waited(root: Path) -> None:
    with a_fork_server(root, {"say": lambda: print("hello")}) as bench:
        spare = spare_of(bench)
        assert bench.run("say") == (0, None, "")
        assert bench.until(frames.STARTED) == (spare.pid, bench.until(frames.STARTED)[1])
        assert bench.output() == "hello\n"


def _is_dead(pid: int) -> bool:
    return not alive(pid)


def test_a_spare_that_died_is_not_missed(root: Path) -> None:
    with a_fork_server(root, {"say": lambda: None}) as bench:
        for task in (1, 2, 3):
            spare = spare_of(bench)
            spare.kill()
            wait_until(partial(_is_dead, spare.pid), "it is dead")
            assert bench.run("say", task) == (0, None, "")
            assert bench.until(frames.STARTED, task)[0] != spare.pid


def test_the_process_that_waited_outlives_its_run_and_takes_the_next_ones_first_order(root: Path) -> None:
    with a_fork_server(root, {"tell": lambda: print(os.environ["EVFLOW_ATTEMPT_LOCKS"])}) as bench:
        spare = spare_of(bench)
        bench.say(frames.FORGET, RUN)
        bench.say(frames.CONTEXT, RUN, a_context(root, lock_file=str(root / "next-locks")).pack())
        assert bench.run("tell") == (0, None, "")
        assert bench.until(frames.STARTED)[0] == spare.pid
        assert bench.output() == f"{root}/next-locks\n"


def test_a_spare_never_runs_what_it_was_made_before(root: Path) -> None:
    with a_fork_server(root, {"tell": lambda: print(os.environ["EVFLOW_ATTEMPT_LOCKS"])}) as bench:
        spare_of(bench)
        other = a_context(root, lock_file=str(root / "other-locks"))
        bench.say(frames.CONTEXT, RUN, other.pack())
        bench.run("tell")
        assert bench.output() == f"{root}/other-locks\n"


def test_an_order_that_is_too_long_for_a_pipe_is_carried_out(root: Path) -> None:
    with a_fork_server(root, {"say": lambda: print("hello")}) as bench:
        spare_of(bench)
        parents = tuple(("body", task, bytes(32)) for task in range(20_000))
        bench.say(frames.LAUNCH, RUN, 1, 0, AttemptOrder("say", 1, 0, parents=parents).pack())
        assert bench.until(frames.EXITED) == (0, None, "")
        assert bench.output() == "hello\n"


def test_where_many_attempts_run_no_process_waits(root: Path) -> None:
    with a_fork_server(root, {"sleep": sleep_long}) as bench:
        for task in range(1, 5):
            bench.launch("sleep", task)
        pids = {bench.until(frames.STARTED, task)[0] for task in range(1, 5)}
        wait_until(lambda: {child.pid for child in psutil.Process(bench.server.pid).children()} <= pids, "only attempts are there")
        bench.say(frames.SHUTDOWN, 0.0)
        for task in range(1, 5):
            bench.until(frames.EXITED, task)


# ---------------------------------------------------------------- descriptors


def test_an_attempt_has_no_descriptor_of_the_foreground_or_the_fork_server(root: Path) -> None:
    def look() -> None:
        targets = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists()]
        print([target for target in targets if target.startswith(("socket:", "anon_inode:", str(root)))])
        print(sum(target.startswith("pipe:") for target in targets))

    home = root / "e"
    home.mkdir()
    ours, theirs = socket.socketpair()
    with ours, theirs, (home / "guard").open("w"), a_fork_server(root, {"look": look, "sleep": sleep_long}) as bench:
        bench.launch("sleep", 2)
        bench.run("look")
        bench.cancel(2, grace_s=0)
        bench.until(frames.EXITED, 2)
        assert bench.output().splitlines() == [repr([str(root / "locks")]), "2"]


def test_a_file_that_the_user_opened_before_the_fork_can_still_be_written(root: Path) -> None:
    log = root / "users.log"
    with log.open("a", buffering=1) as file, a_fork_server(root, {"write": lambda: print("from a task", file=file)}) as bench:
        assert bench.run("write") == (0, None, "")
    assert log.read_text() == "from a task\n"


def test_a_connection_of_the_user_is_an_error_in_an_attempt_and_never_another_file(root: Path) -> None:
    ours, theirs = socket.socketpair()

    def use() -> None:
        try:
            ours.send(b"x")
        except OSError as error:
            print(error.strerror)

    with ours, theirs, a_fork_server(root, {"use": use}) as bench:
        bench.run("use")
        assert bench.output() == "Socket operation on non-socket\n"
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


# ---------------------------------------------------------------- output


def test_binary_junk_and_lines_without_end_are_kept_byte_for_byte(root: Path) -> None:
    junk = bytes(range(256)) * 3
    parts = [junk, b"x" * 300_000, b"\nno newline at the end"]

    def write() -> None:
        for part in parts:
            os.write(1, part)

    with a_fork_server(root, {"write": write}) as bench:
        bench.run("write")
        text = b"".join(parts).decode("utf-8", "replace")
        logged = read_text(bench.context.log_folder, 1, 0, "stdout")
        assert logged.replace("�", "") == text.replace("�", "")
        assert bench.output() == logged


def test_output_at_the_very_end_and_from_c_is_captured(root: Path) -> None:
    def write() -> None:
        ctypes.CDLL(None).printf(b"from C\n")
        sys.stdout.write("no newline")

    with a_fork_server(root, {"write": write}) as bench:
        bench.run("write")
        assert sorted(bench.output().replace("no newline", "").split("\n")) == ["", "from C"]
        assert "no newline" in bench.output()


def test_the_two_streams_are_told_apart_and_merged_by_time(root: Path) -> None:
    def write() -> None:
        for number in range(3):
            print("out", number)
            sys.stderr.write(f"err {number}\n")

    with a_fork_server(root, {"write": write}) as bench:
        bench.run("write")
        assert bench.output("stderr") == "err 0\nerr 1\nerr 2\n"
        both = list(read_log(bench.context.log_folder, 1, 0))
        assert [line.text for line in both if line.stream == "stdout"] == ["out 0", "out 1", "out 2"]
        assert [line.at_us for line in both] == sorted(line.at_us for line in both)


def test_a_log_over_its_limit_keeps_its_beginning_and_its_end(root: Path) -> None:
    def write() -> None:
        for number in range(60_000):
            print(f"line {number:06}")

    with a_fork_server(root, {"write": write}, options={"max_log_size_mb": 1}) as bench:
        bench.run("write")
        lines = [line.text for line in read_log(bench.context.log_folder, 1, 0)]
        assert lines[0] == "line 000000"
        assert lines[-1] == "line 059999"
        assert sum("left out" in line for line in lines) == 1
        assert (root / "logs" / "1.0.log").stat().st_size < 1_300_000


def test_a_silent_attempt_leaves_no_file(root: Path) -> None:
    with a_fork_server(root, {"nothing": lambda: None}) as bench:
        bench.run("nothing")
    assert list((root / "logs").iterdir()) == []


def test_a_printer_that_nobody_reads_waits_and_loses_nothing(root: Path) -> None:
    lines = 300_000

    def write() -> None:
        for number in range(lines):
            print(f"a line of some forty characters, number {number}")

    with a_fork_server(root, {"write": write, "nothing": lambda: None}) as bench:
        bench.launch("write")
        bench.until(frames.STARTED)
        time.sleep(0.3)  # nobody reads; the buffers fill
        memory = psutil.Process(bench.server.pid).memory_info().rss
        bench.until(frames.EXITED)
        assert bench.output().count("\n") == lines
        assert memory < psutil.Process().memory_info().rss + 100e6


# ---------------------------------------------------------------- what attempts start


def test_children_of_an_attempt_end_with_it(root: Path) -> None:
    def start() -> None:
        print(subprocess.Popen(SLEEPER).pid)

    with a_fork_server(root, {"start": start}) as bench:
        assert bench.run("start") == (0, None, "")
        pid = int(bench.output())
        wait_until(lambda: not alive(pid), "the child is gone")


def test_a_child_that_left_the_group_and_holds_the_pipes_delays_nobody(root: Path) -> None:
    def start() -> None:
        print(subprocess.Popen(SLEEPER, start_new_session=True).pid)

    with a_fork_server(root, {"start": start}) as bench:
        assert bench.run("start") == (0, None, "")
        pid = int(bench.output())
        assert alive(pid)
    assert not alive(pid), "the fork server's own end takes it along"


def test_cancelling_ends_children_in_sessions_of_their_own_too(root: Path) -> None:
    def start() -> None:
        print(subprocess.Popen(SLEEPER, start_new_session=True).pid)
        sleep_long()

    with a_fork_server(root, {"start": start}) as bench:
        bench.launch("start")
        pid = int(bench.wait_for_output("\n"))
        bench.cancel(grace_s=0)
        bench.until(frames.EXITED)
        wait_until(lambda: not alive(pid), "the grandchild is gone")


def test_sigterm_comes_first_and_sigkill_after_the_grace(root: Path) -> None:
    def polite() -> int:
        signal.signal(signal.SIGTERM, leave)
        print("ready")
        sleep_long()
        return 0

    def leave(_number: int, _frame: object) -> None:
        os._exit(9)

    def stubborn() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready")
        sleep_long()

    with a_fork_server(root, {"polite": polite, "stubborn": stubborn}) as bench:
        for task, step in ((1, "polite"), (2, "stubborn")):
            bench.launch(step, task)
            bench.wait_for_output("ready", task)
        bench.cancel(1, grace_s=60)
        assert bench.until(frames.EXITED, 1) == (9, None, "")
        bench.cancel(2, grace_s=0.05)
        assert bench.until(frames.EXITED, 2) == (None, signal.SIGKILL, "")


# ---------------------------------------------------------------- deaths


def test_attempts_die_with_a_killed_fork_server(root: Path) -> None:
    with a_fork_server(root, {"sleep": sleep_long}) as bench:
        for task in (1, 2, 3):
            bench.launch("sleep", task)
        pids = [bench.until(frames.STARTED, task)[0] for task in (1, 2, 3)]
        bench.server.kill()
        wait_until(lambda: not any(map(alive, pids)), "the attempts are gone")
        wait_until(lambda: locks.holder(bench.context.lock_file, 1, 0) is None, "the lock is free")


def test_shutdown_ends_everything_and_tells_each_exit(root: Path) -> None:
    with a_fork_server(root, {"sleep": sleep_long}) as bench:
        bench.launch("sleep", 1)
        bench.launch("sleep", 2)
        bench.say(frames.SHUTDOWN, 0.0)
        assert bench.until(frames.EXITED, 1)[1] in {signal.SIGTERM, signal.SIGKILL}
        assert bench.until(frames.EXITED, 2)[1] in {signal.SIGTERM, signal.SIGKILL}
        wait_until(bench.server.poll, "the fork server is gone")
        assert bench.server.exit_code == 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_ctrl_c_while_the_fork_server_begins_is_the_foregrounds_alone(root: Path, method: str) -> None:
    """It is in the terminal's process group for as long as it has no session of its own."""
    script = root / "w" / "begins.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, signal, sys, time
        from evflow import FlowSpec, step
        from evflow.worker.forkserver import ForkServer

        class Begins(FlowSpec):
            @step
            def start(self):
                self.next(self.end)
            @step
            def end(self):
                pass

        def interrupted(make):
            def made(*arguments, **options):
                pid = make(*arguments, **options)
                time.sleep(0.04 if pid else 0.3)  # it has begun
                if pid:
                    os.killpg(0, signal.SIGINT)
                return pid
            return made

        os.fork, os.posix_spawn = interrupted(os.fork), interrupted(os.posix_spawn)
        try:
            ForkServer.fork_here(Begins, asked={method!r})
        except KeyboardInterrupt:
            print("heard", flush=True)
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, start_new_session=True, check=True)
    assert (done.stdout, done.stderr) == ("heard\n", "")


def test_nothing_is_left_of_a_killed_foreground(root: Path) -> None:
    def start() -> None:
        subprocess.Popen(SLEEPER)
        subprocess.Popen(SLEEPER, start_new_session=True)
        sleep_long()

    reading, writing = os.pipe()
    foreground = os.fork()
    if foreground == 0:
        bench = ForkBench(root, {"start": start})
        for task in (1, 2):
            bench.launch("start", task)
            bench.until(frames.STARTED, task)
        os.write(writing, b"x")
        time.sleep(600)
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.close(reading)

    def children() -> list[int]:
        return [process.pid for process in psutil.process_iter() if _root_of(process) == str(root) or process.pid == foreground]

    descendants = psutil.Process(foreground).children(recursive=True)
    wait_until(lambda: len(psutil.Process(foreground).children(recursive=True)) >= 7, "two attempts with two children each")
    descendants = psutil.Process(foreground).children(recursive=True)
    os.kill(foreground, signal.SIGKILL)
    os.waitpid(foreground, 0)
    wait_until(lambda: not any(alive(process.pid) for process in descendants), "no process is left")
    assert children() == []


def _root_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(leftovers.LOCKS_VARIABLE, "").rpartition("/")[0]
    except psutil.Error:
        return None


def test_end_attempt_ends_holder_children_and_strays_and_returns_when_the_lock_is_free(root: Path) -> None:
    def start() -> None:
        for own_session in (False, True):
            print(subprocess.Popen(SLEEPER, start_new_session=own_session).pid, flush=True)
        sleep_long()

    with a_fork_server(root, {"start": start}) as bench:
        bench.launch("start", 5, 2)
        pids = [int(line) for line in bench.wait_for_output("\n", 5, 2).split()]
        while len(pids) < 2:
            bench._receive()
            pids = [int(line) for line in bench.output(task=5, attempt=2).split()]
        assert locks.holder(bench.context.lock_file, 5, 2) == bench.until(frames.STARTED, 5, 2)[0]
        assert leftovers.end_attempt(bench.context.lock_file, AttemptId.parse("Flow/1/5.2")) >= 2
        assert locks.holder(bench.context.lock_file, 5, 2) is None
        wait_until(lambda: not any(map(alive, pids)), "everything that it started is gone")
        bench.until(frames.EXITED, 5, 2)


def test_end_attempt_leaves_other_attempts_and_other_runs_alone(root: Path) -> None:
    with a_fork_server(root, {"sleep": sleep_long}) as bench:
        bench.launch("sleep", 1, 0)
        pid = bench.until(frames.STARTED)[0]
        wait_until(lambda: locks.holder(bench.context.lock_file, 1, 0) == pid, "it runs")
        assert leftovers.end_attempt(bench.context.lock_file, AttemptId.parse("Flow/1/2.0")) == 0
        assert leftovers.end_attempt(str(root / "other-locks"), AttemptId.parse("Flow/1/1.0")) == 0
        assert alive(pid)
        bench.cancel(grace_s=0)
        bench.until(frames.EXITED)
