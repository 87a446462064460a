"""Flows written for Metaflow, not changed, as users have them: real files, processes, a scheduler, a kill."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_pools import worker
from tests.e2e.test_scheduler import scheduler
from tests.metaflow_world import asked, flow, run, through
from tests.real_runs import evflow, python, verified

LINEAR = """
import metaflow
from metaflow import FlowSpec, Parameter, step

class Linear(FlowSpec):
    alpha = Parameter("alpha", default=3)
    beta = Parameter("beta_name", default="b")

    @step
    def start(self):
        self.x = self.alpha
        self.module = metaflow.__spec__.loader.__class__.__module__
        self.next(self.end)

    @step
    def end(self):
        self.y = self.x + 1

if __name__ == "__main__":
    Linear()
"""


# ---------------------------------------------------------------- whose metaflow it is


def test_a_flow_runs_as_it_is_and_its_client_reads_it(folder: Path) -> None:
    flow(folder, LINEAR)
    run("flow.py", "--alpha", "5")
    found = asked(folder, "[r.successful, r.data.x, r.data.y, r.data.module, [s.id for s in r]]", "r = Flow('Linear').latest_run")
    assert found == [True, 5, 6, "evflow.compat.metaflow.finder", ["end", "start"]]
    assert verified("Linear/1")["exit"] == 0


def test_an_installed_metaflow_is_not_looked_at(folder: Path) -> None:
    flow(folder, LINEAR)
    (folder / "metaflow").mkdir()
    (folder / "metaflow" / "__init__.py").write_text("raise SystemExit('the installed one')")
    run("flow.py")
    assert asked(folder, "Run('Linear/1').data.y") == 4


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_holds_in_the_processes_of_tasks_however_they_start(folder: Path, method: str) -> None:
    flow(folder, LINEAR)
    run("flow.py", "--start-method", method)
    assert asked(folder, "Run('Linear/1').data.y") == 4


def test_install_does_the_same_for_python_flow_py(folder: Path) -> None:
    flow(folder, LINEAR)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text("from evflow.compat.metaflow import install\ninstall()\n")
    done = python("flow.py", "run", "--start-method", "spawn", PYTHONPATH=str(folder / "site"))
    assert done.returncode == 0, done.stderr
    assert asked(folder, "Run('Linear/1').data.y") == 4


def test_a_process_that_imports_no_metaflow_pays_for_no_part_of_it(folder: Path) -> None:
    script = flow(
        folder,
        "from evflow.compat.metaflow import install\ninstall()\nimport sys\nprint([m for m in sys.modules if m.startswith('evflow')])",
    )
    names = python(script).stdout
    assert "evflow.compat.metaflow.finder" in names
    assert "evflow.compat.metaflow.rules" not in names
    assert "evflow.flow" not in names
    assert "evflow.client" not in names


def test_metaflow_that_is_loaded_already_is_an_error_that_says_what_to_do(folder: Path) -> None:
    (folder / "metaflow.py").write_text("")
    script = flow(folder, "import metaflow\nfrom evflow.compat.metaflow import install\ninstall()")
    done = python(script)
    assert done.returncode == 1
    assert f"has imported Metaflow itself already, from {folder}/metaflow.py" in done.stderr
    assert "sitecustomize.py" in done.stderr


def test_what_is_missing_is_one_sentence(folder: Path) -> None:
    script = flow(
        folder,
        """
        from importlib import import_module
        import metaflow
        for wrong in ("from metaflow import Flowspec", "import metaflow.plugins.nothing", "from metaflow.cards import Tables",
                      "metaflow.retri", "from metaflow import airflow_s3_key_sensor"):
            try:
                exec(wrong)
            except (ImportError, AttributeError) as error:
                print(f"{type(error).__name__}: {error}")
        print(hasattr(metaflow, "airflow_s3_key_sensor"))
        """,
    )
    page = "(docs/metaflow.md lists what works)"
    assert through(script).stdout.splitlines() == [
        f"ModuleNotFoundError: evflow knows no 'Flowspec' in metaflow {page}. Did you mean 'FlowSpec'?",
        f"ModuleNotFoundError: evflow knows no 'nothing' in metaflow.plugins {page}.",
        f"ModuleNotFoundError: evflow knows no 'Tables' in metaflow.cards {page}. Did you mean 'Table'?",
        f"AttributeError: evflow knows no 'retri' in metaflow {page}. Did you mean 'retry'?",
        f"ModuleNotFoundError: This version of evflow has nothing that stands for metaflow.airflow_s3_key_sensor {page}.",
        "False",
    ]  # fmt: skip


def test_the_command_says_how_it_is_used(folder: Path) -> None:
    assert "FLOW.py [OPTIONS] COMMAND" in through("--help").stdout
    nothing = python("-m", "evflow.compat.metaflow")
    assert (nothing.returncode, "Usage:" in nothing.stderr) == (2, True)
    option = through("--quiet", "flow.py")
    assert (option.returncode, "the flow's file comes first" in option.stderr) == (2, True)
    missing = through("no.py", "run")
    assert missing.returncode == 2
    assert "no.py cannot be read" in missing.stderr
    assert "Traceback" not in missing.stderr
    flow(folder, LINEAR)
    assert "python -m evflow.compat.metaflow flow.py" in through("flow.py", "--help").stdout


# ---------------------------------------------------------------- elsewhere and later


def test_a_scheduler_runs_a_deployed_flow_from_its_code_package(folder: Path, root: Path) -> None:
    flow(folder, LINEAR)
    with scheduler(root):
        done = through("flow.py", "deploy")
        assert done.returncode == 0, done.stderr
        (folder / "flow.py").unlink()
        started = evflow("run", "Linear", "-p", "alpha=8", "--follow")
        assert started.returncode == 0, started.stderr
    assert asked(folder, "Run('Linear/1').data.y") == 9


def test_a_deployer_and_a_worker_of_a_pool_know_it_too(folder: Path, root: Path) -> None:
    flow(folder, LINEAR)
    (folder / "deploy.py").write_text(
        "from metaflow import Deployer\nprint(Deployer('flow.py', decospecs=['pool:name=gpu']).scheduler().create())\n"
    )
    assert through("deploy.py").returncode == 0
    with scheduler(root), worker(root):
        started = evflow("run", "Linear", "--follow")
        assert started.returncode == 0, started.stderr
    assert asked(folder, "Run('Linear/1').data.y") == 4
    slots = json.loads(evflow("events", "Linear/1", "--json", "--type", "SlotGranted").stdout)
    assert [slot["fields"]["executor"] for slot in slots] == [""] * len(slots), "none of them ran elsewhere than in the pool"


def test_a_killed_run_is_continued_without_the_module(folder: Path) -> None:
    flow(
        folder,
        """
        import os, signal
        from metaflow import FlowSpec, step

        class Killed(FlowSpec):
            @step
            def start(self):
                self.next(self.end)

            @step
            def end(self):
                self.f = lambda: 1
                if os.path.exists("kill"):
                    os.unlink("kill")
                    os.kill(int(os.environ["OWNER"]), signal.SIGKILL)
                    signal.pause()
                self.done = True

        if __name__ == "__main__":
            os.environ["OWNER"] = str(os.getpid())
            Killed()
        """,
    )
    (folder / "kill").touch()
    assert through("flow.py", "run").returncode == -signal.SIGKILL
    done = evflow("continue", "Killed/1")
    assert done.returncode == 0, done.stderr
    assert asked(folder, "[Run('Killed/1').data.done, 'f' in Run('Killed/1').data]") == [True, False]


FAILS = """
from metaflow import FlowSpec, step

