"""What `evflow why` and `evflow why-not` print of what was decided."""

import click

from evflow.cli.why import lines
from evflow.deployments.account import Entry


def test_of_several_deployments_each_line_names_its_own() -> None:
    event = Entry(1_000_000, "nightly", "event", "data.ready", "one", "started", "event", "Score/1")
    other = Entry(1_000_000, "trial", "event", "data.ready", "one", "skipped", "throttled")
    head, first, second = map(click.unstyle, lines([event, other]))
    assert "DEPLOYMENT" in head
    assert first.index("nightly") == second.index("trial") == head.index("DEPLOYMENT")
    assert "DEPLOYMENT" not in lines([event, event])[0]
