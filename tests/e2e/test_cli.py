"""The command line as people use it: real processes, pipes and terminals."""

import fcntl
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real_runs import verified
from tests.waiting import wait_until

FLOW = """
import sys, time
from evflow import FlowSpec, JSONType, Parameter, retry, step

class Sums(FlowSpec):
    '''Add numbers up.'''

    n_items = Parameter("n_items", default=3, help="How many numbers.")
    scale = Parameter("scale", default=1.5)
    loud = Parameter("loud", default=False)
    names = Parameter("names", type=JSONType, default='["a"]')
    wait = Parameter("wait", default=0.0)
    broken = Parameter("broken", default=False)

    @step
    def start(self):
        '''Make the numbers.'''
        self.items = list(range(self.n_items))
        print("making", self.n_items, self.scale, self.loud, self.names)
        self.next(self.double, foreach="items")

    @step
    def double(self):
        time.sleep(self.wait)
        if self.broken and self.input == 1:
            raise ValueError("one is broken")
        print("to stderr", self.input, file=sys.stderr)
        self.doubled = 2 * self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(one.doubled for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        print("total", self.total)

if __name__ == "__main__":
    Sums()
"""
LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[(\d+)/(\w+)/(\d+) \(pid \d+\)\] (.*)$")


@pytest.fixture
def folder() -> Path:
    """The flow's folder, which is the current one."""
    here = Path.cwd()
    (here / "sums.py").write_text(textwrap.dedent(FLOW))
    return here


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=200,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def evflow(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "evflow.cli", *arguments)


def said(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str]]:
    """Step and text of the lines of tasks; every line on stdout is one."""
    matches = [LINE.match(text) for text in done.stdout.splitlines()]
    assert all(matches), done.stdout
    return [(found[2], found[4]) for found in matches if found]


# --- run --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_a_run_prints_its_tasks_lines_on_stdout_and_everything_else_on_stderr() -> None:
    done = python("sums.py", "run")
    assert done.returncode == 0, done.stderr
    lines = said(done)
    assert ("start", "making 3 1.5 False ['a']") in lines
    assert ("end", "total 6") in lines
    assert "The flow is sound." in done.stderr
    assert "Run Sums/1 succeeded" in done.stderr
    assert "evflow replay Sums/1" in done.stderr


@pytest.mark.usefixtures("folder")
def test_parameters_are_options_with_dashes_or_underscores_and_have_variables() -> None:
    done = python("sums.py", "run", "--n-items", "2", "--loud", "True", "--names", '["b", 1]', EVFLOW_RUN_SCALE="2.5")
    assert ("start", "making 2 2.5 True ['b', 1]") in said(done)


@pytest.mark.usefixtures("folder")
def test_quiet_prints_only_what_tasks_print() -> None:
    done = python("sums.py", "--quiet", "run")
    assert {text for _, text in said(done)} == {"making 3 1.5 False ['a']", "to stderr 0", "to stderr 1", "to stderr 2", "total 6"}
    assert done.stderr == ""