class Fails(FlowSpec):
    @step
    def start(self):
        raise ValueError("no")
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Fails()
"""


def test_hints_name_the_command_that_starts_such_a_flow(folder: Path) -> None:
    flow(folder, FAILS)
    resume = "python -m evflow.compat.metaflow flow.py resume --origin-run-id 1"
    assert f"  {resume}\n" in through("flow.py", "run").stderr
    for asked_for in ("retry", "continue"):
        refused = evflow(asked_for, "Fails/1")
        assert refused.returncode == 1
        assert f"`{resume}` makes a new run" in refused.stderr
    assert through(*resume.split()[3:]).returncode == 1, "the run that resumes it fails as it did"


def test_hints_are_plain_where_the_interpreter_knows_the_module_by_itself(root: Path, folder: Path) -> None:
    (root / "site").mkdir()
    (root / "site" / "sitecustomize.py").write_text("from evflow.compat.metaflow import install\ninstall()\n")
    flow(folder, FAILS)
    assert "  python flow.py resume --origin-run-id 1\n" in python("flow.py", "run", PYTHONPATH=str(root / "site")).stderr
    assert "`python flow.py resume --origin-run-id 1`" in evflow("retry", "Fails/1", PYTHONPATH=str(root / "site")).stderr


def test_values_with_metaflow_s_names_are_read_without_the_module(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, catch, step
        from metaflow.exception import CommandException, MetaflowException

        class Point:
            x = 1

        class Kept(FlowSpec):
            @catch(var="ex")
            @step
            def start(self):
                self.error = CommandException("no such thing")
                self.point = Point()
                raise MetaflowException("it broke")
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Kept()
        """,
    )
    run("flow.py")
    script = flow(
        folder,
        """
        from evflow import Run
        data = Run("Kept/1").data
        print(data.ex.type, data.ex.exception, type(data.error).__name__, data.error.message, data.point.x)
        from evflow.flow import dialect
        print(dialect.is_metaflow())
        """,
        "read.py",
    )
    assert python(script).stdout.splitlines() == ["metaflow.exception.MetaflowException it broke CommandException no such thing 1", "False"]
    shown = evflow("dump", "Kept/1/start")
    assert "no such thing" in shown.stdout
    assert shown.returncode == 0, shown.stderr
    assert evflow("replay", "Kept/1", "--verify").returncode == 0


