"""What no run needs goes; what any run, report or deployment needs stays, whatever happens beside."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from evflow import config
from evflow.archives.collect import Collected, StoreShared, collect
from evflow.archives.forget import RunGoesOn, forget, outdated
from evflow.archives.reachable import CannotCollect, Marks
from evflow.archives.users import sign, users
from evflow.client.publishing import made_of, send, stored_payload
from evflow.core import flow_events
from evflow.core.codec import encode_report
from evflow.core.deployments import Deployment, pack
from evflow.core.events import AttemptSucceeded
from evflow.core.flow_events import RunForgotten, RunRequested
from evflow.core.ids import Digest, RunId, RunNumber
from evflow.core.retention import Kept
from evflow.deployments.manifest import DeploymentManifest, write
from evflow.log.keys import own_shard, shared_shard
from evflow.log.protocol import ArchiveChange, DeploymentChange, RunEntry
from evflow.replay.load import folded
from evflow.store.artifacts import ArtifactView, save
from evflow.store.logs import read_text
from tests.archive_world import FLOW, ArchiveWorld, archive_world
from tests.client_world import LINE

DAY_S = 86_400.0
LARGE = list(range(400_000))
"""Has an object of its own, beside the manifest."""


@pytest.fixture
def world(evflow_home: Path) -> Iterator[ArchiveWorld]:
    with archive_world(evflow_home) as made:
        yield made


def age(world: ArchiveWorld, days: float = 3.0) -> None:
    """Let everything in the store be old."""
    when = world.store.now_us() * 1_000 - int(days * DAY_S * 1e9)
    for path in Path(config.get("store")).rglob("*"):
        if path.is_file():
            os.utime(path, ns=(when, when))


def gone(world: ArchiveWorld, *, grace_s: float = DAY_S, dry_run: bool = False) -> Collected:
    return collect(world.log, world.store, grace_s=grace_s, dry_run=dry_run)


def let_go(world: ArchiveWorld, run: RunId, days: float = 3.0) -> None:
    """Forget a run, some days ago."""
    forget(world.log, world.archivist, run, "test", "user:ada")
    (seq, payload) = world.log.flow_events(FLOW)[-1]
    assert isinstance(flow_events.decode(seq, payload).event, RunForgotten)
    then = flow_events.encode(RunForgotten(run.number, "test"), at_us=world.log.now_us() - int(days * DAY_S * 1e6), principal="user:ada")
    world.log.append_flow(FLOW, world.log.flow_seq(FLOW), then, ArchiveChange(run, b""))


def readable(world: ArchiveWorld, run: RunId) -> dict[str, object]:
    """Read everything of a run's end."""
    _, state = folded(world.log, run)
    view = ArtifactView.open(world.store, state.tasks[2].manifest or b"")
    return {name: view.load(name) for name in view.names()}


# --- what stays -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archived", [False, True])
def test_all_that_a_run_needs_stays_and_the_rest_goes(world: ArchiveWorld, archived: bool) -> None:
    run = world.sealed({"large": LARGE, "small": 1}).print(2, "said").id
    garbage = [world.store.put([b"nobody's"]), save(world.store, {"other": [1, *LARGE]}).manifest]
    if archived:
        world.dropped(run)
    age(world)
    planned = gone(world, dry_run=True)
    assert all(world.store.exists(digest) for digest in garbage)
    found = gone(world)
    assert (found.objects, found.objects_bytes) == (planned.objects, planned.objects_bytes) == (3, found.objects_bytes)
    assert not any(world.store.exists(digest) for digest in garbage)
    assert readable(world, run) == {"large": LARGE, "small": 1}
    assert read_text(f"{config.get('store')}/named/logs/{run}", 2, 0) == "said\n"
    assert gone(world).objects == 0


def test_what_is_young_stays(world: ArchiveWorld) -> None:
    world.sealed()
    age(world)
    digest = world.store.put([b"young"])
    found = gone(world)
    assert (found.young, found.objects, world.store.exists(digest)) == (1, 0, True)


def test_what_a_run_took_over_from_a_manifest_stays_when_that_ones_run_goes(world: ArchiveWorld) -> None:
    first = world.sealed({"large": LARGE})
    _, state = folded(world.log, first.id)
    origin = ArtifactView.open(world.store, state.tasks[2].manifest or b"")
    later = world.runs.run(LINE, flow=FLOW)
    later.succeed(1, "end").succeed(2)
    del later
    second = world.runs.run(LINE, flow=FLOW)
    manifest = save(world.store, {"own": 1}, origin).manifest
    second._turn(AttemptSucceeded(1, 0, manifest, "linear", ("end",), 0, None, None, None, 1, 1, 1, 2))
    second.succeed(2).seal()
    let_go(world, first.id)
    age(world)
    gone(world)
    assert readable(world, second.id) == {"large": LARGE, "own": 1}


