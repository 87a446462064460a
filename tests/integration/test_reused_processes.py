"""A process that serves several attempts: what the next one finds as in a new process, and what ends it instead."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evflow.core.events import AttemptSucceeded
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.store.artifacts import save
from evflow.worker import locks
from evflow.worker.forks import MAX_SPARE_ORDER_BYTES, Started
from evflow.worker.reused import IDLE_S, Pipes, Reused, ReusedProcesses
from evflow.worker.spec import AttemptOrder, RunContext
from tests.attempt_world import RUN, AttemptWorld, an_attempt_world
from tests.waiting import wait_until

pytestmark = pytest.mark.may_block("the harness reads the inbox and the store between attempts")

BODIES = """
import atexit, random, resource, threading

kept = []

class MyFlow(FlowSpec):
    @step
    def start(self):
        kept.append(current.task_id)
        print("pid", os.getpid(), end="")
        self.next(self.end)

    @step
    def soils(self):
        kept.append(current.task_id)
        print("pid", os.getpid())
        os.environ["SOILED"] = "yes"
        os.environ.pop("PATH")
        os.umask(0o000)
        os.mkdir("elsewhere")
        os.chdir("elsewhere")
        sys.path.insert(0, "/soiled")
        sys.argv.append("soiled")
        sys.stdout = open(os.devnull, "w")
        sys.setrecursionlimit(123_456)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        signal.setitimer(signal.ITIMER_REAL, 600)
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        self.next(self.end)

    @step
    def looks(self):
        print("pid", os.getpid())
        old = os.umask(0o022)
        self.found = {
            "environment": ("SOILED" in os.environ, "PATH" in os.environ, os.environ["EVFLOW_ATTEMPT"]),
            "folder": os.getcwd(), "umask": old, "path": "/soiled" in sys.path, "argv": "soiled" in sys.argv,
            "recursion": sys.getrecursionlimit(), "usr1": signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
            "term": signal.getsignal(signal.SIGTERM) != signal.SIG_IGN, "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "timer": signal.getitimer(signal.ITIMER_REAL)[0], "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        }
        self.kept = list(kept)
        self.drawn = random.random()
        self.next(self.end)

    @step
    def seeds(self):
        print("pid", os.getpid())
        random.seed(1)
        self.drawn = random.random()
        self.next(self.end)

    @step
    def raises(self):
        print("pid", os.getpid())
        raise ValueError("no")
        self.next(self.end)

    @catch(var="error")
    @step
    def caught(self):
        print("pid", os.getpid())
        raise ValueError("no")
        self.next(self.end)

    @step
    def leaves_a_child(self):
        print("pid", os.getpid())
        subprocess.Popen(["sleep", "600"])
        self.next(self.end)

    @step
    def leaves_a_daemon(self):
        print("pid", os.getpid())
        if os.fork() == 0:
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", "600"])
            os._exit(0)
        os.wait()
        self.next(self.end)

    @step
    def leaves_a_thread(self):
        print("pid", os.getpid())
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        self.next(self.end)

    @step
    def starts_a_thread(self):
        print("pid", os.getpid())
        threading.Thread(target=threading.main_thread().join).start()  # it goes on for as long as the program, however slow that is
        self.next(self.end)

    @step
    def registers(self):
        print("pid", os.getpid())
        atexit.register(print, "called at the end")
        self.next(self.end)

    @step
    def turns_its_output(self):
        print("pid", os.getpid(), flush=True)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        self.next(self.end)

    @step
    def takes_the_connection_s_number(self):
        print("pid", os.getpid(), flush=True)
        sockets = [int(name) for name in os.listdir("/proc/self/fd") if os.path.realpath("/proc/self/fd/" + name).split("/")[-1].startswith("socket:")]
        for number in sockets:
            os.close(number)
        kept.append([open("taken", "a+") for _ in range(10)])
        self.found = set(sockets) & {file.fileno() for file in kept[-1]}
        self.next(self.end)

    @step
    def looks_at_its_file(self):
        print("pid", os.getpid(), flush=True)
        (files,) = [each for each in kept if isinstance(each, list)]
        self.found = [file.write("mine") for file in files], os.path.getsize("taken")
        self.next(self.end)

    @step
    def computes(self):
        from evflow.store.patience import holds_results

        print("pid", os.getpid(), holds_results())
        self.next(self.end)

    @step
    def closes_everything(self):
        print("pid", os.getpid(), flush=True)
        os.closerange(3, 1000)
        self.next(self.end)

    @step
    def lowers_its_priority(self):
        print("pid", os.getpid())
        os.nice(1)
        self.next(self.end)

    @step
    def leaves_its_folder_gone(self):
        print("pid", os.getpid())
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir("../gone")
        self.next(self.end)

    @step
    def sleeps(self):
        print("asleep", flush=True)
        time.sleep(600)
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.fixture(params=["fork", "spawn"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def served(world: AttemptWorld, step: str, task: int, reuse: int = 10) -> str:
    """Run an attempt in a process that may serve several; return its process."""
    ended = await world.run(step, task, reuse=reuse)
    assert (ended.exit.exit_code, ended.exit.signal) == (0, None), ended.stderr
    word, pid = ended.stdout.split()[:2]
    assert word == "pid"
    return pid


async def test_one_process_runs_attempts_one_after_the_other(root: Path, method: str) -> None:
    async with an_attempt_world(root, BODIES, method=method) as world:
        first = await served(world, "start", 1)
        second = await served(world, "looks", 2)
        assert first == second != await served(world, "start", 3, reuse=0), "a step that does not ask for it gets a new process"
        assert artifacts_of(world, 2)["kept"] == ["1"], "what a module keeps is there for the next attempt"


async def test_while_it_computes_it_has_nothing_yet_that_a_store_which_is_away_would_be_waited_for(root: Path) -> None:
    async with an_attempt_world(root, BODIES) as world:
        ends = [await world.run("computes", task, reuse=10) for task in (1, 2)]
        first, second = (ended.stdout.split() for ended in ends)
        assert first == second == ["pid", first[1], "False"]


async def test_each_attempt_has_its_own_output_and_its_own_lock(root: Path) -> None:
    async with an_attempt_world(root, BODIES) as world:
        for task in (1, 2):
            ended = await world.run("start", task, reuse=10)
            assert ended.stdout.startswith("pid ")
            assert "\n" not in ended.stdout
            assert locks.holder(world.context.lock_file, task, 0) is None, "the attempt is over, though its process lives"


async def test_what_a_body_changed_of_its_process_is_put_back(root: Path, method: str) -> None:
    async with an_attempt_world(root, BODIES, method=method) as world:
        pid = await served(world, "looks", 1)
        assert await served(world, "soils", 2) == pid
        assert await served(world, "looks", 3) == pid
        before, after = (artifacts_of(world, task)["found"] for task in (1, 3))
        assert after.pop("environment") == (False, True, "MyFlow/1/3.0")
        assert before.pop("environment") == (False, True, "MyFlow/1/1.0")
        assert after == before


@pytest.mark.skipif(sys.platform == "darwin", reason="the body finds the connection by Linux's /proc")
async def test_a_file_that_took_the_number_of_the_connection_is_left_alone(root: Path) -> None:
    async with an_attempt_world(root, BODIES) as world:
        pid = await served(world, "start", 1)
        assert await served(world, "takes_the_connection_s_number", 2) == pid
        assert artifacts_of(world, 2)["found"], "the process kept its connection, and the body's file has its number now"
        assert await served(world, "looks_at_its_file", 3) == pid
        assert artifacts_of(world, 3)["found"] == ([4] * 10, 0), "nothing was written to the file, and it is still open"


async def test_the_connection_of_a_process_serves_all_its_reports(root: Path) -> None:
    async with an_attempt_world(root, BODIES) as world:
        await served(world, "start", 1)
        before = connections(world)
        for task in range(2, 6):
            await served(world, "start", task)
        assert connections(world) == before


def connections(world: AttemptWorld) -> int:
    """How many the server has accepted so far."""
    said: bytes = world.client._connected().call("INFO", "stats")
    return next(int(line.partition(b":")[2]) for line in said.splitlines() if line.startswith(b"total_connections_received:"))


def artifacts_of(world: AttemptWorld, task: int) -> dict[str, Any]:
    report = world.report_of(AttemptId(RUN, TaskId(task), 0))
    assert isinstance(report, AttemptSucceeded)
    assert report.manifest is not None
    return world.artifacts(report.manifest)


async def test_no_two_attempts_draw_the_same_numbers(root: Path) -> None:
    async with an_attempt_world(root, BODIES) as world:
        drawn = set[float]()
        for task in (1, 3):
            await served(world, "seeds", task)
            await served(world, "looks", task + 1)
            drawn.add(artifacts_of(world, task + 1)["drawn"])
        assert len(drawn) == 2, "what a body seeded is not the next one's"


@pytest.mark.parametrize(
    "step",
    [
        "leaves_a_child", "leaves_a_daemon", "leaves_a_thread", "starts_a_thread", "registers", "turns_its_output", "closes_everything",
        "lowers_its_priority", "leaves_its_folder_gone", "caught",
    ],
)  # fmt: skip
async def test_a_process_that_cannot_be_as_new_ends(root: Path, step: str) -> None:
    async with an_attempt_world(root, BODIES) as world:
        pid = await served(world, step, 1)
        goes_on = step == "leaves_its_folder_gone"  # the folder that it began in is still there
        assert (await served(world, "start", 2) == pid) is goes_on


async def test_a_failed_attempt_ends_its_process(root: Path, method: str) -> None:
    async with an_attempt_world(root, BODIES, method=method) as world:
        pid = await served(world, "start", 1)
        failed = await world.run("raises", 2, reuse=10)
        assert failed.stdout == f"pid {pid}"
        assert failed.failed.message == "no"
        assert await served(world, "start", 3) != pid


async def test_a_process_serves_so_many_and_no_more(root: Path) -> None:
    async with an_attempt_world(root, BODIES) as world:
        pids = [await served(world, "start", task, reuse=2) for task in range(1, 6)]
        assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


async def test_a_cancelled_attempt_ends_its_process_and_no_other_attempt(root: Path) -> None:
    async with an_attempt_world(root, BODIES) as world:
        pid = await served(world, "start", 1)
        name = await world.launch("sleeps", 2, reuse=10)
        assert await world.line_of(name) == "asleep"
        await world.executor.cancel(name, grace_s=10.0)
        assert (await world.end_of(name)).exit.signal == signal.SIGTERM
        await world.executor.cancel(AttemptId(name.run, TaskId(1), 0), grace_s=0.0)  # over long ago: its process is another attempt's
        assert await served(world, "start", 3) != pid


async def test_a_process_that_dies_while_it_waits_is_replaced(root: Path) -> None:
    async with an_attempt_world(root, BODIES) as world:
        pid = await served(world, "start", 1)
        os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it was reaped")
        assert await served(world, "start", 2) != pid


async def test_a_process_that_dies_at_its_work_is_an_exit(root: Path) -> None:
    async with an_attempt_world(root, BODIES) as world:
        pid = await served(world, "start", 1)
        name = await world.launch("sleeps", 2, reuse=10)
        assert await world.line_of(name) == "asleep"
        os.kill(int(pid), signal.SIGKILL)
        ended = await world.end_of(name)
        assert (ended.exit.signal, ended.report) == (signal.SIGKILL, None)


async def test_it_serves_another_run_with_that_run_s_parameters(root: Path) -> None:
    async with an_attempt_world(root, BODIES) as world:
        pid = await served(world, "start", 1)
        run = RunId(FlowName("MyFlow"), RunNumber(2))
        other = replace(world.context, run=2, parameters=save(world.store, {"alpha": 2}).manifest, lock_file=str(root / "other"))
        await world.executor.prepare(other)
        name = AttemptId(run, TaskId(1), 0)
        await world.executor.launch(name, AttemptOrder("looks", 1, 0, reuse=10))
        ended = await world.end_of(name)
        assert ended.stdout == f"pid {pid}"
        assert locks.holder(str(root / "other"), 1, 0) is None
        found = ended.succeeded.manifest
        assert found is not None
        assert world.artifacts(found)["alpha"] == 2
        assert world.artifacts(found)["found"]["environment"][2] == "MyFlow/2/1.0"


async def test_a_long_order_gets_a_process_of_its_own(root: Path) -> None:
    async with an_attempt_world(root, BODIES) as world:
        pid = await served(world, "start", 1)
        ended = await world.run("start", 2, reuse=10, crash="x" * MAX_SPARE_ORDER_BYTES)
        assert ended.stdout.split() != ["pid", pid]
        assert await served(world, "start", 3) == pid


async def test_a_flow_that_cannot_be_loaded_is_reported(root: Path) -> None:
    async with an_attempt_world(root, "raise ValueError('at import')\n" + BODIES) as world:
        for task in (1, 2):
            ended = await world.run("start", task, reuse=10)
            assert (ended.failed.kind, ended.failed.message) == ("load", "at import")


# --- the supervisor's half, without processes -------------------------------------------------------------


class PipesOnly:
    """Starts no process: the test reads the orders, and answers."""

    def __init__(self) -> None:
        self.made: list[tuple[Reused, Pipes]] = []

    def launch_reused(self, context: RunContext) -> Reused:
        pipes = Pipes.new()
        stdout, out = os.pipe()
        stderr, err = os.pipe()
        os.close(out)
        os.close(err)
        made = Reused(Started(1_000_000 + len(self.made), stdout, stderr), pipes, context)
        self.made.append((made, pipes))
        return made

    def close(self) -> None:
        for _, pipes in self.made:
            pipes.close(pipes.orders, pipes.done)


def a_context(run: int) -> RunContext:
    return RunContext("MyFlow", run, "", "s0", "unix:///s", "file:///s", b"")


def test_a_process_that_knows_the_run_is_taken_first_and_an_idle_one_goes_after_a_while() -> None:
    now_s = 0.0
    launcher = PipesOnly()
    processes = ReusedProcesses(launcher, lambda: now_s)
    one, two = a_context(1), a_context(2)
    first, second = processes.take(one, b"a"), processes.take(two, b"b")
    assert first is not None
    assert second is not None
    assert first is not second
    processes.put_back(first, 10)
    now_s = 5.0
    processes.put_back(second, 10)
    assert processes.take(one, b"c") is first
    assert processes.pause_s() == IDLE_S
    now_s += IDLE_S
    processes.drop_overdue()
    assert not processes.idle
    assert processes.pause_s() is None
    processes.put_back(first, 2)  # it has had two
    assert not processes.idle
    launcher.close()
