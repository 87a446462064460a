"""`@cached`, as people use it: real processes, over several runs."""

import json
import textwrap
from pathlib import Path
from typing import Any

import msgpack
import pytest

import evflow as ev
from evflow.archives.collect import Collected, collect_cache
from evflow.store import FileStore
from tests.e2e.test_scheduler import scheduler
from tests.real_runs import evflow, python, verified
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("client_forgets")

WITHIN_S = 60.0
FLOW = """
import time
from pathlib import Path
from evflow import FlowSpec, Parameter, cached, card, catch, retry, step
import helper

class Model:
    def __init__(self, x): self.x = x

class Fit(FlowSpec):
    depth = Parameter("depth", default=3)
    label = Parameter("label", default="a")
    n = Parameter("n", default=2)

    @step
    def start(self):
        self.stamp = time.time()
        self.rows = self.depth * 10
        self.items = list(range(self.n))
        self.doomed = "gone"
        self.next(self.train)

    @cached(key=["rows", "depth"], version=1)
    @card
    @step
    def train(self):
        print("ran train")
        self.model = Model(helper.doubled(self.rows))
        del self.doomed
        self.next(self.each, foreach="items")

    @cached(key="input")
    @step
    def each(self):
        print("ran each", self.input)
        self.out = self.input * 2
        self.next(self.join)

    @cached(key=lambda self, inputs: sorted(one.out for one in inputs))
    @step
    def join(self, inputs):
        print("ran join")
        self.outs = [one.out for one in inputs]
        self.merge_artifacts(inputs, exclude=["out"])
        self.next(self.strict)

    @cached
    @step
    def strict(self):
        print("ran strict")
        self.next(self.fragile)

    @cached(key="depth")
    @catch(var="why")
    @step
    def fragile(self):
        print("ran fragile")
        if Path("broken").exists():
            raise ValueError("broken")
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Fit()
"""


