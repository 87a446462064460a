"""Flows that say `import metaflow`, run by evflow in processes of their own, and read there through the client in Metaflow's words."""

import json
import subprocess
import textwrap
from pathlib import Path
from typing import Any

from tests.real_runs import python

THROUGH = ("-m", "evflow.compat.metaflow")
AT_ONCE: dict[str, Any] = {"EVFLOW_RETRY_SCALE": "0", "METAFLOW_USER": "tester"}
"""Variables of a user whose retries do not wait."""


def flow(folder: Path, source: str, name: str = "flow.py") -> Path:
    """Write a flow's file."""
    path = folder / name
    path.write_text(textwrap.dedent(source))
    return path


def through(file: str | Path, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a file through the compatibility module."""
    return python(*THROUGH, file, *arguments, cwd=cwd, **variables)


def run(file: str | Path, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a flow, which has to succeed."""
    done = through(file, "run", *arguments, cwd=cwd, **variables)
    assert done.returncode == 0, done.stderr + done.stdout
    return done


def asked(folder: Path, expression: str, setup: str = "", **variables: str) -> Any:
    """What an expression over Metaflow's client gives, as JSON has it, in a process of its own."""
    script = folder / "asked.py"
    script.write_text(
        f"import json\nfrom metaflow import *\nfrom metaflow import namespace\n{setup}\nprint(json.dumps({expression}, default=str))\n"
    )
    done = through(script, cwd=folder, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