# ---------------------------------------------------------------- the stricter rules, and the looser ones


def test_a_join_reads_merged_artifacts_only(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, step

        class Joins(FlowSpec):
            @step
            def start(self):
                self.x = 1
                self.next(self.a, self.b)

            @step
            def a(self):
                self.next(self.join)

            @step
            def b(self):
                self.next(self.join)

            @step
            def join(self, inputs):
                self.before = hasattr(self, "x")
                try:
                    self.x
                except AttributeError as error:
                    self.said = str(error)
                self.merge_artifacts(inputs)
                self.after = self.x
                self.next(self.c, self.d)

            @step
            def c(self):
                self.next(self.again)

            @step
            def d(self):
                self.next(self.again)

            @step
            def again(self, inputs):
                self.next(self.end)

            @step
            def end(self):
                self.passed = self.x

        if __name__ == "__main__":
            Joins()
        """,
    )
    run("flow.py")
    before, said, after, passed = asked(folder, "[d.before, d.said, d.after, d.passed]", "d = Run('Joins/1').data")
    assert (before, after, passed) == (False, 1, 1)
    assert said.startswith("Flow Joins has no attribute 'x'")
    assert "inputs[0].x" in said


def test_programs_around_a_flow_find_its_number_and_its_output_alone(folder: Path) -> None:
    flow(folder, LINEAR.replace("self.next(self.end)", "print('said')\n        self.next(self.end)"))
    run("flow.py", "--run-id-file", "number")
    assert (folder / "number").read_text() == "1"
    assert through("flow.py", "logs", "--stdout", "1/start").stdout == "said\n"
    assert through("flow.py", "logs", "--stdout", "1").stdout == "[start/1] said\n"


def test_what_a_task_printed_ends_in_its_segmentation_fault(folder: Path) -> None:
    flow(folder, LINEAR.replace("self.y = self.x + 1", "import ctypes\n        print('Crash and burn!')\n        ctypes.string_at(0)"))
    done = through("flow.py", "run")
    assert done.returncode == 1
    setup = "namespace(None)\ntask = Run('Linear/1')['end'].task"
    assert asked(folder, "[task.stdout, task.stderr]", setup) == ["Crash and burn!\n", "Task failed with a segmentation fault.\n"]


def test_a_process_that_is_killed_has_failed_and_counts(folder: Path) -> None:
    text = LINEAR.replace("import FlowSpec", "import FlowSpec, catch").replace(
        "    @step\n    def end", "    @catch(var='why')\n    @step\n    def end"
    )
    flow(folder, text.replace("self.y = self.x + 1", "import os\n        os.kill(os.getpid(), 9)"))
    run("flow.py")
    setup = "namespace(None)\ntask = Run('Linear/1')['end'].task"
    assert asked(folder, "[m.value for m in task.metadata if m.type == 'attempt']", setup) == ["0", "1"]


def test_a_node_of_a_gang_may_return_before_its_next(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, current, parallel, step

        class Gang(FlowSpec):
            @step
            def start(self):
                self.next(self.train, num_parallel=3)

            @parallel
            @step
            def train(self):
                self.node = current.parallel.node_index
                if self.node != 0:
                    return
                self.next(self.join)

            @step
            def join(self, inputs):
                self.nodes = [one.node for one in inputs]
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Gang()
        """,
    )
    run("flow.py")
    assert asked(folder, "Run('Gang/1').data.nodes") == [0, 1, 2]


