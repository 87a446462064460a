"""What `import evflow` gives, and what the words of evflow promise."""

import re
import subprocess
import sys

import click

import evflow
from evflow.cli.app import app
from tests.conftest import REPOSITORY


def test_a_star_import_gives_every_public_name_and_nothing_else() -> None:
    given: dict[str, object] = {}
    exec("from evflow import *", given)
    given.pop("__builtins__")
    assert set(given) == set(evflow.__all__)
    assert {"FlowSpec", "Parameter", "step", "retry", "Flow", "Run", "current"} <= set(given)


def test_every_public_name_is_exported() -> None:
    code = (
        "import evflow; print(sorted(evflow._HOMES) == sorted(evflow.__all__), set(evflow.__all__) <= set(dir(evflow)), evflow.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", evflow.__version__]


def test_every_command_that_a_message_names_exists() -> None:
    commands = app().list_commands(click.Context(app()))
    for folder in ("evflow", "scheduler", "executors"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for name in re.findall(r"`evflow ([a-z][\w-]*)", path.read_text(encoding="utf-8")):
                assert name in commands, f"{path}: evflow {name}"
