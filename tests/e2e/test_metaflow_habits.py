"""What programs and flows that were written for Metaflow count on beside the language: its variables, packages, facts about tasks."""

import json
import pickle
from pathlib import Path

import pytest

from tests.e2e.test_scheduler import scheduler
from tests.metaflow_world import asked, flow, run, through
from tests.real_runs import evflow, python
from tests.waiting import wait_until

BRANCHED = """
import os
from metaflow import FlowSpec, current, project, step

os.environ[{variable!r}] = {value!r}

@project(name="shop")
class Branched(FlowSpec):
    @step
    def start(self):
        self.seen = [current.branch_name, current.project_flow_name, current.is_production]
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Branched()
"""


@pytest.mark.parametrize(
    ("variable", "value", "branch", "production"),
    [("METAFLOW_BRANCH", "tried", "test.tried", False), ("METAFLOW_PRODUCTION", "True", "prod", True)],
)
def test_the_branch_comes_from_metaflow_s_variables(folder: Path, variable: str, value: str, branch: str, production: bool) -> None:
    flow(folder, BRANCHED.format(variable=variable, value=value))
    run("flow.py")
    seen, tags = asked(folder, "[r.data.seen, sorted(r.system_tags)]", "r = Run('Branched/1')")
    assert seen == [branch, f"shop.{branch}.Branched", production]
    assert f"project_branch:{branch}" in tags


def test_an_option_wins_over_its_variable(folder: Path) -> None:
    flow(folder, BRANCHED.format(variable="METAFLOW_BRANCH", value="tried"))
    assert through("flow.py", "--branch", "mine", "run").returncode == 0
    assert asked(folder, "Run('Branched/1').data.seen[0]") == "test.mine"


def test_a_task_has_its_flow_s_name_as_an_artifact_unless_it_made_one_of_that_name(folder: Path) -> None:
    source = """
        from metaflow import FlowSpec, step

        class Named(FlowSpec):
            @step
            def start(self):
                self.x = 1
                self.next(self.end)

            @step
            def end(self):
                self.name = "another"

        if __name__ == "__main__":
            Named()
        """
    flow(folder, source)
    run("flow.py")
    found = asked(
        folder,
        "[t.artifacts.name.data, t['name'].data, t.data.name, 'name' in t, 'name' in t.data, [a.id for a in t], t.artifacts.name.size,"
        " pickle.loads(pickle.dumps(t['name'])).data, r.data.name, [a.id for a in r['end'].task]]",
        "import pickle\nr = Run('Named/1')\nt = r['start'].task",
    )
    assert found == ["Named", "Named", "Named", True, True, ["name", "x"], 6, "Named", "another", ["name", "x"]]
    (folder / "own.py").write_text("from evflow import Run\nprint([a.id for a in Run('Named/1')['start'].task])\n")
    assert python("own.py").stdout == "['x']\n"  # evflow's own dialect has what the step set


def test_tags_are_changed_of_a_run_that_is_named(folder: Path) -> None:
    flow(folder, BRANCHED.format(variable="METAFLOW_BRANCH", value="tried"))
    run("flow.py")
    refused = through("flow.py", "tag", "add", "xx")
    assert refused.returncode == 1
    assert "--run-id" in refused.stderr
    assert through("flow.py", "tag", "add", "--run-id", "1", "yy").returncode == 0
    assert asked(folder, "sorted(Run('Branched/1').user_tags)") == ["yy"]


def test_the_command_behind_a_run_of_a_runner_has_its_words_its_end_and_its_output(folder: Path) -> None:
    flow(folder, BRANCHED.format(variable="METAFLOW_BRANCH", value="tried"))
    setup = "import os\nwith Runner('flow.py', show_output=False).run() as going:\n    c = going.command_obj\n    files = c.log_files"
    found = asked(
        folder,
        "['run' in c.command, c.process.returncode, *[open(files[n]).read() == getattr(going, n) for n in files],"
        " 'succeeded' in ''.join(open(files[n]).read() for n in files), sorted(files)]",
        setup,
    )
    assert found == [True, 0, True, True, True, ["stderr", "stdout"]]


