"""Running flows from Python, as users have it: real files, real processes, a real notebook's shell."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from evflow import Flow, Run, Runner
from evflow.deployments.own_process import FlowFileMissing
from evflow.exception import EvflowNotFound
from evflow.runner.errors import ArgumentUnfit, RunElsewhere, RunNotStarted, RunStartLate, TaskNotKept
from evflow.runner.executing import ExecutingRun
from tests.real_runs import python
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("client_forgets")

WITHIN_S = 60.0
FLOW = """
import os, time
from evflow import FlowSpec, IncludeFile, JSONType, Parameter, step

time.sleep(float(os.environ.get("IMPORT_S", "0")))

class Sums(FlowSpec):
    rows = Parameter("rows", default=3)
    day = Parameter("the-day", default="monday")
    fast = Parameter("fast", default=False)
    sizes = Parameter("sizes", type=JSONType, default="[1]")
    words = Parameter("words", separator=",", default="a,b")
    wait_s = Parameter("wait-s", default=0.0)
    waits_for = Parameter("waits-for", default="")
    fails = Parameter("fails", default=False)
    text = IncludeFile("text")

    @step
    def start(self):
        for row in range(self.rows):
            print("row", row, flush=True)
        time.sleep(self.wait_s)
        while self.waits_for and not os.path.exists(self.waits_for):
            time.sleep(0.02)
        if self.fails:
            raise ValueError("no luck")
        self.next(self.end)

    @step
    def end(self):
        self.folder, self.mood, self.profile = os.getcwd(), os.environ.get("MOOD"), os.environ.get("METAFLOW_PROFILE")
        self.given = [self.rows, self.day, self.fast, self.sizes, self.words, self.text]

if __name__ == "__main__":
    Sums()