def test_functions_on_self_are_not_kept_and_nothing_is_said(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, step

        def double(x):
            return 2 * x

        class Functions(FlowSpec):
            @step
            def start(self):
                self.f, self.g, self.h = lambda: 1, double, self.start
                self.x = self.g(4)
                self.next(self.end)

            @step
            def end(self):
                self.seen = [hasattr(self, name) for name in "fghx"]

        if __name__ == "__main__":
            Functions()
        """,
    )
    done = run("flow.py")
    assert "function" not in done.stderr
    assert asked(folder, "[r['start'].task.data.x, r.data.seen]", "r = Run('Functions/1')") == [8, [False, False, False, True]]


def test_what_only_evflow_accepts_stays_accepted(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, Parameter, step

        class Choice(FlowSpec):
            big_one = Parameter("big_one", default=False)

            @step
            def start(self):
                if self.big_one:
                    self.next(self.big)
                else:
                    self.next(self.end)

            @step
            def big(self):
                print("big")
                self.next(self.end)

            @step
            async def end(self):
                self.done = True

        if __name__ == "__main__":
            Choice()
        """,
    )
    run("flow.py", "--big-one", "true")
    assert asked(folder, "[s.id for s in Run('Choice/1')]") == ["end", "big", "start"]
    assert "big" in through("flow.py", "logs", "1").stdout


def test_the_rules_of_a_flow_of_evflow_s_own_stay_beside_it(folder: Path) -> None:
    flow(
        folder,
        LINEAR.replace("metaflow.__spec__", "__spec__")
        .replace("import metaflow\n", "")
        .replace("from metaflow", "from evflow")
        .replace("self.module = __spec__.loader.__class__.__module__", "self.module = lambda: 1"),
    )
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text("from evflow.compat.metaflow import install\ninstall()\n")
    done = python("flow.py", "run", PYTHONPATH=str(folder / "site"))
    assert done.returncode == 1
    assert "self.module" in done.stderr + done.stdout


# ---------------------------------------------------------------- options and variables


def test_metaflow_s_options_before_the_command_are_accepted(folder: Path) -> None:
    flow(folder, LINEAR)
    habits = ["--quiet", "--no-pylint", "--metadata", "local", "--environment=conda", "--event-logger", "nullSidecarLogger"]
    quiet = through("flow.py", *habits, "--monitor", "nullSidecarMonitor", "--package-suffixes", ".py,.csv", "run")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    loud = through("flow.py", "--datastore=s3", "--metadata", "service", "--datastore-root", str(folder / "store"), "run")
    assert loud.returncode == 0, loud.stderr
    assert loud.stderr.count("has no effect") == 2
    assert "--datastore s3 has no effect: artifacts are kept in evflow's store (EVFLOW_STORE)." in loud.stderr
    assert (folder / "store").is_dir()
    assert through("flow.py", "--pylint", "check").returncode == 0
    assert through("flow.py", "--trigger", "Linear/1", "run").returncode == 0
    assert asked(folder, "[run.trigger.run.pathspec, run.trigger.event.type]", "run = Flow('Linear').latest_run") == ["Linear/1", "run"]


