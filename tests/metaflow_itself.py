"""Metaflow itself, in an environment of its own that is made once for a test run: its tutorials, and what it makes of a flow."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engines import METAFLOW
from tests.effort import SCALE

MADE_WITHIN_S = 600.0
RUN_WITHIN_S = 200.0

FOUND = """
import json, sys
from metaflow import Run, namespace

def plain(value):
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, dict):
        return {str(key): plain(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(of) for of in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(of) for of in value), key=repr)
    return repr(value)

namespace(None)
run = Run(sys.argv[1])
tasks = {step.id: [{a.id: plain(a.data) for a in task if a.id not in ("name", "script_name")} for task in step] for step in run}
print(json.dumps({"successful": run.successful, "finished": run.finished, "tasks": {s: sorted(t, key=repr) for s, t in tasks.items()}}))
"""
"""Every artifact of a run as JSON, read through the client; the same text for Metaflow and for evflow in its place."""


@dataclass(frozen=True)
class Metaflow:
    """The environment."""

    python: Path

    @property
    def tutorials(self) -> Path:
        """The folder of the tutorials that come with it."""
        [found] = self.python.parent.parent.glob("lib/python*/site-packages/metaflow/tutorials")
        return found

    def __call__(self, *arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a file by it, which has to succeed; its data lie in `cwd`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EVFLOW_", "METAFLOW_", "PYTHON"))}
        own = {"METAFLOW_USER": "ada", "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(cwd), "METAFLOW_HOME": str(cwd / "none")}
        done = subprocess.run(
            [self.python, *map(str, arguments)], cwd=cwd, env={**kept, **own, **variables}, capture_output=True, text=True,
            timeout=RUN_WITHIN_S, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def made(folder: Path) -> Metaflow:
    """Make the environment, or take the one that another process of this test run has made; skips where no index can be reached."""
    folder.mkdir(exist_ok=True)
    metaflow = Metaflow(folder / "env" / "bin" / "python")
    with _alone(folder / "lock"):
        said = folder / "failed"
        if not (folder / "made").exists() and not said.exists():
            subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True, timeout=MADE_WITHIN_S, cwd=folder)
            install = [str(metaflow.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", METAFLOW, "setuptools"]
            done = subprocess.run(install, capture_output=True, text=True, timeout=MADE_WITHIN_S, check=False, cwd=folder)
            (folder / "made" if done.returncode == 0 else said).write_text(done.stderr)
    if said.exists():
        text = f"Metaflow cannot be installed: {said.read_text().strip().splitlines()[-1]}"
        if SCALE >= 1:  # CI has an index
            pytest.fail(text)
        pytest.skip(text)
    return metaflow


@contextmanager
def _alone(lock: Path) -> Generator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def found(text: str) -> dict[str, Any]:
    """What `FOUND` printed last."""
    said: dict[str, Any] = json.loads(text.splitlines()[-1])
    return said