"""


@pytest.fixture
def flow_file(root: Path) -> Path:
    folder = root / "flows"
    folder.mkdir()
    (folder / "sums.py").write_text(textwrap.dedent(FLOW))
    return folder / "sums.py"


def quiet(flow_file: Path) -> Runner:
    return Runner(flow_file, show_output=False)


def rows_of(output: str) -> list[str]:
    return [line.partition("] ")[2] for line in output.splitlines() if "] row" in line]


# ---------------------------------------------------------------- blocking


def test_values_of_python_reach_the_parameters_as_they_are(flow_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (flow_file.parent / "poem.txt").write_text("roses\n")
    with Runner(str(flow_file)) as runner:
        running = runner.run(
            rows=2, day="--tuesday", fast=True, sizes={"a": [1, None, "ü"]}, words=["x", "y z"], wait_s=None,
            text=flow_file.parent / "poem.txt", tags=["one", "two"], max_workers=2,
        )  # fmt: skip
    assert (running.status, running.returncode) == ("successful", 0)
    assert running.run == Run("Sums/1")
    assert running.run.data is not None
    assert running.run.data.given == [2, "--tuesday", True, {"a": [1, None, "ü"]}, ["x", "y z"], "roses\n"]
    assert {"one", "two"} <= running.run.user_tags
    assert rows_of(running.stdout) == ["row 0", "row 1"]
    assert "Run Sums/1 succeeded" in running.stderr
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == (running.stdout, running.stderr)


def test_a_value_may_be_longer_than_a_command_line_and_names_may_be_those_of_the_command_line(flow_file: Path) -> None:
    long = "x" * 3_000_000
    running = quiet(flow_file).run(**{"the-day": long, "rows": 0})
    assert running.run.data is not None
    assert running.run.data.given[1] == long


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"dya": "monday"}, "Sums has no parameter 'dya', and 'run' no such option."),
        ({"row": 1}, "Did you mean 'rows'?"),
        ({"max_wokers": 1}, "Did you mean 'max_workers'?"),
        ({"rows": "many"}, "Invalid value for '--rows'"),
        ({"rows": [1]}, "Invalid value for '--rows': [1] is not an integer"),
        ({"words": ["a,b"]}, "without ','"),
        ({"text": 3}, "the path of a file"),
        ({"max_workers": "few"}, "max-workers"),
        ({"max_workers": [1, 2]}, "it is one value"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_the_flow_does_not_take_is_said_before_there_is_a_run(flow_file: Path, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(RunNotStarted) as raised:
        quiet(flow_file).run(**wrong)
    assert said in str(raised.value)
    assert raised.value.returncode != 0
    with pytest.raises(EvflowNotFound):
        Flow("Sums")


def test_options_before_the_command_have_the_names_of_python(flow_file: Path) -> None:
    running = Runner(flow_file, show_output=False, quiet=True, pylint=False, decospecs=["retry:times=1"], metadata="local").run(fails=True)
    assert (running.status, running.returncode) == ("failed", 1)
    assert "has started" not in running.stderr
    task = running.run["start"].task
    assert task is not None
    assert (task.current_attempt, running.run.status) == (1, "failed")
    with pytest.raises(RunNotStarted, match="No such option '--foo'"):
        Runner(flow_file, show_output=False, foo=1).run()


def test_a_value_that_cannot_be_given_starts_no_process(flow_file: Path) -> None:
    with pytest.raises(ArgumentUnfit, match="sizes: a value of type set cannot be given to a flow"):
        quiet(flow_file).run(sizes={1, 2})
    with pytest.raises(ArgumentUnfit, match="config: a value of type int"):
        Runner(flow_file, config=3)
    with pytest.raises(FlowFileMissing):
        Runner("no_such_flow.py")


def test_a_flow_whose_file_raises_is_said_with_its_traceback(root: Path) -> None:
    (root / "broken.py").write_text("import no_such_module\n")
    with pytest.raises(RunNotStarted, match=r"(?s)started no run: its process ended with exit code 1.*No module named 'no_such_module'"):
        Runner(root / "broken.py", show_output=False).run()


def test_folder_and_variables_are_those_of_the_process(flow_file: Path) -> None:
    running = Runner("sums.py", show_output=False, env={"MOOD": "fine"}, cwd=flow_file.parent).run()
    assert running.run.data is not None
    assert (running.run.data.folder, running.run.data.mood) == (str(flow_file.parent.resolve()), "fine")
    assert running.run.data.profile is None
    running = Runner(flow_file, show_output=False, profile="mine").run()
    assert running.run.data is not None
    assert running.run.data.profile == "mine"


def test_a_run_in_a_log_of_its_own_is_not_looked_for_in_ours(flow_file: Path, root: Path) -> None:
    running = Runner(flow_file, show_output=False, env={"EVFLOW_HOME": str(root / "e2")}).run()
    assert running.status == "successful"
    with pytest.raises(RunElsewhere, match="'Sums/1' is in the log"):
        _ = running.run


def test_a_run_on_a_server_of_its_own_is_found_there(flow_file: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_REDIS_URL", redis_url)
    running = quiet(flow_file).run()
    assert running.run.status == "succeeded"
    assert Flow("Sums").latest_run == running.run


def test_a_run_is_resumed_from_a_step_with_other_parameters(flow_file: Path) -> None:
    runner = quiet(flow_file)
    first = runner.run(rows=1)
    again = runner.resume("end", origin_run_id=first.run.id, day="friday", tags="again")
    assert again.run.origin_pathspec == "Sums/1"
    assert again.run.data is not None
    assert again.run.data.given[:2] == [1, "friday"]
    assert "again" in again.run.user_tags
    with pytest.raises(RunNotStarted, match=r"has no step 'ende'\. Did you mean 'end'?"):
        runner.resume("ende")


def test_ctrl_c_cancels_the_run_and_waits_for_it(flow_file: Path) -> None:
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import evflow; evflow.Runner({str(flow_file)!r}).run(wait_s=60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "row 2" in line:
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WITHIN_S)
    assert "KeyboardInterrupt" in said
    assert "Ctrl-C: cancelling the run" in said
    assert Run("Sums/1").status == "cancelled"


def test_ctrl_c_once_more_kills_what_still_runs(root: Path) -> None:
    text = textwrap.dedent(FLOW).replace(
        "time.sleep(self.wait_s)", "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('row 9', flush=True); time.sleep(60)"
    )
    patient = "import os, signal, time\nfrom evflow_scheduler import shard\nshard.CANCEL_GRACE_S = 250.0  # a second Ctrl-C kills, whenever it comes"
    (root / "deaf.py").write_text(text.replace("import os, time", patient))
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import evflow; evflow.Runner('deaf.py').run()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "row 9" in line:
                break
        process.send_signal(signal.SIGINT)
        for line in process.stderr:
            if "cancelling the run" in line:
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WITHIN_S)
    assert "Ctrl-C again: killing what still runs." in said
    assert Run("Sums/1").status == "cancelled"


def test_a_run_goes_on_when_the_process_that_started_it_is_killed(flow_file: Path) -> None:
    code = f"import evflow; evflow.Runner({str(flow_file)!r}).run(wait_s=1)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "row 2" in line:
                break
        process.kill()
    run = Run("Sums/1")
    wait_until(lambda: run.status == "succeeded", "the run has ended", WITHIN_S)
    wait_until(lambda: not processes_of(flow_file), "its process has ended", WITHIN_S)


def processes_of(file: Path) -> list[str]:
    done = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if str(file) in line and "--runner-call" in line]


# ---------------------------------------------------------------- with an event loop


def test_a_run_is_followed_while_it_goes_on(flow_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    go = flow_file.parent / "go"

    async def story() -> ExecutingRun:
        async with Runner(flow_file) as runner:
            running = await runner.async_run(rows=3, waits_for=str(go))
            assert (running.status, running.returncode) == ("running", None)
            assert running.run.status == "running"
            seen: list[str] = []
            at = 0
            async for position, line in running.stream_log("stdout"):
                seen.append(line)
                if line.endswith("row 1"):
                    at = position
                    assert running.status == "running"
                    go.touch()
                    break
            async for _, line in running.stream_log("stdout", at):
                seen.append(line)
            assert running.status == "successful"
            assert seen == running.stdout.splitlines()
            assert await running.wait() is running
            return running

    running = asyncio.run(story())
    assert rows_of(running.stdout) == ["row 0", "row 1", "row 2"]
    assert capfd.readouterr().out == ""


def test_many_runs_go_on_at_once(flow_file: Path) -> None:
    async def story() -> list[tuple[str, int]]:
        async with quiet(flow_file) as runner:
            running = await asyncio.gather(*(runner.async_run(rows=rows) for rows in range(4)))
            ended = await asyncio.gather(*(one.wait(WITHIN_S) for one in running))
            return [(one.status, one.run["end"].task.data.rows) for one in ended if one.run["end"].task]

    assert asyncio.run(story()) == [("successful", rows) for rows in range(4)]


def test_waiting_prints_and_bounds_the_time(flow_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def story() -> ExecutingRun:
        running = await quiet(flow_file).async_run(wait_s=60)
        async for _, line in running.stream_log("stdout"):
            if line.endswith("row 2"):
                break
        await running.wait(timeout=1, stream="stdout")
        return running

    running = asyncio.run(story())
    assert (running.status, running.run.status) == ("timeout", "cancelled")
    assert running.returncode
    assert "row 2" in capfd.readouterr().out


def test_who_cancels_the_waiting_cancels_the_run(flow_file: Path) -> None:
    async def story() -> ExecutingRun:
        running = await quiet(flow_file).async_run(wait_s=60)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(running.wait(), 0.2)
        assert running.status == "failed"
        return running

    assert asyncio.run(story()).run.status == "cancelled"


def test_who_cancels_the_start_leaves_no_process(flow_file: Path) -> None:
    async def story() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Runner(flow_file, env={"IMPORT_S": "60"}).async_run(), 0.3)

    asyncio.run(story())
    wait_until(lambda: not processes_of(flow_file), "the process has ended", WITHIN_S)


def test_a_start_that_takes_too_long_is_ended(flow_file: Path) -> None:
    slow = Runner(flow_file, show_output=False, env={"IMPORT_S": "60"}, file_read_timeout=0.3)
    with pytest.raises(RunStartLate, match=r"has not begun a run within 0\.3 s"):
        slow.run()
    with pytest.raises(RunStartLate):
        asyncio.run(slow.async_run())
    wait_until(lambda: not processes_of(flow_file), "the processes have ended", WITHIN_S)


def test_the_end_of_a_context_ends_what_goes_on(flow_file: Path) -> None:
    async def story() -> list[ExecutingRun]:
        async with quiet(flow_file) as runner:
            first = await runner.async_run(wait_s=60)
        assert first.status == "failed"
        with await quiet(flow_file).async_run(wait_s=60) as second:
            assert second.status == "running"
        assert second.status == "failed"
        async with await quiet(flow_file).async_run(wait_s=60) as third:
            assert third.status == "running"
        return [first, second, third]

    assert [one.run.status for one in asyncio.run(story())] == ["cancelled"] * 3


# ---------------------------------------------------------------- notebooks

NOTEBOOK = """
import os
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()