def test_what_a_report_on_its_way_refers_to_stays(world: ArchiveWorld) -> None:
    run = world.runs.run(LINE, flow=FLOW).publish().id
    shared = RunId(FLOW, RunNumber(77))
    manifests = [save(world.store, {"x": [number, *LARGE]}).manifest for number in range(2)]
    for shard, of_run, manifest in ((own_shard(run), run, manifests[0]), (shared_shard(shared), shared, manifests[1])):
        report = AttemptSucceeded(1, 0, manifest, "linear", ("end",), 0, None, None, None, 1, 1, 1, 2)
        world.log.report(shard, of_run, encode_report(report, principal="test"))
    age(world)
    assert gone(world).objects == 0
    assert [ArtifactView.open(world.store, manifest).load("x")[0] for manifest in manifests] == [0, 1]


def test_what_a_request_without_its_offer_refers_to_stays(world: ArchiveWorld) -> None:
    """Whoever asked died before the offer, and before the run's line: a scheduler makes the offer yet."""
    given = save(world.store, {"x": LARGE}).manifest
    asked = RunRequested(0, "ada", None, "shared", deployment="default", version=1, offer={"given": given})
    world.log.request_run(FLOW, flow_events.encode(asked, at_us=1, principal="user:ada"))
    age(world)
    assert gone(world).objects == 0
    assert list(ArtifactView.open(world.store, given).load("x")) == list(LARGE)


def test_the_payload_of_an_event_that_triggers_may_still_hear_stays(world: ArchiveWorld) -> None:
    payload = {"rows": LARGE[:100_000]}
    made = made_of("loaded", payload, source="python", principal="user:ada", store=lambda: world.store)
    assert made.stored is not None
    send(world.log, made, "an id")
    age(world)
    assert gone(world).objects == 0
    assert list(stored_payload(world.store, made.stored)["rows"]) == payload["rows"]


def test_what_is_deployed_stays_until_it_is_not(world: ArchiveWorld) -> None:
    values = save(world.store, {"size": LARGE}).manifest
    package = world.store.put([b"PK the code"])
    plain = DeploymentManifest(FLOW, LINE.to_plain(), {}, {"file": "flow.py", "package": package}, values)
    manifest = write(world.store, plain)
    deployed = Deployment("default", 1, manifest, world.store.url, package, "flow.py", "", False, "ada", "here", "0", "3")
    world.log.append_flow(
        FLOW,
        world.log.flow_seq(FLOW),
        flow_events.encode(RunForgotten(9), at_us=1, principal="x"),
        DeploymentChange("default", pack(deployed)),
    )
    age(world)
    assert gone(world).objects == 0
    assert ArtifactView.open(world.store, values).load("size") == LARGE
    world.log.append_flow(
        FLOW, world.log.flow_seq(FLOW), flow_events.encode(RunForgotten(9), at_us=1, principal="x"), DeploymentChange("default", b"")
    )
    assert gone(world).objects == 4


def test_an_archive_that_the_index_does_not_know_keeps_what_it_needs(world: ArchiveWorld) -> None:
    run = world.sealed({"large": LARGE}).id
    events = world.events(run)
    archived = world.dropped(run)
    world.call("FLUSHALL")
    age(world)
    assert gone(world).objects == 0
    world.log.note(FLOW, {run.number: archived})
    world.log.list_run(RunEntry(run, own_shard(run), {}), only_missing=True)
    assert world.events(run) == events
    assert readable(world, run) == {"large": LARGE}


# --- what goes --------------------------------------------------------------------------------------------


def test_a_forgotten_run_leaves_every_list_and_then_the_store(world: ArchiveWorld) -> None:
    kept, run = world.sealed({"large": [0, *LARGE]}).id, world.sealed({"large": LARGE}).print(2, "said").id
    archived = world.dropped(run)
    let_go(world, run)
    assert [entry.run for entry in world.log.runs(FLOW)] == [kept]
    assert world.log.archived(run) is None
    age(world)
    found = gone(world)
    assert (found.files, found.objects > 0) == (2, True)
    assert not world.path(archived).exists()
    assert not Path(f"{config.get('store')}/named/logs/{run}").exists()
    assert readable(world, kept) == {"large": [0, *LARGE]}


def test_a_run_that_was_forgotten_just_now_is_still_needed(world: ArchiveWorld) -> None:
    """Somebody may be resuming it at this moment."""
    run = world.sealed({"large": LARGE}).id
    forget(world.log, world.archivist, run, "", "user:ada")
    age(world)
    assert (gone(world).objects, gone(world).files) == (0, 0)


