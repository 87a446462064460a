"""A run that cannot start takes no number."""

import json
from pathlib import Path

import pytest

from tests.e2e.test_cli import evflow, folder, python

__all__ = ["folder"]


@pytest.mark.usefixtures("folder")
def test_a_start_that_is_refused_takes_no_number_and_leaves_no_run() -> None:
    for option, value, code, says in (
        ("--run-id-file", "no/such/folder", 1, "cannot be written"),
        ("--run-id-file", "x" * 300, 1, "cannot be written"),
        ("--tag", "x" * 501, 2, "501 characters"),
    ):
        refused = python("sums.py", "run", option, value)
        assert refused.returncode == code, refused.stderr
        assert says in refused.stderr
        assert "Traceback" not in refused.stderr
    python("sums.py", "run", "--run-id-file", "number")
    assert Path("number").read_text().strip() == "1"
    assert len(json.loads(evflow("runs", "--json").stdout)) == 1
