"""The index is a projection: what was lost of it, or is wrong in it, follows from logs and archives again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow import config
from evflow.archives.reindex import FlowFindings, reindex
from evflow.core import backfill, flow_events
from evflow.core.deployments import unpacked
from evflow.core.flow_events import BackfillRequested, FlowDeployed, RunForgotten, RunGivenUp, RunRefused, RunRequested, RunTagged
from evflow.core.ids import RunId, RunNumber
from evflow.errors import Conflict
from evflow.log.keys import flow_keys, own_shard
from evflow.log.protocol import ArchiveChange, DeploymentChange, RunEntry, TagChange
from tests.archive_world import FLOW, ArchiveWorld, archive_world
from tests.client_world import LINE

KEYS = flow_keys(FLOW)
DEPLOYED = FlowDeployed("default", 1, b"m" * 32, "file:///store", None, "flow.py", "user:ada", False, "ada", "here", "0.1.0", "3.11.7")


@pytest.fixture
def world(evflow_home: Path) -> Iterator[ArchiveWorld]:
    with archive_world(evflow_home) as made:
        yield made


def rebuilt(world: ArchiveWorld, *, dry_run: bool = False) -> FlowFindings:
    (found,) = reindex(world.log, [world.store], dry_run=dry_run)
    return found


def index(world: ArchiveWorld) -> object:
    """Answer everything that stands beside the flow's log."""
    log = world.log
    return (
        log.runs(FLOW),
        log.all_tags(FLOW),
        log.deployments(FLOW),
        log.all_archived(FLOW),
        log.hot([FLOW], None, 100),
        log.counter(FLOW),
    )


def append(world: ArchiveWorld, event: object, change: object = None) -> None:
    payload = flow_events.encode(event, at_us=1, principal="user:ada")  # type: ignore[arg-type]
    world.log.append_flow(FLOW, world.log.flow_seq(FLOW), payload, change)  # type: ignore[arg-type]


def furnished(world: ArchiveWorld) -> list[RunId]:
    """Write an archived run, a sealed one, one that goes on, tags and a deployment."""
    runs = [world.sealed().id, world.sealed().id, world.runs.run(LINE, flow=FLOW).publish().id]
    append(world, RunTagged(1, ("a",), ("a",)), TagChange(runs[0], ("a",)))
    append(world, RunTagged(2, ("b",), ("b",)), TagChange(runs[1], ("b",)))
    world.dropped(runs[0])
    return runs


def test_what_is_right_is_left_alone(world: ArchiveWorld) -> None:
    furnished(world)
    before = index(world)
    found = rebuilt(world)
    assert (found.at_server, found.archived, found.changed, found.unreadable) == (2, 1, False, [])
    assert index(world) == before


@pytest.mark.parametrize("lost", ["runs", "tags", "hot", "archives", "all"])
def test_a_lost_part_is_as_it_was(world: ArchiveWorld, lost: str) -> None:
    furnished(world)
    before = index(world)
    world.call("DEL", *((KEYS.runs, KEYS.tags, KEYS.hot, KEYS.archives) if lost == "all" else (getattr(KEYS, lost),)))
    planned = rebuilt(world, dry_run=True)
    assert index(world) != before
    found = rebuilt(world)
    assert (found.added, found.archives, found.tags) == (planned.added, planned.archives, planned.tags)
    assert index(world) == before
    assert not rebuilt(world).changed


def test_after_the_server_lost_everything_the_archived_runs_are_there_again(world: ArchiveWorld) -> None:
    runs = furnished(world)
    events, line, tags = world.events(runs[0]), world.log.run(runs[0]), world.log.tags(runs[0])
    world.call("FLUSHALL")
    found = rebuilt(world)
    assert (found.archived, found.added, found.archives, found.tags, found.counter) == (1, 1, 1, 1, True)
    assert world.events(runs[0]) == events
    assert world.log.run(runs[0]) == line
    assert world.log.tags(runs[0]) == tags
    assert world.log.counter(FLOW) == 1
    assert not rebuilt(world).changed


def test_a_line_that_its_owner_could_not_finish_is_corrected(world: ArchiveWorld) -> None:
    run = world.sealed().id
    line = world.log.run(run)
    world.log.list_run(RunEntry(run, own_shard(run), {"status": "running", "started_us": 1}), only_missing=False)
    assert rebuilt(world).corrected == 1
    assert world.log.run(run) == line