@pytest.mark.usefixtures("folder")
def test_a_failed_run_exits_with_1_and_shows_the_users_frames_only() -> None:
    done = python("sums.py", "run", "--broken", "True")
    assert done.returncode == 1
    assert 'sums.py", line' in done.stdout
    assert "ValueError: one is broken" in done.stderr
    assert "evflow logs Sums/1/double/3" in done.stderr
    assert "site-packages" not in done.stdout + done.stderr
    assert f"{Path('evflow')}/flow/" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "--nitems", "2"], "No such option"),
        (["run", "--n_items", "two"], "'two' is not an integer"),
        (["run", "--loud"], "requires an argument"),
        (["run", "--loud", "perhaps"], "is not True or False"),
        (["run", "--names", "[1"], "is not JSON"),
        (["run", "--max-workers", "0"], "at least 1"),
        (["run", "--view", "huge"], "auto, live, plain"),
        (["rnu"], "Did you mean 'run'?"),
        (["resume", "doubel"], "Did you mean 'double'?"),
        (["--no-such", "run"], "No such option"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_wrong_usage_exits_with_2_says_what_is_wrong_and_runs_nothing(arguments: list[str], text: str, evflow_home: Path) -> None:
    done = python("sums.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not evflow_home.exists()


def test_a_required_parameter_that_is_missing_is_wrong_usage(folder: Path) -> None:
    (folder / "needs.py").write_text(
        "from evflow import FlowSpec, Parameter, step\n\nclass Needs(FlowSpec):\n    p = Parameter('p', required=True)\n\n"
        "    @step\n    def start(self):\n        self.next(self.end)\n\n    @step\n    def end(self):\n        pass\n\n"
        "if __name__ == '__main__':\n    Needs()\n"
    )
    done = python("needs.py", "run")
    assert (done.returncode, "Missing option '--p'." in done.stderr) == (2, True)
    assert python("needs.py", "run", EVFLOW_RUN_P="x").returncode == 0


def test_a_parameter_may_be_called_like_an_option_of_ours(folder: Path) -> None:
    (folder / "sums.py").write_text(FLOW.replace('Parameter("scale"', 'Parameter("view"'))
    assert ("start", "making 3 9.0 False ['a']") in said(python("sums.py", "run", "--view", "9"))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"EVFLOW_HOME": "/proc/nowhere"}, "EVFLOW_HOME"),
        ({"EVFLOW_HOME": "/etc/passwd"}, "EVFLOW_HOME"),
        ({"EVFLOW_REDIS_URL": "redis://127.0.0.1:1"}, "EVFLOW_REDIS_URL"),
        ({"EVFLOW_REDIS_URL": "http://x"}, "EVFLOW_REDIS_URL"),
        ({"EVFLOW_MAX_WORKERS": "many"}, "EVFLOW_MAX_WORKERS"),
        ({"EVFLOW_STORE": "s3:/x/y"}, ""),
    ],
)
def test_a_bad_environment_is_told_with_what_to_do_and_no_traceback(variables: dict[str, str], text: str) -> None:
    done = python("sums.py", "run", **variables)
    if text:
        assert done.returncode == 1
        assert text in done.stderr
        assert "Error:" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Internal error" not in done.stderr


@pytest.mark.usefixtures("folder")
def test_the_run_number_is_in_its_file_and_a_namespace_is_a_tag() -> None:
    python("sums.py", "run", "--run-id-file", "number", "--tag", "a", "--tag", "b", "--namespace", "team:x")
    assert Path("number").read_text().strip() == "1"
    [run] = json.loads(evflow("runs", "--json").stdout)
    assert (set(run["tags"]), run["namespace"]) == ({"a", "b", "team:x"}, "team:x")


# --- looking at the flow ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_no_command_is_check() -> None:
    done = python("sums.py")
    assert (done.returncode, done.stdout) == (0, "")
    assert "The flow is sound." in done.stderr


def test_check_lists_every_problem_with_its_line(folder: Path) -> None:
    (folder / "sums.py").write_text(FLOW.replace("self.next(self.join)", "pass").replace("def end(self)", "def finish(self)"))
    done = python("sums.py", "check", "--json")
    assert done.returncode == 1
    problems = json.loads(done.stdout)
    assert len(problems) >= 2
    assert all(problem["line"] and problem["file"].endswith("sums.py") for problem in problems)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", [[], ["check"], ["check", "--json"]], ids=" ".join)
