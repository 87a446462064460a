"""Secrets of real runs: the step has them, and nothing that a run leaves does."""

import textwrap
from pathlib import Path

import pytest

from tests.real_runs import evflow, python

FLOW = """
import os, subprocess, sys, time
from evflow import FlowSpec, card, catch, current, pool, retry, secrets, step
from evflow.cards import Markdown

class Uses(FlowSpec):
    @card
    @secrets(sources=["file.db.env", "environment.API_KEY"])
    @step
    def start(self):
        value = os.environ["DB_PASSWORD"]
        print("printed", value)
        sys.stdout.write(value[:5])
        sys.stdout.flush()
        time.sleep(0.05)
        sys.stdout.write(value[5:] + "|\\n")
        os.write(2, value[:5].encode())
        time.sleep(0.05)
        os.write(2, value[5:].encode() + b"|\\n")
        subprocess.run(["sh", "-c", "echo child $API_KEY"], check=True)
        print("x" * 65530 + value + "y" * 70000)
        print(os.environ["PEM"])
        current.card.append(Markdown("in a card " + value))
        current.card.refresh(force=True)
        self.length = len(value)
        self.next(self.caught)

    @card
    @catch(var="error")
    @secrets(sources=["file.db.env"])
    @step
    def caught(self):
        self.has_key = "PEM" in os.environ
        raise ValueError("cannot log in with " + os.environ["DB_PASSWORD"])
        self.next(self.fails)

    @card
    @secrets(sources=["file.db.env"])
    @step
    def fails(self):
        print(self.error, "DB_PASSWORD" in os.environ)
        raise KeyError(os.environ["DB_PASSWORD"])
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Uses()
"""
PASSWORD = "pw-hunter2 <&> 'q'"
KEY = "key-of-the-api"
PEM = ["MIIEvQIBADANBgkq", "hkiG9w0BAQEFAASC"]


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_nothing_that_a_run_leaves_has_a_secret(root: Path, start_method: str) -> None:
    code = root / "code"
    code.mkdir()
    (code / "uses.py").write_text(textwrap.dedent(FLOW))
    text = f'DB_PASSWORD="{PASSWORD}"\nPEM="-----BEGIN-----\n{PEM[0]}\n{PEM[1]}\n-----END-----"\n'
    (code / "db.env").write_text(text)
    ran = python(code / "uses.py", "run", "--start-method", start_method, cwd=root, API_KEY=KEY)
    assert ran.returncode == 1
    assert ran.stdout.count("***|") == 2
    assert "printed ***" in ran.stdout
    assert "child ***" in ran.stdout
    assert "ValueError: cannot log in with ***" in ran.stdout + ran.stderr
    shown = [ran.stdout, ran.stderr]
    for command in (
        ["events", "Uses/1", "--json"],
        ["replay", "Uses/1"],
        ["dump", "Uses/1"],
        ["logs", "Uses/1"],
        ["show", "Uses/1"],
        ["explain", "Uses/1"],
    ):
        done = evflow(*command)
        assert done.stdout, command
        shown += [done.stdout, done.stderr]
    assert evflow("replay", "Uses/1", "--verify").returncode == 0
    left = [file for file in root.rglob("*") if file.is_file() and file.name != "db.env" and not file.is_symlink()]
    assert len([file for file in left if b"in a card" in file.read_bytes()]) >= 1
    for secret in ("hunter2", "nter2 &lt;", KEY, *PEM):
        assert not any(secret in text for text in shown), secret
        assert [file for file in left if secret.encode() in file.read_bytes()] == [], secret


def test_a_secret_that_is_not_there_fails_the_task_and_says_what_to_do(root: Path) -> None:
    (root / "uses.py").write_text(textwrap.dedent(FLOW))
    ran = python(root / "uses.py", "run", cwd=root)
    assert ran.returncode == 1
    assert "The secret file.db.env cannot be read" in ran.stdout + ran.stderr
    assert "Files of secrets are in no code package" in ran.stdout + ran.stderr