def test_the_line_of_a_run_that_goes_on_is_its_owners(world: ArchiveWorld) -> None:
    run = world.runs.run(LINE, flow=FLOW).publish().id
    entry = RunEntry(run, own_shard(run), {"status": "running", "started_us": 5, "tasks": 99})
    world.log.list_run(entry, only_missing=False)
    assert not rebuilt(world).changed
    assert world.log.run(run) == entry


def test_deployments_are_what_the_flows_log_says(world: ArchiveWorld) -> None:
    append(world, DEPLOYED)
    append(world, flow_events.FlowPaused("default"), DeploymentChange("other", b"never deployed"))
    assert rebuilt(world).deployments == ["default", "other"]
    ((name, packed),) = world.log.deployments(FLOW).items()
    assert (name, unpacked(packed).version, unpacked(packed).paused) == ("default", 1, True)
    assert not rebuilt(world).changed


def test_backfills_are_what_the_flows_log_says(world: ArchiveWorld) -> None:
    cron = {"cron": "0 * * * *", "timezone": "UTC", "catch_up": "none", "catch_up_most": 10}
    append(world, DEPLOYED, DeploymentChange("default", b"something"))
    append(world, BackfillRequested(1, "default", 1, cron, 0, 7_200_000_000, 3, 2, False, {}, (), "ada", "here"))
    assert rebuilt(world, dry_run=True).backfills == [1]
    assert (world.log.backfills(FLOW), world.log.backfilled()) == ({}, [])
    assert rebuilt(world).backfills == [1]
    ((number, packed),) = world.log.backfills(FLOW).items()
    assert (number, backfill.unpacked(packed).ticks, world.log.backfilled()) == (1, 3, [FLOW])
    assert not rebuilt(world).changed


def test_an_event_between_the_fold_and_the_write_is_not_undone(world: ArchiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.sealed().id
    append(world, RunTagged(1, ("a",), ("a",)))
    project = world.log.project
    refused: list[int] = []

    def late(*arguments: object) -> None:
        if not refused:
            append(world, RunTagged(1, ("a", "b"), ("b",)), TagChange(run, ("a", "b")))
        try:
            project(*arguments)  # type: ignore[arg-type]
        except Conflict:
            refused.append(1)
            raise

    monkeypatch.setattr(world.log, "project", late)
    rebuilt(world)
    assert (world.log.tags(run), len(refused)) == (("a", "b"), 1)


def test_a_forgotten_run_stays_forgotten(world: ArchiveWorld) -> None:
    run = world.sealed().id
    world.dropped(run)
    append(world, RunForgotten(run.number), ArchiveChange(run, b""))
    world.log.unlist(run)
    found = rebuilt(world)
    assert (found.changed, world.log.runs(FLOW), world.log.all_archived(FLOW)) == (False, [], {})


def test_an_archive_that_was_changed_is_named_and_not_noted(world: ArchiveWorld) -> None:
    archived = world.dropped(world.sealed().id)
    world.call("FLUSHALL")
    path = world.path(archived)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    found = rebuilt(world)
    assert (len(found.unreadable), str(path) in found.unreadable[0], found.archives) == (1, True, 0)
    assert config.get("store") in str(path)


def test_a_run_whose_log_is_nowhere_keeps_its_line(world: ArchiveWorld) -> None:
    run = world.sealed().id
    world.call("DEL", *(f"{{evflow:{own_shard(run)}}}:{kind}:{run}" for kind in ("run", "meta")))
    assert (rebuilt(world).lost, world.log.run(run) is not None) == (1, True)


@pytest.mark.parametrize("event", [RunRefused(5, "why not"), RunGivenUp(7, "why not")], ids=["refused", "given-up"])
def test_a_run_that_was_refused_or_given_up_is_listed_as_such(world: ArchiveWorld, event: RunRefused | RunGivenUp) -> None:
    world.sealed()
    append(world, RunRequested(5, "ada", None, "shared", "here", "default", 1))
    append(world, event)
    assert rebuilt(world).changed
    line = world.log.run(RunId(FLOW, RunNumber(event.number)))
    assert line is not None
    assert (line.summary["status"], line.summary["reason"]) == ("refused" if isinstance(event, RunRefused) else "given-up", "why not")
    assert not rebuilt(world).changed