def test_metaflow_s_variables_are_read_and_evflow_s_win(folder: Path) -> None:
    flow(folder, LINEAR)
    theirs: dict[str, Any] = {
        "METAFLOW_USER": "ada",
        "METAFLOW_RUN_ALPHA": "7",
        "METAFLOW_RUN_BETA_NAME": "z",
        "METAFLOW_DEFAULT_DECOSPECS": "retry:times=1",
    }
    run("flow.py", METAFLOW_DATASTORE_SYSROOT_LOCAL=str(folder / "sys"), **theirs)
    run("flow.py", EVFLOW_USER="bob", EVFLOW_RUN_ALPHA="9", **theirs)
    setup = "namespace(None)\na, b = Run('Linear/1'), Run('Linear/2')"
    found = asked(folder, "[[r.data.alpha, r.data.beta, [t for t in r.tags if t.startswith('user:')]] for r in (a, b)]", setup)
    assert found == [[7, "z", ["user:ada"]], [9, "z", ["user:bob"]]]
    started = json.loads(evflow("events", "Linear/1", "--json", "--type", "RunStarted").stdout)[0]["fields"]
    assert started["options"]["with"] == ["retry:times=1"]
    assert started["store"].endswith("/sys/.evflow")


def test_tags_and_the_folder_for_temporary_files_come_from_metaflow_s_variables(folder: Path) -> None:
    flow(
        folder,
        LINEAR.replace(
            "def start(self):\n", "def start(self):\n        from metaflow import current\n        self.folder = current.tempdir\n", 1
        ),
    )
    run("flow.py", METAFLOW_RUN_TAGS="a b", METAFLOW_TEMPDIR=str(folder / "temporary"))
    run("flow.py", "--tag", "c", METAFLOW_RUN_TAGS="a b")
    found = asked(folder, "[[sorted(r.user_tags), r.data.folder] for r in (Run('Linear/1'), Run('Linear/2'))]", "namespace(None)")
    assert found[0] == [["a", "b"], str(folder / "temporary")]
    assert found[1][0] == ["c"]


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("METAFLOW_RUN_MAX_WORKERS", "many"),
        ("METAFLOW_RUN_MAX_NUM_SPLITS", "-"),
        ("METAFLOW_FLOW_CONFIG_VALUE", "{"),
        ("METAFLOW_FLOW_CONFIG", "{"),
    ],
)
def test_a_variable_with_a_wrong_value_is_called_as_it_was_written(folder: Path, variable: str, wrong: str) -> None:
    flow(
        folder,
        LINEAR.replace("class Linear", "from metaflow import Config\n\nclass Linear").replace(
            "    @step", "    cfg = Config('cfg', default_value={})\n\n    @step", 1
        ),
    )
    variables: dict[str, Any] = {variable: wrong}
    done = through("flow.py", "run", **variables)
    assert done.returncode == 1
    assert f"Error: {variable}" in done.stderr
    assert "EVFLOW_" not in done.stderr
    assert "Traceback" not in done.stderr


def test_configurations_come_from_metaflow_s_variables(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import Config, FlowSpec, step

        class Configured(FlowSpec):
            a = Config("a", default_value={"n": 0})
            b = Config("b", default_value={"n": 0})
            c = Config("c", default="packages.txt", parser=".plugins.requirements_txt_parser")

            @step
            def start(self):
                self.next(self.end)

            @step
            def end(self):
                self.seen = [self.a.n, self.b.n, self.c.packages.numpy]

        if __name__ == "__main__":
            Configured()
        """,
    )
    (folder / "a.json").write_text('{"n": 1}')
    (folder / "packages.txt").write_text("numpy==2.1\n")
    run("flow.py", METAFLOW_FLOW_CONFIG='{"a": "a.json"}', METAFLOW_FLOW_CONFIG_VALUE='{"b": {"n": 2}}')
    assert asked(folder, "Run('Configured/1').data.seen") == [1, 2, "2.1"]
    refused = through("flow.py", "run", METAFLOW_FLOW_CONFIG="[1]")
    assert refused.returncode == 1
    assert "METAFLOW_FLOW_CONFIG is no JSON map of configurations: it is a list." in refused.stderr
    assert "Write METAFLOW_FLOW_CONFIG='" in refused.stderr


def test_it_is_this_python_that_runs_it(folder: Path) -> None:
    flow(folder, "import sys, metaflow\nprint(sys.argv, __name__, __file__, sys.path[0], sys.executable)", "plain.py")
    done = through("plain.py", "--x", "1")
    assert done.stdout.split() == ["['plain.py',", "'--x',", "'1']", "__main__", str(folder / "plain.py"), str(folder), sys.executable]