def test_a_run_that_goes_on_is_not_forgotten(world: ArchiveWorld) -> None:
    run = world.runs.run(LINE, flow=FLOW).publish().id
    with pytest.raises(RunGoesOn):
        forget(world.log, world.archivist, run, "", "user:ada")
    assert [entry.run for entry in world.log.runs(FLOW)] == [run]


def test_a_number_is_not_used_again(world: ArchiveWorld) -> None:
    forget(world.log, world.archivist, world.sealed().id, "", "user:ada")
    assert world.sealed().id.number == 2


def test_a_rule_lets_old_runs_go_but_not_those_with_a_tag(world: ArchiveWorld) -> None:
    runs = [world.sealed().id for _ in range(4)]
    assert outdated(world.log, FLOW, Kept(last=2)) == runs[:2]
    assert outdated(world.log, FLOW, Kept()) == []
    first = world.log.run(runs[0])
    assert first is not None
    first.summary["tags"] = ["golden"]
    world.log.index_run(first)
    assert outdated(world.log, FLOW, Kept(last=2), frozenset({"golden"})) == [runs[1]]


# --- what stops it ----------------------------------------------------------------------------------------


def test_a_run_whose_archive_is_missing_stops_everything(world: ArchiveWorld) -> None:
    run = world.sealed().id
    world.path(world.dropped(run)).unlink()
    garbage = world.store.put([b"garbage"])
    age(world)
    with pytest.raises(CannotCollect, match=f"run '{run}'") as refused:
        gone(world)
    assert f"evflow forget {run}" in refused.value.hint
    assert world.store.exists(garbage)
    let_go(world, run)
    assert gone(world).objects > 0


def test_a_manifest_that_is_missing_stops_everything(world: ArchiveWorld) -> None:
    run = world.sealed().id
    _, state = folded(world.log, run)
    manifest = state.tasks[2].manifest
    assert manifest is not None
    Path(world.store.where(manifest)).unlink()
    age(world)
    with pytest.raises(CannotCollect, match=manifest.hex()):
        gone(world)


def test_a_run_whose_log_is_nowhere_stops_everything(world: ArchiveWorld) -> None:
    run = world.sealed().id
    world.call("DEL", *(f"{{evflow:{own_shard(run)}}}:{kind}:{run}" for kind in ("run", "meta")))
    with pytest.raises(CannotCollect, match="neither at the server nor in an archive"):
        gone(world)


def test_a_store_that_another_log_uses_is_left_alone(world: ArchiveWorld) -> None:
    sign(world.store, "0123456789abcdef", "redis://:secret@elsewhere:6379", "laptop")
    with pytest.raises(StoreShared, match="elsewhere") as refused:
        gone(world)
    assert "secret" not in refused.value.message
    assert collect(world.log, world.store, retired=["0123456789abcdef"]).objects == 0
    assert collect(world.log, world.store, here=("redis://:***@elsewhere:6379", "laptop")).objects == 0


def test_a_log_signs_its_store_once(world: ArchiveWorld) -> None:
    for _ in range(2):
        sign(world.store, world.log.installation(), "redis://here", "host")
    assert [(user.installation, user.log, user.host) for user in users(world.store)] == [(world.log.installation(), "redis://here", "host")]
    gone(world)


# --- beside running flows ---------------------------------------------------------------------------------


def test_what_a_run_stores_again_while_garbage_is_found_stays(world: ArchiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old object that nobody needs, which a task stores again after the marking: it is there already, and must stay."""
    old = world.store.put([b"old content"])
    age(world)
    marked = Marks.__contains__

    def stores_again(marks: Marks, digest: object) -> bool:
        found = marked(marks, digest)
        assert world.store.put([b"old content"]) == old
        return found

    monkeypatch.setattr(Marks, "__contains__", stores_again)
    gone(world)
    assert bytes(world.store.get(old)) == b"old content"


def test_marks_hold_more_than_they_show() -> None:
    with Marks() as marks:
        digests = [Digest(number.to_bytes(32, "big")) for number in range(10_000)]
        assert all(marks.add(digest) for digest in digests)
        assert not any(marks.add(digest) for digest in digests)
        assert (len(marks), digests[7] in marks, bytes(31) + b"\xff" in marks, b"x" in marks) == (10_000, True, True, False)


def test_digests_are_found_wherever_they_stand(world: ArchiveWorld) -> None:
    """An event of a later version may have them in any place."""
    digest = world.store.put([b"deep"])
    payload = msgpack.packb(["NewEvent", "test", {"a": [1, {"b": (digest,)}]}])
    world.log.report("s3", RunId(FLOW, RunNumber(1)), payload)
    age(world)
    assert gone(world).objects == 0
