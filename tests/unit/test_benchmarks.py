"""The benchmarks' own arithmetic: a ratio, a goal or a time that lies would be believed."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.__main__ import whole
from benchmarks.engines import Engine, place
from benchmarks.page import with_section
from benchmarks.report import Result, Samples, figure, markdown, row, terminal
from benchmarks.suites import SUITES, Suite
from benchmarks.workloads import Lab, Metric, chain
from tests.conftest import REPOSITORY

RATIO = Metric("t", "a thing", "s", at_most=0.2)
OWN = Metric("t", "a thing", "files", own_at_most=10)
RATE = Metric("t", "a thing", "/s", own_at_least=1000)


def samples(theirs: list[float], ours: list[float]) -> Samples:
    return {"metaflow": {"t": theirs}, "evflow": {"t": ours}}


def test_a_ratio_is_of_medians() -> None:
    assert row(RATIO, samples([1.0, 9.0, 10.0], [0.9, 0.1, 0.9]))[3] == "0.100"


@pytest.mark.parametrize(
    ("metric", "ours", "verdict"),
    [
        (RATIO, 2.0, "met"),
        (RATIO, 2.001, "missed"),
        (OWN, 10.0, "met"),
        (OWN, 11.0, "missed"),
        (RATE, 1000.0, "met"),
        (RATE, 999.0, "missed"),
        (Metric("t", "no goal", "s"), 2.0, ""),
    ],
)
def test_a_goal_is_met_up_to_its_limit(metric: Metric, ours: float, verdict: str) -> None:
    assert row(metric, samples([10.0], [ours]))[5] == verdict


def test_one_engine_alone_gives_no_ratio_and_no_verdict() -> None:
    assert row(RATIO, {"evflow": {"t": [0.1]}})[1:] == ("-", "0.100 s", "", "≤ 0.2", "")


@pytest.mark.parametrize(("value", "text"), [(0.0321, "0.032"), (1.234, "1.23"), (99.994, "99.99"), (404.4, "404"), (4100, "4,100")])
def test_figures_have_the_digits_that_count(value: float, text: str) -> None:
    assert figure(value) == text


def measured(suite: Suite, *, quick: bool) -> Result:
    """Every figure of a suite, as if both engines had run all of it."""
    both = [Engine(name, REPOSITORY, "1.0") for name in (suite.peer, "evflow")]
    result = Result.of(both, peer=suite.peer, quick=quick)
    for workload in suite.workloads:
        for engine in both:
            if engine.name in workload.engines:
                result.add(workload, engine, {metric.name: 1.0 for metric in workload.metrics})
    return result


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_the_section_and_the_table_hold_every_figure_of_a_full_run(suite: Suite) -> None:
    result = measured(suite, quick=True)
    for text in (terminal(result, suite.workloads, suite.peer_title), markdown(result, suite)):
        assert suite.peer_title in text
        for workload in suite.workloads:
            for metric in workload.metrics:
                assert metric.title in text
    assert "Quick" in markdown(result, suite)
    assert "Quick" not in markdown(measured(suite, quick=False), suite)


def test_a_run_that_goes_on_keeps_what_is_whole_and_says_so() -> None:
    suite = SUITES[0]
    before = measured(suite, quick=False)
    before.samples = {
        workload.name: {
            name: {metric: readings * workload.rounds for metric, readings in of.items()}
            for name, of in before.samples[workload.name].items()
        }
        for workload in suite.workloads
    }
    first, last = suite.workloads[0].name, suite.workloads[-1].name
    before.samples[first]["evflow"]["help"].pop()  # its last round was cut off
    del before.samples[last]
    before.begun = "yesterday"
    after = measured(suite, quick=False)
    after.go_on(before.as_json(), lambda name, samples: whole(suite, name, samples, None))
    assert set(before.samples) - set(after.samples) == {first}
    assert last not in after.samples
    assert f"in one run on yesterday, and for what it had not on {after.went_on}." in markdown(after, suite)
    with pytest.raises(ValueError, match="quick: False then, True now"):
        measured(suite, quick=True).go_on(before.as_json(), lambda name, samples: whole(suite, name, samples, None))


def test_a_ratio_is_to_the_suites_own_peer() -> None:
    theirs_and_ours: Samples = {"temporal": {"t": [8.0]}, "evflow": {"t": [1.0]}}
    assert row(RATIO, theirs_and_ours, "temporal")[1:] == ("8.00 s", "1.00 s", "0.125", "≤ 0.2", "met")


def test_workloads_of_all_suites_have_names_of_their_own() -> None:
    names = [workload.name for suite in SUITES for workload in suite.workloads]
    assert len(names) == len(set(names))
    assert all({"evflow"} <= set(workload.engines) <= {suite.peer, "evflow"} for suite in SUITES for workload in suite.workloads)


def test_a_suite_that_is_measured_anew_leaves_the_section_of_the_other_as_it_was() -> None:
    text = with_section(with_section("", "flows", "## Old\n\n| 1 |\n"), "scheduler", "## Other\n\n| 2 |\n")
    again = with_section(text, "flows", "## New\n\n| 3 |\n")
    assert again == text.replace("## Old\n\n| 1 |", "## New\n\n| 3 |")
    assert with_section(again, "scheduler", "## Other\n\n| 2 |\n") == again


def test_the_page_is_one_that_the_program_writes() -> None:
    text = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    found = [suite for suite in SUITES if f"<!-- suite: {suite.name} -->\n" in text]
    assert SUITES[0] in found
    for suite in found:
        section = text.partition(f"<!-- suite: {suite.name} -->\n")[2].partition("<!-- suite: ")[0]
        assert f"## {suite.title}" in section
        assert with_section(text, suite.name, section) == text


def test_a_chain_has_as_many_steps_as_asked_for() -> None:
    source = chain(50)
    compile(source, "chain", "exec")
    assert source.count("@step") == 50
    assert source.count("self.next(") == 49


def test_only_the_import_line_differs_between_the_engines(tmp_path: Path) -> None:
    source = (REPOSITORY / "benchmarks" / "flows" / "wide.py").read_text()
    ours, theirs = (place(Engine(name, REPOSITORY, "1.0"), tmp_path / name, source).folder / "flow.py" for name in ("evflow", "metaflow"))
    differing = [pair for pair in zip(ours.read_text().splitlines(), theirs.read_text().splitlines(), strict=True) if len(set(pair)) == 2]
    assert differing == [("from evflow import FlowSpec, Parameter, step", "from metaflow import FlowSpec, Parameter, step")]


def test_a_setting_of_the_developer_reaches_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVFLOW_REDIS_URL", "METAFLOW_DEFAULT_DATASTORE", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
    for engine in ("evflow", "metaflow"):
        assert "x" not in Engine(engine, REPOSITORY, "1.0").environment(tmp_path).values()


def test_quick_narrows_metaflow_only(tmp_path: Path) -> None:
    lab = Lab(tmp_path, quick=True)
    assert [lab.width(Engine(name, REPOSITORY, "1.0"), 1000) for name in ("metaflow", "evflow")] == [100, 1000]


def in_a_process_of_its_own(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run what adopts orphans elsewhere: it would adopt those of other tests."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=cwd,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="adopting orphans is Linux's")
class TestFinish:
    def test_the_time_ends_with_the_last_orphan(self, tmp_path: Path) -> None:
        ran = in_a_process_of_its_own(
            """
            from pathlib import Path
            from benchmarks.processes import finish
            orphan = 'while kill -0 $0 2>/dev/null; do sleep 0.01; done; touch ended'  # it begins to end when its parent is gone
            finished = finish(["sh", "-c", f"setsid sh -c '{orphan}' $$ & exit 0"], cwd=Path("."), env={}, output=Path("output"))
            assert Path("ended").exists()
            assert finished.command_s < finished.all_s, finished
            """,
            tmp_path,
        )
        assert ran.returncode == 0, ran.stderr

    def test_a_failed_command_is_an_error_that_shows_what_it_said(self, tmp_path: Path) -> None:
        ran = in_a_process_of_its_own(
            """
            from pathlib import Path
            from benchmarks.processes import finish
            finish(["sh", "-c", "echo sorry >&2; exit 3"], cwd=Path("."), env={}, output=Path("output"))
            """,
            tmp_path,
        )
        assert "ended with 3:\n  sorry" in ran.stderr

    def test_a_command_out_of_its_time_is_killed_with_all_it_started(self, tmp_path: Path) -> None:
        ran = in_a_process_of_its_own(
            """
            from pathlib import Path
            from benchmarks.processes import CommandFailed, descendants, finish
            try:
                finish(["sh", "-c", "setsid sleep 60 & wait"], cwd=Path("."), env={}, output=Path("output"), timeout_s=0.3)
            except CommandFailed:
                assert not list(descendants())
                raise SystemExit(7)
            """,
            tmp_path,
        )
        assert ran.returncode == 7, ran.stderr

    def test_memory_counts_every_process_and_shared_pages_once(self, tmp_path: Path) -> None:
        ran = in_a_process_of_its_own(
            """
            import sys
            from pathlib import Path
            from benchmarks.processes import finish
            fork = "import os, time; block = bytearray(os.urandom(50_000_000)); os.fork(); time.sleep(2)"
            peak = finish([sys.executable, "-c", fork], cwd=Path("."), env={}, output=Path("output"), sample_memory=True).peak_pss_bytes
            # A sample around the fork has the parent whole and the child's half, 95 MB; counted twice it would be 120 MB.
            assert 50e6 < peak < 110e6, peak
            """,
            tmp_path,
        )
        assert ran.returncode == 0, ran.stderr

    def test_a_driver_that_fails_is_an_error_that_shows_what_it_said(self, tmp_path: Path) -> None:
        ran = in_a_process_of_its_own(
            """
            import sys
            from pathlib import Path
            from benchmarks.engines import Engine
            from benchmarks.scheduler_workloads import drive
            from benchmarks.workloads import Lab
            drive(Lab(Path("lab")), Engine("evflow", Path(sys.executable), "1.0"), "takeover")
            """,
            tmp_path,
        )
        assert "takeover.py ended with 1:" in ran.stderr
        assert "IndexError" in ran.stderr
