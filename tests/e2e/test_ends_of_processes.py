"""Bodies whose process ends in ways of its own, or that make others: run from the outside."""

from pathlib import Path

import pytest

from tests.e2e.test_cli import evflow, python

HEAD = """
import os, sys, time
from evflow import FlowSpec, catch, retry, step
"""


def flow(body: str, *decorators: str) -> str:
    """A flow with one step between start and end."""
    lines = [HEAD, "class Ends(FlowSpec):", "    @step", "    def start(self):", "        self.next(self.middle)"]
    lines += [f"    {decorator}" for decorator in decorators]
    lines += [
        "    @step",
        "    def middle(self):",
        *(f"        {line}" for line in body.strip().splitlines()),
        "        self.next(self.end)",
    ]
    lines += [
        "    @step",
        "    def end(self):",
        "        print('said', getattr(self, 'value', None), getattr(self, 'error', None) is not None)",
    ]
    return "\n".join([*lines, "Ends()", ""])


@pytest.mark.parametrize(("retry", "bodies"), [("@retry(times=0)", 1), ("@retry(times=1)", 4)])
def test_a_body_that_is_killed_is_taken_by_catch(retry: str, bodies: int) -> None:
    """As the kernel does with what needs too much memory; the body is run as often as losses and retries allow."""
    body = "open('ran', 'a').write('x')\nos.kill(os.getpid(), 9)"
    Path("ends.py").write_text(flow(body, "@catch(var='error')", retry))
    done = python("ends.py", "run")
    assert done.returncode == 0, done.stderr
    assert "said None True" in done.stdout
    assert len(Path("ran").read_text()) == bodies
    verified = evflow("replay", "Ends/1", "--verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