def test_a_parameter_is_given_more_than_once_or_with_several_words(folder: Path, root: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, Parameter, step

        class Several(FlowSpec):
            tags = Parameter("labels", multiple=True, type=str)
            sizes = Parameter("sizes", multiple=True, type=int, default=[1, 2])
            pair = Parameter("pair", nargs=2, type=float, default=(0.5, 1))

            @step
            def start(self):
                self.seen = [self.tags, self.sizes, self.pair]
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Several()
        """,
    )
    run("flow.py")
    run("flow.py", "--labels", "a b", "--labels", "c", "--sizes", "3", "--pair", "-1", "2.5")
    run("flow.py", METAFLOW_RUN_SIZES="4 5")
    assert "is not an integer" in through("flow.py", "run", "--sizes", "x").stderr
    setup = "done = Runner('flow.py', show_output=False).run(labels=['x', 'y z'], sizes=(7,), pair=[1, 2])"
    found = asked(folder, "[[*Run(f'Several/{n}')['start'].task.data.seen] for n in (1, 2, 3, done.run.id)]", setup)
    assert found == [
        [[], [1, 2], [0.5, 1.0]],
        [["a b", "c"], [3], [-1.0, 2.5]],
        [[], [4, 5], [0.5, 1.0]],
        [["x", "y z"], [7], [1.0, 2.0]],
    ]
    with scheduler(root):
        assert through("flow.py", "deploy").returncode == 0
        asked(folder, "str(DeployedFlow.from_deployment('Several').trigger(labels=['d e', 'f'], pair=[3, 4]))")
        assert evflow("run", "Several", "-p", "sizes=8 9", "--follow").returncode == 0
        wait_until(lambda: asked(folder, "[Run(f'Several/{n}').finished for n in (5, 6)]") == [True, True], "both are over")
    found = asked(folder, "[[*Run(f'Several/{n}')['start'].task.data.seen] for n in (5, 6)]")
    assert found == [[["d e", "f"], [1, 2], [3.0, 4.0]], [[], [8, 9], [0.5, 1.0]]]


def test_a_run_is_quiet_where_metaflow_s_variable_says_so(folder: Path) -> None:
    flow(folder, BRANCHED.format(variable="METAFLOW_QUIET", value="1"))
    done = run("flow.py")
    assert (done.stdout, done.stderr) == ("", "")


def test_a_type_of_card_whose_package_is_not_installed_stops_no_flow(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, card, current, step
        from metaflow.cards import Markdown

        class Absent(FlowSpec):
            @card(type="notebook", id="there", options={"path": "a.ipynb"})
            @card(type="notebook", save_errors=False)
            @step
            def start(self):
                current.card["there"].append(Markdown("words"))
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Absent()
        """,
    )
    assert through("flow.py", "check").returncode == 0
    done = run("flow.py")
    assert "There is no type of card called 'notebook'" in done.stdout
    setup = "from metaflow.cards import get_cards\ncards = get_cards(Run('Absent/1')['start'].task)"
    found = asked(folder, "[[c.type, c.id, 'no type of card called' in c.get()] for c in cards]", setup)
    assert found == [["notebook", "there", True]]


