"""Settings that change what a run does, from the outside."""

import json
import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from evflow.store import open_store
from tests.e2e.test_cli import evflow, folder, python

__all__ = ["folder"]


@pytest.mark.usefixtures("folder")
def test_the_log_level_lets_evflow_speak_about_itself() -> None:
    done = python("sums.py", "run", EVFLOW_LOG_LEVEL="debug")
    lines = [text for text in done.stderr.splitlines() if text.startswith("timestamp=")]
    assert any(" level=info " in text and "shard taken" in text for text in lines)
    assert sum("event=launch run=Sums/1 task=" in text for text in lines) == 6
    assert "timestamp=" not in done.stdout


@pytest.mark.usefixtures("folder")
def test_at_the_usual_level_evflow_says_nothing_about_itself() -> None:
    assert "timestamp=" not in python("sums.py", "run").stderr


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("executor", "name"), [("kubernetes", "Kubernetes"), ("batch:cpu=2", "AWS Batch")])
def test_steps_for_an_executor_that_is_not_configured_run_here_and_the_run_says_so_once(executor: str, name: str) -> None:
    done = python("sums.py", "run", "--with", executor)
    assert done.returncode == 0
    assert done.stderr.count(f"{name} cannot be used: ") == 1
    slots = json.loads(evflow("events", "Sums/1", "--json", "--type", "SlotGranted").stdout)
    assert slots
    assert all(f"{name} cannot be used: " in slot["fields"]["reason"] for slot in slots)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("fallback", ["error", "wait"])
def test_a_run_that_must_not_fall_back_refuses_an_executor_that_is_not_configured(fallback: str) -> None:
    done = python("sums.py", "run", "--with", "batch", "--fallback", fallback)
    assert done.returncode == 1
    assert "AWS Batch (@batch) cannot be used: no queue is named" in done.stderr
    assert f"`--fallback {fallback}`" in done.stderr
    assert "Traceback" not in done.stderr


def packaged(run: str) -> set[str]:
    """The files of a run's code package."""
    started = json.loads(evflow("events", run, "--json", "--type", "RunStarted").stdout)[0]["fields"]
    archive = open_store(started["store"]).get(bytes.fromhex(started["code"]["package"]))
    with zipfile.ZipFile(BytesIO(archive)) as files:
        return {os.path.basename(name) for name in files.namelist()}  # noqa: PTH119


def test_the_package_has_files_of_the_suffixes_that_the_option_names(folder: Path) -> None:
    for name in ("table.csv", "notes.txt", "model.R"):
        (folder / name).write_text("1")
    python("sums.py", "run")
    python("sums.py", "--package-suffixes", ".py,.csv", "run")
    (folder / "evflow.toml").write_text('package_suffixes = [".py", ".txt"]')
    python("sums.py", "run")
    names = {"sums.py", "table.csv", "notes.txt", "model.R"}
    assert packaged("Sums/1") & names == {"sums.py", "model.R"}
    assert packaged("Sums/2") & names == {"sums.py", "table.csv"}
    assert packaged("Sums/3") & names == {"sums.py", "notes.txt"}


@pytest.mark.usefixtures("folder")
def test_bash_completes_commands_runs_and_steps() -> None:
    python("sums.py", "run")

    def completed(*words: str) -> list[str]:
        script = f"""
        eval "$({sys.executable} -m evflow.cli completion bash)"
        PATH={Path(sys.executable).parent}:$PATH
        COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
        _evflow_completion evflow
        printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert not done.stderr, done.stderr
        return done.stdout.split()

    assert completed("evflow", "rep") == ["replay"]
    assert completed("evflow", "show", "Su") == ["Sums/1"]
    assert completed("evflow", "logs", "Sums/1/d") == ["Sums/1/double"]
