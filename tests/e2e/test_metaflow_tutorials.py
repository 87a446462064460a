"""The tutorials that come with Metaflow, episodes 00 to 05, not changed: by evflow, and by Metaflow itself, with the same artifacts."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evflow
from tests.metaflow_itself import FOUND, Metaflow, found, made
from tests.metaflow_world import run, through
from tests.real_runs import python

pytestmark = pytest.mark.timeout(900)  # the environment of Metaflow is made by the first of them

DISTANCE = "def eval(a, b):\n    return sum(x != y for x, y in zip(a, b)) + abs(len(a) - len(b))\n"
"""Stands for the package `editdistance`, which episode 04 imports and which has no wheels for recent Pythons."""

Rule = Callable[[Any], object]
AS_IT_IS: Rule = lambda value: value  # noqa: E731
IN_ANY_ORDER: Rule = lambda value: sorted(value, key=repr)  # noqa: E731
DRAWN: Rule = lambda value: [type(part).__name__ for part in value]  # noqa: E731
RULES: dict[str, Rule] = {"playlist": IN_ANY_ORDER, "movies": IN_ANY_ORDER, "genres": IN_ANY_ORDER, "bonus": DRAWN}
"""How artifacts are compared that a tutorial shuffles, draws or takes from a set."""


@pytest.fixture(scope="module")
def metaflow(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Metaflow:
    base = tmp_path_factory.getbasetemp()
    return made((base if worker_id == "master" else base.parent) / "metaflow")


@pytest.fixture
def tutorials(metaflow: Metaflow, root: Path) -> Path:
    """A copy of the tutorials, and what reads a run beside them."""
    copy = root / "tutorials"
    shutil.copytree(metaflow.tutorials, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "found.py").write_text(FOUND)
    return copy


def compared(metaflow: Metaflow, tutorials: Path, root: Path, episode: str, flow: str) -> dict[str, Any]:
    """Run an episode by both, each the first of its flow, and compare the artifacts; evflow may have more, which pass through joins."""
    theirs = root / "metaflow"
    theirs.mkdir(exist_ok=True)
    run(tutorials / episode)
    metaflow(tutorials / episode, "run", "--run-id-file", theirs / "id", cwd=theirs)
    wanted = found(metaflow(tutorials / "found.py", f"{flow}/{(theirs / 'id').read_text()}", cwd=theirs).stdout)
    done = through(tutorials / "found.py", f"{flow}/1")
    assert done.returncode == 0, done.stderr
    got = found(done.stdout)
    assert (got["successful"], got["finished"]) == (wanted["successful"], wanted["finished"]) == (True, True)
    assert got["tasks"].keys() == wanted["tasks"].keys()
    for step, tasks in wanted["tasks"].items():
        assert len(got["tasks"][step]) == len(tasks), step
        for name in tasks[0]:
            rule = RULES.get(name, AS_IT_IS)
            ours = [rule(task[name]) for task in got["tasks"][step]]
            assert sorted(ours, key=repr) == sorted((rule(task[name]) for task in tasks), key=repr), f"{step}.{name}"
    return got


def test_episode_00_says_hi(metaflow: Metaflow, tutorials: Path, root: Path) -> None:
    compared(metaflow, tutorials, root, "00-helloworld/helloworld.py", flow="HelloFlow")
    logs = through(tutorials / "00-helloworld" / "helloworld.py", "logs", "1/hello")
    assert "Metaflow says: Hi!" in logs.stdout


def test_episode_01_makes_a_playlist_of_an_included_file(metaflow: Metaflow, tutorials: Path, root: Path) -> None:
    got = compared(metaflow, tutorials, root, "01-playlist/playlist.py", flow="PlayListFlow")
    [end] = got["tasks"]["end"]
    assert list(end["bonus"]) in [list(pair) for pair in zip(*end["dataframe"].values(), strict=True)]


def test_episode_02_computes_statistics_in_a_foreach_and_episode_03_reads_them_through_the_client(
    metaflow: Metaflow, tutorials: Path, root: Path
) -> None:
    got = compared(metaflow, tutorials, root, "02-statistics/stats.py", flow="MovieStatsFlow")
    assert len(got["tasks"]["compute_statistics"]) > 10
    compared(metaflow, tutorials, root, "03-playlist-redux/playlist.py", flow="PlayListFlow")
    logs = through(tutorials / "03-playlist-redux" / "playlist.py", "logs", "1/start")
    assert "Using analysis from 'Run('MovieStatsFlow/1')'" in logs.stdout


@pytest.mark.skipif(not hasattr(evflow, "conda_base"), reason="this version of evflow has no @conda")
def test_episode_04_goes_on_without_conda(tutorials: Path, root: Path) -> None:
    (root / "lib").mkdir()
    (root / "lib" / "editdistance.py").write_text(DISTANCE)
    run(tutorials / "02-statistics" / "stats.py")
    run(tutorials / "04-playlist-plus" / "playlist.py", "--fallback", "local", PYTHONPATH=str(root / "lib"))
    got = found(through(tutorials / "found.py", "PlayListFlow/1").stdout)
    assert got["successful"]
    assert got["tasks"]["end"][0]["playlist"]


def test_episode_05_runs_its_cloud_step_here_and_says_so(metaflow: Metaflow, tutorials: Path) -> None:
    assert metaflow.python.exists()
    done = run(tutorials / "05-hello-cloud" / "hello-cloud.py")
    assert done.stderr.count("Kubernetes cannot be used") == 1
    got = found(through(tutorials / "found.py", "HelloCloudFlow/1").stdout)
    assert got["tasks"]["end"][0]["message"] == "Hi from the cloud!"
    refused = through(tutorials / "05-hello-cloud" / "hello-cloud.py", "run", "--fallback", "error")
    assert refused.returncode == 1


def test_the_tutorials_need_nothing_of_metaflow_but_their_own_files(tutorials: Path) -> None:
    said = python("-c", "import importlib.util; print(importlib.util.find_spec('metaflow'))")
    assert said.stdout.strip() == "None", "the environment of these tests has Metaflow, which could be what ran"
    assert (tutorials / "00-helloworld" / "helloworld.py").exists()