def test_a_flag_is_said_by_its_name_alone(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, Parameter, step

        class Flagged(FlowSpec):
            reset = Parameter("reset", default=False, is_flag=True, help="Begin anew.")

            @step
            def start(self):
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Flagged()
        """,
    )
    run("flow.py")
    run("flow.py", "--reset", "--tag", "a tag")
    run("flow.py", METAFLOW_RUN_RESET="True")
    run("flow.py", METAFLOW_RUN_RESET="False")
    setup = "for given in (True, False):\n    Runner('flow.py', show_output=False).run(reset=given)\nruns = [*Flow('Flagged').runs()]"
    assert asked(folder, "[r.data.reset for r in reversed(runs)]", setup) == [False, True, True, False, True, False]
    wrong = through("flow.py", "run", "--reset", "often")
    assert wrong.returncode == 2
    assert "'--reset'" in wrong.stderr


def test_what_a_task_does_not_have_is_not_dumped(folder: Path) -> None:
    flow(folder, BRANCHED.format(variable="METAFLOW_BRANCH", value="tried"))
    run("flow.py")
    done = through("flow.py", "dump", "--private", "--include", "absent,seen", "--file", "dumped", "1/start")
    assert done.returncode == 0
    [(task, values)] = pickle.loads((folder / "dumped").read_bytes()).items()
    assert (task, [*values]) == ("1/start/1", ["seen"])
    assert through("flow.py", "dump", "--include", "absent", "1/start").stderr == ""
    # what Metaflow keeps beside the user's artifacts is there with --private
    names = "--include", "_current_step,_success,_foreach_stack"
    through("flow.py", "dump", "--private", *names, "--file", "dumped", "1/start")
    [(_, values)] = pickle.loads((folder / "dumped").read_bytes()).items()
    assert values == {"_current_step": "start", "_success": True, "_foreach_stack": []}
    assert "_current_step  = 'start'" in through("flow.py", "dump", "--private", *names, "1/start").stdout
    assert "_current_step" not in through("flow.py", "dump", *names, "1/start").stdout


def test_a_task_that_fails_when_it_is_spun_is_an_error_of_its_program(folder: Path) -> None:
    flow(
        folder,
        """
        import os
        from metaflow import FlowSpec, step

        class Spun(FlowSpec):
            @step
            def start(self):
                print("it begins")
                assert "BAD" not in os.environ, "on purpose"
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Spun()
        """,
    )
    run("flow.py")
    script = flow(
        folder,
        """
        import asyncio
        from metaflow import Runner
        from metaflow.exception import MetaflowException

        runner = Runner("flow.py", show_output=False, env={"BAD": "1"})
        for spin in (lambda: runner.spin("Spun/1/start/1"), lambda: asyncio.run(runner.async_spin("Spun/1/start/1"))):
            try:
                spin()
            except MetaflowException as error:
                print("on purpose" in str(error), "it begins" in str(error))
        print(Runner("flow.py", show_output=False).spin("start").status, runner.run().status)
        """,
        "spin.py",
    )
    done = through(script)
    assert done.stdout.splitlines() == ["True True", "True True", "successful failed"], done.stderr


def test_cards_are_listed_for_programs_by_their_tasks(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, card, step

        class Listed(FlowSpec):
            @card(type="blank", id="a")
            @card
            @step
            def start(self):
                self.next(self.end)

            @card
            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Listed()
        """,
    )
    run("flow.py")
    one = json.loads(through("flow.py", "card", "list", "1/start/1", "--as-json").stdout)
    assert one["pathspec"] == "Listed/1/start/1"
    assert [(card["type"], card["id"]) for card in one["cards"]] == [("blank", "a"), ("default", None)]
    assert one["cards"][0]["filename"] == f"blank-a-{one['cards'][0]['hash'][:12]}.html"
    assert through("flow.py", "card", "list", "--as-json", "--file", "cards.json").returncode == 0
    every = json.loads((folder / "cards.json").read_text())
    assert [(task["pathspec"], len(task["cards"])) for task in every] == [("Listed/1/start/1", 2), ("Listed/1/end/2", 1)]
    assert json.loads(through("flow.py", "card", "list", "--as-json", "--type", "error").stdout) == []


def test_a_task_that_was_taken_over_has_the_facts_of_where_it_ran(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, current, step

        class Resumed(FlowSpec):
            @step
            def start(self):
                self.next(self.end)

            @step
            def end(self):
                assert current.origin_run_id

        if __name__ == "__main__":
            Resumed()
        """,
    )
    assert through("flow.py", "run").returncode == 1
    assert through("flow.py", "resume").returncode == 0
    setup = "f = Flow('Resumed')\nthen, now = (f[i]['start'].task.metadata_dict for i in '12')\nran = f['2']['end'].task.metadata_dict"
    beside, same, origins, own = asked(
        folder,
        "[sorted(set(now) - set(then)), all(now[k] == v for k, v in then.items()), [now['origin-run-id'], now['origin-task-id']], sorted(ran)]",
        setup,
    )
    assert (beside, same, origins) == (["origin-run-id", "origin-task-id"], True, ["1", "1"])
    assert "origin-run-id" in own
    assert "origin-task-id" not in own