def cell(text):
    done = shell.run_cell(text, store_history=True)
    done.raise_error()
    return done.result

cell("from evflow import NBDeployer, NBRunner")
run = cell('''%config Application.log_level=30
from evflow import FlowSpec, Parameter, step
!true
SIGN = "!"
class Hi(FlowSpec):
    alpha = Parameter("alpha", default=1)
    @step
    def start(self):
        self.beta = self.alpha + 1
        self.next(self.end)
    @step
    def end(self):
        print("hello", self.beta, SIGN)

raise_if_run_again = Hi  # what stands behind the class is not part of the flow
NBRunner(Hi).nbrun(alpha=4, tags=["nb"])
''')
assert (run.pathspec, run.successful, run.data.beta, run["end"].task.stdout) == ("Hi/1", True, 5, "hello 5 !\\n"), run
assert "nb" in run.user_tags
resumed = cell("NBRunner(Hi, show_output=False).nbresume('end', origin_run_id=1)")
assert (resumed.pathspec, resumed.data.beta) == ("Hi/2", 5)
deployed = cell("d = NBDeployer(Hi, show_output=False)\\nfound = d.scheduler('hourly').create()\\nd.cleanup()\\nfound")
assert deployed.name == "Hi:hourly"
cell('''class Hi(FlowSpec):
    @step
    def start(self):
        self.next(self.end)
    @step
    def end(self):
        self.second = True
''')
try:
    cell("NBRunner(Hi, show_output=False).nbrun()")