def test_check_reads_the_decorators_of_with(command: list[str]) -> None:
    done = python("sums.py", "--with", "pool:reuse=-1", *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--with pool:reuse=-1: reuse=-1: it is True, False" in done.stderr
    assert "sound" not in done.stderr
    assert python("sums.py", "--with", "retry:times=2", *command).returncode == 0


def test_a_flow_with_a_mistake_is_not_run(folder: Path, evflow_home: Path) -> None:
    (folder / "sums.py").write_text(FLOW.replace("self.next(self.join)", "pass"))
    done = python("sums.py", "run")
    assert (done.returncode, done.stdout) == (1, "")
    assert "double" in done.stderr
    assert not (evflow_home / "runs").exists()


@pytest.mark.usefixtures("folder")
def test_show_prints_parameters_and_steps() -> None:
    shown = python("sums.py", "show").stdout
    for text in (
        "Add numbers up.",
        "--n_items INT",
        "How many numbers.",
        "[default: 3]",
        "Make the numbers.",
        "one task for each item of items",
    ):
        assert text in shown


@pytest.mark.usefixtures("folder")
def test_the_graph_is_data_and_dot() -> None:
    raw = json.loads(python("sums.py", "output-raw", "--json").stdout)
    assert [one["name"] for one in raw["steps"]] == ["start", "double", "join", "end"]
    dot = python("sums.py", "output_dot").stdout
    assert dot.startswith('digraph "Sums" {')
    assert '"double" -> "join";' in dot


def test_decorators_of_the_class_are_shown_and_recorded(folder: Path) -> None:
    planned = FLOW.replace("class Sums(", "@schedule(hourly=True)\nclass Sums(").replace("retry, step", "retry, schedule, step")
    (folder / "sums.py").write_text(planned)
    assert "Decorators\n  @schedule(hourly=True)\n" in python("sums.py", "show").stdout
    assert json.loads(python("sums.py", "output-raw", "--json").stdout)["decorators"] == ["@schedule(hourly=True)"]
    assert python("sums.py", "run").returncode == 0
    asked = "from evflow import Run; print(Run('Sums/1')['_parameters'].task['_graph_info'].data['decorators'])"
    assert python("-c", asked).stdout == "[{'name': 'schedule', 'text': '@schedule(hourly=True)'}]\n"


def test_help_and_show_import_nothing_heavy(folder: Path) -> None:
    (folder / "sums.py").write_text(FLOW + "\n\nimport atexit\n".join(["", ""]))
    heavy = {
        "rich",
        "asyncio",
        "anyio",
        "redis",
        "structlog",
        "orjson",
        "hiredis",
        "msgpack",
        "evflow.log",
        "evflow.store",
        "evflow_scheduler",
    }
    code = "import sys, atexit, runpy; sys.argv = ['sums.py', sys.argv[1]]; atexit.register(lambda: print('MODULES', *sys.modules))\n"
    code += "runpy.run_path('sums.py', run_name='__main__')"
    for command in ("--help", "show", "check", "output-dot"):
        modules = python("-c", code, command).stdout.rpartition("MODULES ")[2].split()
        assert "click" in modules
        assert heavy.isdisjoint(modules), command


def test_modules_beside_the_flow_never_shadow_ours(folder: Path) -> None:
    for name in ("click", "orjson", "rich", "msgpack", "hiredis", "redis", "anyio", "config"):
        (folder / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    for command in ("show", "run"):
        done = python("sums.py", command)
        assert done.returncode == 0, done.stderr


def test_modules_beside_a_flow_that_is_started_through_a_link_never_shadow_ours(folder: Path) -> None:
    (folder / "real").mkdir()
    for name in ("click", "msgpack"):
        (folder / "real" / f"{name}.py").write_text("raise RuntimeError('the wrong one')\n")
    (folder / "sums.py").rename(folder / "real" / "sums.py")
    (folder / "link.py").symlink_to("real/sums.py")
    done = python("link.py", "run")
    assert done.returncode == 0, done.stderr


def test_modules_beside_a_package_whose_flow_is_started_by_name_never_shadow_ours(folder: Path) -> None:
    for name in ("click", "msgpack"):
        (folder / f"{name}.py").write_text("raise RuntimeError('the wrong one')\n")
    (folder / "team").mkdir()
    (folder / "team" / "__init__.py").touch()
    (folder / "sums.py").rename(folder / "team" / "sums.py")
    done = python("-m", "team.sums", "run")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("folder")
def test_a_run_removes_what_dead_writers_left_in_the_store(evflow_home: Path) -> None:
    left = evflow_home / "store" / "tmp" / "1-dead"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert python("sums.py", "run").returncode == 0
    assert not left.exists()


# --- looking at runs ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_a_run_is_looked_at_with_every_command() -> None:
    python("sums.py", "run", "--tag", "first")
    assert json.loads(evflow("runs", "--json", "--tag", "first").stdout)[0]["run"] == "Sums/1"
    assert json.loads(evflow("show", "1", "--json").stdout)["status"] == "succeeded"
    assert python("sums.py", "logs", "1/end").stdout.endswith("total 6\n")
    assert evflow("logs", "1/end/6").stdout == "total 6\n"
    assert "to stderr" not in evflow("logs", "1", "--stdout").stdout
    assert re.search(r"total +\[int, 1 B\] = 6", evflow("dump", "1/end").stdout)
    assert "succeeded at" in evflow("explain", "1").stdout
    assert json.loads(evflow("events", "1", "--json").stdout)[-1]["type"] == "RunSealed"
    misspelt = evflow("events", "1", "--type", "TaskQueud", "--json")
    assert json.loads(misspelt.stdout) == []
    assert "no event of this version is called 'TaskQueud'. Did you mean 'TaskQueued'?" in misspelt.stderr
    assert json.loads(evflow("replay", "1", "--json").stdout)["timeline"][-1]["what"].startswith("sealed with")
    assert json.loads(evflow("replay", "1", "--verify", "--json").stdout)["ok"] is True
    assert json.loads(evflow("replay", "1", "--at", "7", "--json").stdout)["status"] == "running"


@pytest.mark.usefixtures("folder")
def test_a_flow_s_own_commands_know_its_steps_by_their_names() -> None:
    """A step, or a task of one, without a run is of the newest run, also where another flow has run 3; a run's number stands before it."""
    for arguments in ([], ["--n_items", "1"]):
        assert python("sums.py", "run", *arguments).returncode == 0
    for what, wanted in (("end", "[end/4] total 0\n"), ("end/4", "total 0\n"), ("1/end", "[end/6] total 6\n")):
        assert python("sums.py", "logs", what).stdout == wanted
    for what, wanted in (("join/3", "Sums/2/join/3"), ("1/join", "Sums/1/join/5")):
        assert [*json.loads(python("sums.py", "dump", what, "--json").stdout)] == [wanted]
        found = json.loads(python("sums.py", "show", what, "--json").stdout)
        assert [task["task"] for task in (found if isinstance(found, list) else [found])] == [wanted]
    [dumped] = json.loads(python("sums.py", "dump", "1/end", "--json").stdout).values()
    assert (dumped["total"]["type"], dumped["total"]["value"]) == ("int", 6)
    [dumped] = json.loads(python("sums.py", "dump", "1/end", "--json", "--max-value-size", "0").stdout).values()
    assert "value" not in dumped["total"], "it is larger"
    said = python("sums.py", "logs", "edn")
    assert (said.returncode, "Run 'Sums/2' has no step 'edn'. Did you mean 'end'?" in said.stderr) == (1, True)
    assert "has no attempt 5" in python("sums.py", "logs", "end", "--attempt", "5").stderr
    assert python("sums.py", "show", "--json").returncode == 2
    assert "1 log scrubbed" in python("sums.py", "logs", "scrub", "end").stderr
    assert python("sums.py", "logs", "1/end").stdout == "[end/6] total 6\n"


@pytest.mark.usefixtures("folder")
def test_what_tasks_printed_can_be_scrubbed(evflow_home: Path) -> None:
    assert python("sums.py", "run").returncode == 0
    assert "1 log scrubbed" in python("sums.py", "logs", "scrub", "1/end").stderr
    assert evflow("logs", "Sums/1/end").stdout == "[end/6] [scrubbed]\n"
    assert "making" in evflow("logs", "Sums/1/start").stdout
    shutil.rmtree(evflow_home / "store" / "named")
    assert "0 logs scrubbed" in python("sums.py", "logs", "scrub", "1").stderr


def click_free(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.usefixtures("folder")
def test_artifacts_are_written_to_a_file() -> None:
    import pickle

    python("sums.py", "run")
    done = python("sums.py", "dump", "1/join", "--file", "all.pickle", "--include", "total")
    assert done.returncode == 0, done.stderr
    assert pickle.loads(Path("all.pickle").read_bytes()) == {"Sums/1/join/5": {"total": 6}}


@pytest.mark.usefixtures("folder")
def test_a_dump_that_cannot_be_made_says_why() -> None:
    python("sums.py", "run")
    for arguments, said in (
        (["--file", "no/such/folder"], "cannot be written to 'no/such/folder': No such file or directory."),
        (["--include", "totl"], "No task of '1/join' has an artifact 'totl'."),
    ):
        done = evflow("dump", "1/join", *arguments)
        assert done.returncode == 1
        assert said in done.stderr
    assert "Did you mean 'total'?" in evflow("dump", "1/join", "--include", "totl").stderr


@pytest.mark.usefixtures("folder")
def test_an_object_that_was_changed_in_the_store_fails_the_verification(evflow_home: Path) -> None:
    python("sums.py", "run")
    digest = json.loads(evflow("show", "1/end/6", "--json").stdout)["manifest"]
    [path] = [path for path in (evflow_home / "store").rglob("*") if path.is_file() and digest[4:] in str(path)]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    done = evflow("replay", "1", "--verify", "--json")
    assert done.returncode == 1
    assert {problem["check"] for problem in json.loads(done.stdout)["problems"]} == {"artifact"}


def break_at_the_last_number() -> None:
    """Leave a run of which all tasks are finished but the last of its foreach, and a flow that is mended: a failure cancels what runs beside it."""
    flow = FLOW.replace("self.input == 1", "self.input == 2")
    Path("sums.py").write_text(flow)
    python("sums.py", "run", "--broken", "True", "--max-workers", "1")
    Path("sums.py").write_text(flow.replace("self.broken and", "False and"))


@pytest.mark.usefixtures("folder")
def test_a_failed_run_is_resumed_with_its_finished_tasks() -> None:
    python("sums.py", "run", "--broken", "True")
    Path("sums.py").write_text(FLOW.replace("self.broken and", "False and"))
    done = python("sums.py", "resume")
    assert done.returncode == 0, done.stdout + done.stderr
    tasks = json.loads(evflow("show", "2", "--json").stdout)["tasks"]
    assert tasks[0]["reused"] == "Sums/1/start/1"
    printed = evflow("logs", "2/start")
    assert (printed.stdout, "printed is in Sums/1, from where they were taken over: evflow logs Sums/1" in printed.stderr) == ("", True)


@pytest.mark.usefixtures("folder")
def test_a_resumed_run_that_only_takes_over_runs_nothing_and_can_be_resumed() -> None:
    """It is cancelled, by itself, which is what was asked for; where everything is taken over it has succeeded."""
    break_at_the_last_number()
    done = python("sums.py", "resume", "--clone-only")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(evflow("show", "2", "--json").stdout)
    assert shown["status"] == "cancelled"
    assert {task["status"] for task in shown["tasks"] if task["reused"]} == {"succeeded"}
    assert [task for task in shown["tasks"] if not task["reused"] and (task["status"] != "queued" or task["ran_anew"] is not None)] == []
    assert "--clone-only: what Sums/1 had finished is taken over, and nothing is run" in evflow("explain", "Sums/2").stdout
    assert verified("Sums/2")["exit"] == 0
    assert "6 tasks, 3 of them taken over." in python("sums.py", "resume", "--origin-run-id", "2").stderr
    assert "6 tasks, 6 of them taken over." in python("sums.py", "resume", "--origin-run-id", "3", "--clone-only").stderr


@pytest.mark.usefixtures("folder")
def test_a_resumed_run_says_of_each_task_why_it_was_taken_over_or_run() -> None:
    """In its last words, in show and explain, and for programs; without its origin's log it says what its own has."""
    break_at_the_last_number()
    done = python("sums.py", "resume")
    assert "double/4 ran because Sums/1/double/4 failed." in done.stderr
    assert "join/5, end/6 ran because what they depend on was run." in done.stderr
    assert "6 tasks, 3 of them taken over." in done.stderr
    found = {task["task"]: task for task in json.loads(evflow("show", "2", "--json").stdout)["tasks"]}
    assert found["Sums/2/double/4"]["ran_anew"] == {"code": "unfinished", "because": "Sums/1/double/4 failed"}
    assert found["Sums/2/join/5"]["ran_anew"] == {"code": "after", "because": "double/4 before it was run"}
    assert found["Sums/2/start/1"]["ran_anew"] is None
    assert "ran because Sums/1/double/4 failed" in evflow("show", "2").stdout
    assert "Sums/2/join/5 ran because double/4 before it was run." in evflow("explain", "2/join").stdout
    assert "Sums/2/start/1 was taken over from Sums/1/start/1 at" in evflow("explain", "2/start").stdout
    assert "join/5 ran because its step was named." in python("sums.py", "resume", "join", "--origin-run-id", "2").stderr
    assert python("sums.py", "--quiet", "resume", "--origin-run-id", "1").stderr == ""
    assert evflow("forget", "Sums/1", "--yes").returncode == 0
    assert json.loads(evflow("show", "2/double/4", "--json").stdout)["ran_anew"] is None


@pytest.mark.usefixtures("folder")
def test_a_resumed_run_may_have_other_parameters_and_keeps_the_rest() -> None:
    python("sums.py", "run", "--broken", "True", "--n_items", "2", "--max-workers", "1")
    done = python("sums.py", "resume", "--broken", "False")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 tasks were taken over that Sums/1 ran with another --broken; `resume STEP` runs all from that step on." in done.stderr
    assert "with another" not in python("sums.py", "resume", "--origin-run-id", "1", "--broken", "True").stderr
    shown = evflow("show", "2").stdout
    assert re.search(r"--broken +False", shown)
    assert re.search(r"--n_items +2", shown)
    assert re.search(r"  broken .*= True", evflow("dump", "Sums/2/start").stdout)
    for step in ("join", "end"):
        assert re.findall(r"  (broken|n_items) .*= (.*)", evflow("dump", f"Sums/2/{step}").stdout) == [
            ("broken", "False"),
            ("n_items", "2"),
        ]
    assert evflow("replay", "2", "--verify").returncode == 0


@pytest.mark.usefixtures("folder")
def test_a_run_resumed_by_other_code_has_the_constants_and_the_new_parameters_of_that_code() -> None:
    flow = FLOW.replace("    @step\n    def start", "    unit = 'm'\n\n    @step\n    def start")
    Path("sums.py").write_text(flow)
    python("sums.py", "run", "--broken", "True")
    again = flow.replace("unit = 'm'", "unit, size = 'km', Parameter('size', default=4)").replace("self.broken and", "False and")
    Path("sums.py").write_text(again.replace('print("total", self.total)', 'print("total", self.total, self.unit, self.size)'))
    done = python("sums.py", "resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "total 6 km 4" in done.stdout
    assert re.findall(r"  (size|unit) .*= (.*)", evflow("dump", "Sums/2/end").stdout) == [("size", "4"), ("unit", "'km'")]


@pytest.mark.usefixtures("folder")
def test_a_run_of_another_flow_cannot_be_resumed() -> None:
    Path("other.py").write_text(FLOW.replace("Sums", "Other"))
    assert python("other.py", "run").returncode == 0
    done = python("sums.py", "resume", "--origin-run-id", "Other/1")
    assert done.returncode == 1
    assert "Run 'Other/1' is one of 'Other', and 'Sums' takes over only what its own runs finished." in done.stderr
    assert "Sums" not in evflow("runs").stdout


@pytest.mark.usefixtures("folder")
def test_events_are_followed_until_the_seal() -> None:
    runs = subprocess.Popen([sys.executable, "sums.py", "--quiet", "run", "--wait", "0.5"], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: evflow("show", "Sums/1").returncode == 0, "the run has its first event")
        lines = evflow("events", "1", "--follow", "--json").stdout.splitlines()
    finally:
        runs.wait(60)
    assert [json.loads(text)["seq"] for text in lines] == list(range(1, len(lines) + 1))
    assert json.loads(lines[-1])["type"] == "RunSealed"


@pytest.mark.usefixtures("folder")
def test_a_run_is_cancelled_from_outside() -> None:
    runs = subprocess.Popen(
        [sys.executable, "sums.py", "--quiet", "run", "--wait", "300"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: '"running"' in evflow("show", "Sums/1/double", "--json").stdout, "a task runs")
        done = evflow("cancel", "1", "--reason", "enough")
        assert done.returncode == 0, done.stderr
        assert runs.wait(60) == 1
    finally:
        runs.kill()
        runs.wait()
    shown = json.loads(evflow("show", "1", "--json").stdout)
    assert (shown["status"], shown["reason"]) == ("cancelled", "enough")


def test_the_doctor_finds_this_machine_well(evflow_home: Path) -> None:
    done = python("-m", "evflow.cli", "doctor", "--json", EVFLOW_MAX_WORKER="8")
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == 0, findings
    mistyped = [finding for finding in findings if "EVFLOW_MAX_WORKER" in finding["seen"]]
    assert [(one["level"], "Did you mean 'EVFLOW_MAX_WORKERS'?" in one["advice"]) for one in mistyped] == [("warning", True)]
    assert {"python", "home-folder", "persistence", "eviction", "clock"} <= {finding["name"] for finding in findings}
    assert evflow_home.exists()


def test_the_doctor_names_a_server_that_is_away() -> None:
    done = python("-m", "evflow.cli", "doctor", EVFLOW_REDIS_URL="redis://127.0.0.1:1")
    assert done.returncode == 1
    assert "error" in done.stdout
    assert "Traceback" not in done.stderr


# --- terminals ----------------------------------------------------------------------------------------------


class Terminal:
    """A process in a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self.output = ""

    def press_ctrl_c(self) -> None:
        os.write(self._descriptor, b"\x03")

    def reads(self, text: str) -> bool:
        """Whether the text has been shown by now."""
        while select.select([self._descriptor], [], [], 0)[0]:
            try:
                chunk = os.read(self._descriptor, 65536)
            except OSError:  # the process has closed its end
                break
            if not chunk:
                break
            self.output += chunk.decode()
        return text in click_free(self.output)

    def finish(self) -> str:
        wait_until(lambda: self.reads("\0") or self.process.poll() is not None, "the process ends", 60)
        self.reads("\0")
        return self.output


@contextmanager
def terminal(*arguments: str, columns: int = 80, rows: int = 24, **variables: str) -> Generator[Terminal]:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR", "COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **variables}
    process = subprocess.Popen([sys.executable, *arguments], env=environment, preexec_fn=lambda: os.login_tty(theirs), pass_fds=[theirs])
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(ours)


def tasks_wait_for(file: str) -> None:
    """Let the tasks of the foreach go on for as long as there is no such file."""
    source = FLOW.replace("time.sleep(self.wait)", f"while not os.path.exists({str(Path(file).absolute())!r}): time.sleep(0.01)")
    Path("sums.py").write_text(source.replace("import sys, time", "import os, sys, time"))


@pytest.mark.usefixtures("folder")
def test_a_terminal_shows_a_panel_and_ends_without_it() -> None:
    tasks_wait_for("go")
    with terminal("sums.py", "run") as run:
        wait_until(lambda: run.reads("0/3  3 running"), "the panel shows that all three run")
        Path("go").touch()
        output = run.finish()
        assert run.process.returncode == 0
    assert "Sums/1  running" in click_free(output)
    last = output.rpartition("\x1b[J")[2]
    assert "Run \x1b[1mSums/1\x1b[0m" in last
    assert "running  " not in click_free(last)


@pytest.mark.usefixtures("folder")
def test_a_dumb_terminal_gets_plain_lines() -> None:
    with terminal("sums.py", "run", TERM="dumb") as run:
        output = run.finish()
    assert "\x1b" not in output
    assert re.search(r"\[1/start/1 \(pid \d+\)\] making", output)


@pytest.mark.usefixtures("folder")
def test_no_color_means_a_panel_without_colors() -> None:
    tasks_wait_for("go")
    with terminal("sums.py", "run", NO_COLOR="1") as run:
        wait_until(lambda: run.reads("running  double/"), "the panel shows a task that runs")
        Path("go").touch()
        output = run.finish()
    assert not re.search(r"\x1b\[[0-9;]*m", output)


@pytest.mark.usefixtures("folder")
def test_ctrl_c_cancels_the_run_and_says_so() -> None:
    with terminal("sums.py", "run", "--wait", "300") as run:
        wait_until(lambda: run.reads("running  double/2"), "the panel shows a running task")
        run.press_ctrl_c()
        output = click_free(run.finish())
        assert run.process.returncode == 1
    assert "Run Sums/1 cancelled" in output
    assert "Traceback" not in output
    kinds = [event["type"] for event in json.loads(evflow("events", "1", "--json").stdout)]
    assert kinds.count("RunCancelled") == 1
    assert "RetryScheduled" not in kinds


def test_an_artifact_whose_class_is_in_the_flows_file_is_dumped_from_anywhere(folder: Path) -> None:
    own_class = "class Point:\n    def __repr__(self):\n        return '<a point>'\n\nclass Sums"
    (folder / "sums.py").write_text(
        FLOW.replace("class Sums", own_class).replace("self.total =", "self.point = Point()\n        self.total =")
    )
    python("sums.py", "run")
    (folder / "sums.py").unlink()
    assert re.search(r"point +\[.*\] = <a point>", evflow("dump", "Sums/1/join").stdout)


@pytest.mark.usefixtures("folder")
def test_tags_are_changed_and_listed() -> None:
    python("sums.py", "run", "--tag", "first")
    assert evflow("tag", "add", "1", "good", "fast").stdout == "Sums/1: fast, first, good\n"
    assert evflow("tag", "replace", "1", "--add", "slow", "--remove", "fast").returncode == 0
    assert python("sums.py", "tag", "remove", "first").returncode == 0
    assert json.loads(evflow("runs", "--json", "--tag", "slow").stdout)[0]["tags"] == ["good", "slow"]
    assert python("sums.py", "tag", "list", "--hide-system-tags", "--flat").stdout == "good\nslow\n"
    assert evflow("tag", "replace", "1").returncode == 2
    for group in (("-m", "evflow.cli", "tag", "{}", "1"), ("sums.py", "tag", "{}", "--run-id", "1")):
        for act, words, tags in (
            ("add", ["new"], ["good", "new", "slow"]),
            ("remove", ["new"], ["good", "slow"]),
            ("replace", ["--add", "slow"], ["good", "slow"]),
        ):
            changed = json.loads(python(*(part.format(act) for part in group), *words, "--json").stdout)
            assert (changed["run"], changed["tags"]) == ("Sums/1", tags)
            assert "runtime:dev" in changed["system_tags"]


@pytest.mark.usefixtures("folder")
def test_lists_of_a_fresh_machine_are_empty_and_no_error() -> None:
    for command in (["-m", "evflow.cli", "runs"], ["-m", "evflow.cli", "tag", "list"], ["sums.py", "tag", "list"]):
        listed = python(*command, "--json")
        assert (listed.returncode, json.loads(listed.stdout), listed.stderr) == (0, [], "")
        told = python(*command)
        assert (told.returncode, told.stdout) == (0, "")
        assert "There are no runs" in told.stderr
    assert evflow("tag", "list", "Sums/1", "--json").returncode == 1


def kill_while_tasks_run(*options: str) -> None:
    """Start a run and kill its process while the tasks of its foreach run; they go on to their ends when it is continued."""
    tasks_wait_for("killed")
    runs = subprocess.Popen([sys.executable, "sums.py", "--quiet", "run", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: '"running"' in evflow("show", "Sums/1/double", "--json").stdout, "a task runs")
    finally:
        runs.kill()
        runs.wait()
    Path("killed").touch()


@pytest.mark.usefixtures("folder")
def test_a_run_whose_process_was_killed_is_interrupted_and_continued() -> None:
    kill_while_tasks_run()
    assert json.loads(evflow("runs", "--json").stdout)[0]["status"] == "interrupted"
    assert "evflow continue Sums/1" in evflow("show", "1").stdout
    explained = evflow("explain", "1").stdout
    assert "when the run's process died" in explained
    assert "has been running" not in explained
    done = evflow("continue", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Run Sums/1 goes on." in done.stderr
    assert json.loads(evflow("replay", "1", "--verify", "--json").stdout)["ok"] is True
    assert "the process before had died" in evflow("replay", "1").stdout


def test_a_continued_run_that_fails_names_the_flows_file_to_resume_it_with(folder: Path, evflow_home: Path) -> None:
    kill_while_tasks_run("--broken", "1")
    done = evflow("continue", "1")
    assert done.returncode == 1
    assert "python sums.py resume --origin-run-id 1" in done.stderr
    again = subprocess.run(
        [sys.executable, "-m", "evflow.cli", "continue", "Sums/1"],
        cwd=evflow_home,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert f"`python {folder / 'sums.py'} resume --origin-run-id 1`" in again.stderr