@pytest.fixture
def flow(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The flow's file, in the current folder, and a helper beside it."""
    monkeypatch.chdir(root)
    (root / "helper.py").write_text("def doubled(x):\n    return 2 * x\n")
    (root / "fit.py").write_text(textwrap.dedent(FLOW))
    return root / "fit.py"


def ran(*arguments: str) -> set[str]:
    """The steps whose bodies were run, in a new run that succeeds."""
    done = python("fit.py", "--quiet", "run", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.partition("ran ")[2] for line in done.stdout.splitlines()}


ALL = {"train", "each 0", "each 1", "join", "strict", "fragile"}


def the(run: str, step: str) -> ev.Task:
    """A step's one task."""
    (task,) = ev.Run(run)[step]
    return task


def data(run: str) -> Any:
    """What the last step left."""
    return the(run, "end").data


def tasks(run: str) -> dict[str, dict[str, Any]]:
    """The tasks of a run by step."""
    found: dict[str, Any] = json.loads(evflow("show", run, "--json").stdout)
    return {task["step"]: task for task in found["tasks"]}


@pytest.mark.usefixtures("flow")
def test_what_was_done_is_not_done_again_and_the_rest_is_of_this_run() -> None:
    """A narrow key takes what the step set; what it only passes on comes from the inputs of now, and what it deleted is gone."""
    assert ran() == ALL
    assert ran("--label", "b") == {"strict"}
    run = data("Fit/2")
    assert (the("Fit/2", "train").cached_from, the("Fit/2", "strict").cached_from) == ("Fit/1/train/2", None)
    assert the("Fit/2", "train").data.model.x == 60
    assert len(json.loads(evflow("card", "list", "Fit/2/train", "--json").stdout)) == 1
    assert ran("--with", "card") == {"strict"}
    uncarded = evflow("card", "get", "Fit/3/join")
    assert uncarded.returncode == 1
    assert "Its result was taken from Fit/1/join/5, which had made none (@cached); a run with --no-cache makes them." in uncarded.stderr
    assert run.label == "b"
    assert run.stamp == the("Fit/2", "start").data.stamp != data("Fit/1").stamp
    assert run.outs == [0, 2]
    assert "doomed" not in the("Fit/2", "train")
    assert "out" not in the("Fit/2", "join")
    assert len(tasks("Fit/2")["train"]["cached"]["key"]) == 64
    for number in (1, 2):
        assert verified(f"Fit/{number}")["events"] > 10


@pytest.mark.usefixtures("flow")
def test_it_is_told_everywhere_where_a_result_is_from_and_why_a_step_was_run() -> None:
    """In the lines of the run and its last words, in show, explain, replay and --json."""
    ran()
    done = python("fit.py", "run", "--depth", "3")
    assert "Task is cached from Fit/1/train/2 in" in done.stdout
    assert "8 tasks, 5 of them cached." in done.stderr
    assert "cached from Fit/1/train/2" in evflow("show", "Fit/2").stdout
    assert "Fit/2/train/2 was cached from Fit/1/train/2 at" in evflow("explain", "Fit/2/train/2").stdout
    assert "cached from Fit/1/train/2" in evflow("replay", "Fit/2").stdout
    ran("--depth", "4")
    assert tasks("Fit/3")["train"]["cached"]["because"] == "changed since Fit/1/train/2: depth, rows"
    assert "The step was run (@cached): changed since Fit/1/train/2: depth, rows." in evflow("explain", "Fit/3/train/2").stdout
    assert tasks("Fit/1")["train"]["cached"]["because"] == "nothing was kept of it before"
    (reason,) = json.loads(evflow("explain", "Fit/3/train/2", "--json").stdout)["reasons"]
    assert (reason["reason"], reason["cached"], reason["not_cached"]) == ("ended", "", "changed since Fit/1/train/2: depth, rows")


def test_changed_code_is_run_and_code_that_is_as_it_was_is_found_again(flow: Path) -> None:
    """That of a helper beside the flow; comments and other steps do not count."""
    ran()
    helper = flow.parent / "helper.py"
    before = helper.read_text()
    helper.write_text(
        before.replace("2 * x", "x + 2 * x")
    )  # longer: within a second the interpreter takes a file of the same length for the same
    assert ran() >= {"train"}
    assert the("Fit/2", "train").data.model.x == 90
    assert tasks("Fit/2")["train"]["cached"]["because"] == "changed since Fit/1/train/2: the code"
    helper.write_text(before)
    flow.write_text(flow.read_text().replace('print("ran join")', 'print("ran join")  # loudly'))
    assert ran() == {"strict"}
    assert the("Fit/3", "train").cached_from == "Fit/1/train/2"


def test_a_result_is_kept_as_that_of_the_code_that_was_loaded_though_its_file_has_changed_since(flow: Path) -> None:
    """Somebody edits while a run goes on: its tasks run what was loaded before."""
    edited = "def doubled(x):\n    return 3 * x  # of another length: Python's caches know a file by its size and second\n"
    flow.write_text(flow.read_text().replace("self.stamp = time.time()", f"Path('helper.py').write_text({edited!r})"))
    assert "train" in ran()
    assert data("Fit/1").model.x == 60
    assert "train" in ran()
    assert data("Fit/2").model.x == 90
    assert "train" not in ran()


def test_another_version_and_no_cache_run_the_step_and_keep_it_anew(flow: Path) -> None:
    """Whoever comes next takes that."""
    ran()
    flow.write_text(flow.read_text().replace("version=1", "version=2"))
    assert "train" in ran()
    assert ran("--no-cache") == ALL
    assert tasks("Fit/3")["train"]["cached"]["because"] == "--no-cache"
    assert ran() == {"strict"}
    assert the("Fit/4", "train").cached_from == "Fit/3/train/2"


@pytest.mark.usefixtures("flow")
def test_a_new_item_is_the_only_one_that_is_run() -> None:
    """Keyed by the item."""
    ran()
    assert {step for step in ran("--n", "3") if "each" in step} == {"each 2"}
    assert data("Fit/2").outs == [0, 2, 4]


@pytest.mark.usefixtures("flow")
def test_a_result_that_catch_made_of_an_exception_is_not_kept() -> None:
    """It is tried again."""
    Path("broken").touch()
    assert "fragile" in ran()
    Path("broken").unlink()
    assert "fragile" in ran()
    assert "fragile" not in ran()


def test_what_is_gone_from_the_store_is_done_again(flow: Path, evflow_home: Path) -> None:
    """A forgotten run whose objects were collected; what cannot be read any more."""
    ran()
    manifest = tasks("Fit/1")["train"]["manifest"]
    (evflow_home / "store" / "objects" / manifest[:2] / manifest[2:]).unlink()
    assert "train" in ran()
    assert tasks("Fit/2")["train"]["cached"]["because"] == "what Fit/1/train/2 left is not in the store any more"
    for file in (evflow_home / "store" / "named" / "cache").rglob("*"):
        if file.is_file():
            file.write_bytes(b"\xc1nonsense")
    assert ran() == ALL
    assert ran() == {"strict"}


@pytest.mark.usefixtures("flow")
def test_forgetting_a_run_leaves_what_another_has_taken() -> None:
    """By reference: the runs that took it keep it, and it can be taken on."""
    ran()
    ran()
    assert evflow("forget", "Fit/1", "--yes").returncode == 0
    assert the("Fit/2", "train").data.model.x == 60
    assert ran() == {"strict"}


def test_entries_whose_manifest_is_gone_are_collected_with_the_garbage(tmp_path: Path) -> None:
    """Not those of another log, nor young ones, nor those that can still be taken."""
    store = FileStore(tmp_path)
    there = store.put([b"manifest"])
    for name, manifest in (("one/ab/gone", b"g" * 32), ("one/ab/there", there), ("two/ab/gone", b"g" * 32)):
        store.write_named(f"cache/{name}", [msgpack.packb({"manifest": manifest})])
    store.write_named("cache/one/ab/damaged", [b"\xc1"])
    found = Collected()
    collect_cache(store, "one", store.now_us() - 60_000_000, found, dry_run=False)
    assert found.files == 0
    collect_cache(store, "one", store.now_us() + 1_000_000, found, dry_run=False)
    assert found.files == 2
    assert store.list_named("cache") == ["cache/one/ab/there", "cache/two/ab/gone"]


def test_a_key_that_names_nothing_says_what_there_is(flow: Path) -> None:
    """With the way out; the step is not run."""
    flow.write_text(flow.read_text().replace('key=["rows", "depth"]', 'key="row"'))
    done = python("fit.py", "run")
    assert done.returncode == 1
    assert "ran train" not in done.stdout
    assert "keyed by 'row' (@cached), and has no artifact or parameter of that name" in done.stdout + done.stderr
    assert "Did you mean 'rows'?" in done.stdout


def test_a_key_of_the_wrong_kind_is_told_by_check(flow: Path) -> None:
    """Before anything runs."""
    flow.write_text(flow.read_text().replace('key=["rows", "depth"]', "key=5"))
    done = python("fit.py", "check")
    assert done.returncode == 1
    assert "@cached takes the name of an artifact, a list of names or a function as key, not 5." in done.stderr


@pytest.mark.usefixtures("flow")
def test_runs_of_a_deployment_and_runs_of_a_terminal_share_it() -> None:
    """A scheduler runs the code from its package, in another folder."""
    ran()
    assert python("fit.py", "deploy").returncode == 0
    with scheduler(Path.cwd()):
        assert evflow("run", "Fit").returncode == 0
        wait_until(lambda: tasks("Fit/2").get("end", {}).get("status") == "succeeded", "the run is over", WITHIN_S)
    assert tasks("Fit/2")["train"]["cached"]["from"] == "Fit/1/train/2"


@pytest.mark.usefixtures("flow")
def test_runs_of_a_deployment_take_nothing_from_it_where_they_or_the_deployment_say_so() -> None:
    """And keep what they do for those that come after."""
    ran()
    assert python("fit.py", "deploy").returncode == 0
    assert python("fit.py", "deploy", "--name", "anew", "--no-cache").returncode == 0
    with scheduler(Path.cwd()):
        for number, arguments in ((2, ("Fit", "--no-cache")), (3, ("Fit:anew",)), (4, ("Fit",))):
            assert evflow("run", *arguments).returncode == 0
            wait_until(lambda: tasks(f"Fit/{number}").get("end", {}).get("status") == "succeeded", "the run is over", WITHIN_S)  # noqa: B023 - called at once
    assert [tasks(f"Fit/{number}")["train"]["cached"].get("because") for number in (2, 3)] == ["--no-cache"] * 2
    assert tasks("Fit/4")["train"]["cached"]["from"] == "Fit/3/train/2"


@pytest.mark.usefixtures("flow")
def test_a_resumed_run_names_the_task_that_did_the_work() -> None:
    """Not the one that took it from the cache."""
    ran()
    ran()
    assert python("fit.py", "resume", "--origin-run-id", "2").returncode == 0
    assert the("Fit/3", "train").origin_pathspec == "Fit/1/train/2"


@pytest.mark.usefixtures("flow")
def test_a_spin_runs_the_step_in_any_case() -> None:
    """That is what it is for."""
    ran()
    assert "ran train" in python("fit.py", "spin", "train").stdout