except Exception as error:  # its cell lacks the import
    assert "name 'FlowSpec' is not defined" in str(error), error
else:
    raise SystemExit("a cell has its own imports")
assert os.listdir(".") == ["notebook.py"], os.listdir(".")
"""


def test_a_flow_of_a_notebook_s_cell_is_run_resumed_and_deployed(root: Path) -> None:
    folder = root / "notes"
    folder.mkdir()
    (folder / "notebook.py").write_text(NOTEBOOK)
    done = python("notebook.py", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_class_that_is_of_no_notebook_is_refused_with_what_to_do(flow_file: Path) -> None:
    (flow_file.parent / "other.py").write_text("from evflow import NBRunner\nfrom sums import Sums\nNBRunner(Sums)\n")
    done = python("other.py", cwd=flow_file.parent)
    assert "Sums is of a file" in done.stderr
    assert "Use Runner(" in done.stderr
    assert sorted(path.name for path in flow_file.parent.glob("*.py")) == ["other.py", "sums.py"]


# ---------------------------------------------------------------- without a Runner


def test_any_program_may_ask_which_run_it_is(flow_file: Path, root: Path) -> None:
    done = python(flow_file, "run", "--runner-attribute-file", "said.json", cwd=root)
    assert done.returncode == 0, done.stderr
    said = json.loads((root / "said.json").read_text())
    assert said == {"flow_name": "Sums", "run_id": "1", "metadata": os.environ["EVFLOW_HOME"]}
    os.mkfifo(root / "pipe")
    done = python(flow_file, "run", "--runner-attribute-file", "pipe", cwd=root)
    assert done.returncode == 0
    assert "'pipe' does not learn which run this is: No such device or address." in done.stderr
    done = python(flow_file, "run", "--runner-attribute-file", "no/such/file", cwd=root)
    assert done.returncode == 1
    assert "cannot be written to 'no/such/file'" in done.stderr


# ---------------------------------------------------------------- commands and modules that a flow's evflow may have


@pytest.mark.skipif(find_spec("evflow.cli.flow_spin") is None, reason="this evflow has no command `spin`")
def test_a_task_is_run_again(flow_file: Path) -> None:
    runner = quiet(flow_file)
    runner.run(rows=2)
    spun = runner.spin("start", persist=True)
    assert (spun.status, spun.outcome["status"], spun.outcome["origin"]) == ("successful", "succeeded", "Sums/1/start/1")
    assert spun.stdout.startswith("row 0\nrow 1\n")
    assert spun.task.successful
    assert spun.task.data.rows == 2
    assert Run("Sums/1").status == "succeeded"
    again = asyncio.run(runner.async_spin("1/start/1"))
    assert again.status == "successful"
    with pytest.raises(TaskNotKept, match="'Sums/1/start/1' again gave was not kept"):
        _ = again.task
    with pytest.raises(RunNotStarted, match="Did you mean 'start'"):
        runner.spin("strat")
    with pytest.raises(RunNotStarted, match="'spin' no such option"):
        runner.spin("start", presist=True)


@pytest.mark.skipif(find_spec("evflow.compat") is None, reason="this evflow has no module for Metaflow's flows")
def test_where_metaflow_is_evflow_so_it_is_in_the_flow(flow_file: Path) -> None:
    flow_file.write_text(flow_file.read_text().replace("from evflow import", "from metaflow import"))
    code = f"""
import evflow.compat.metaflow
evflow.compat.metaflow.install()
from metaflow import Runner
with Runner({str(flow_file)!r}, show_output=False, metadata="local") as runner:
    done = runner.run(rows=1)
print(done.status, done.run.data.given[0])
"""
    done = python("-c", code)
    assert done.stdout == "successful 1\n", done.stderr


@pytest.mark.skipif(find_spec("evflow.compat") is None, reason="this evflow has no module for Metaflow's flows")
def test_a_flow_written_for_metaflow_is_run_as_it_is(flow_file: Path) -> None:
    flow_file.write_text(flow_file.read_text().replace("from evflow import", "from metaflow import"))
    done = asyncio.run(quiet(flow_file).async_run(rows=1))
    assert asyncio.run(done.wait()).status == "successful"
    assert done.run.data is not None
    assert done.run.data.given[0] == 1
