"""Random flows as real processes: whatever their shape, a stranger can replay and verify what happened."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest

from evflow.core import canonical, events as ev
from evflow.core.codec import decode, encode
from evflow.log.protocol import Head, StoredEvent
from evflow.replay.refold import refold
from evflow.replay.verify import verify
from tests.effort import SEED, rng, scaled
from tests.random_flows import RandomFlow, grow, spoil
from tests.real_runs import OpenLog, chained, evflow, open_log, python, run_id, verified

RUN = run_id("RandomFlow")
REPLAY = """
import json, sys
from evflow.core import canonical
from evflow.core.apply import apply
from evflow.core.codec import decode
from evflow.core.events import RunSealed
from evflow.core.state import RunState
from evflow.cli import session
from evflow.core.ids import RunId
from evflow.replay.load import load

with session.log() as log:
    found = load(log, RunId.parse(sys.argv[1]))
state = RunState()
for stored in found.events:
    record = decode(stored.seq, stored.payload)
    if isinstance(record.event, RunSealed):
        sealed, folded = record.event.state.hex(), canonical.digest(state).hex()
    apply(state, record)
results = [sum(attempt.outcome == "succeeded" for attempt in task.attempts) == (task.status == "succeeded") for task in state.all_tasks()]
print(json.dumps({"status": state.status, "sealed": sealed, "folded": folded, "one_result_each": all(results), "tasks": len(results),
                  "code": state.outcome.code if state.outcome else "", "modules": [name for name in sys.modules if "RandomFlow" in name]}))
"""


def flow_of(seed: int) -> RandomFlow:
    """The flow of a seed; every third one is spoilt."""
    random = Random(f"graphs/{seed}")
    flow = grow(random, depth=random.choice((1, 2, 2, 3)))
    return spoil(flow, random) if seed % 3 == 0 else flow


@pytest.mark.parametrize("number", range(scaled(40)))
def test_a_stranger_replays_what_the_owner_sealed(number: int, root: Path) -> None:
    """I3, I8, I9, I13: a fresh process with another hash seed and without the flow's code."""
    flow = flow_of(1_000 * SEED + number)
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    file = root / "w" / "flow.py"
    file.write_text(flow.source())
    # A spoilt flow may loop for ever in a way that only its bodies decide; no other has so many tasks.
    done = python("flow.py", "run", "--max-workers", "8", "--task-budget", "1000", PYTHONHASHSEED="1")
    assert "Internal error" not in done.stderr, done.stderr
    file.unlink()
    if flow.ill_formed and done.returncode and "RandomFlow/1" not in done.stderr:
        return  # `check` found it in the source: there is no run
    replayed = python("-c", REPLAY, str(RUN), cwd=elsewhere, PYTHONHASHSEED=str(number + 2))
    assert replayed.returncode == 0, replayed.stderr
    said = json.loads(replayed.stdout)
    assert said["sealed"] == said["folded"]
    assert said["one_result_each"]
    assert said["modules"] == []
    assert (said["status"] == "succeeded") == (done.returncode == 0), done.stderr
    if not flow.ill_formed and said["status"] == "failed":
        assert said["code"] == "task-failed"
    verdict = verified(str(RUN), cwd=elsewhere, PYTHONHASHSEED="99")
    assert verdict["exit"] == 0, verdict


# --- forgeries --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Original:
    """A real log to forge."""

    log: OpenLog
    events: list[StoredEvent]
    head: Head


@pytest.fixture
def original(root: Path, evflow_home: Path) -> Iterator[Original]:
    """The log of a real run with splits, a foreach and retries."""
    flows = [flow_of(3 * seed + 1) for seed in range(100)]
    flow = min((flow for flow in flows if {"split", "foreach"} <= {step.kind for step in flow.steps}), key=lambda flow: len(flow.steps))
    (root / "w" / "flow.py").write_text(flow.source())
    python("flow.py", "run")
    with open_log(evflow_home) as log:
        yield Original(log, log.events(RUN), log.head(RUN))


def test_a_flipped_byte_of_any_event_at_the_server_is_found_at_that_event(original: Original) -> None:
    """I9: each event in turn by the verifier, some by the command."""
    random = rng("flip")
    commanded = set(random.sample(range(len(original.events)), scaled(3)))
    for index, (seq, payload, link) in enumerate(original.events):
        flipped = bytearray(payload)
        flipped[random.randrange(len(payload))] ^= 1 << random.randrange(8)
        forged = [*original.events[:index], StoredEvent(seq, bytes(flipped), link), *original.events[index + 1 :]]
        name = run_id("RandomFlow", 1_000 + seq)
        original.log.forge(name, forged, original.head)
        problem = verify(original.log.events(name), original.log.head(name)).problems[0]
        assert (problem.seq, problem.check) == (seq, "chain")
        if index in commanded:
            said = verified(str(name))
            assert said["exit"] == 1
            assert (said["problems"][0]["seq"], said["problems"][0]["check"]) == (seq, "chain"), said


def test_a_changed_decision_is_found_although_chain_and_seal_were_computed_anew(original: Original) -> None:
    """I13: every decision in turn that can be changed and still fold."""
    payloads = [event.payload for event in original.events]
    found = 0
    for seq, payload in enumerate(payloads, 1):
        record = decode(seq, payload)
        if not isinstance(record.event, (ev.TaskQueued, ev.TaskLaunched)):
            continue
        event = replace(record.event, executor="elsewhere")
        changed = encode(event, turn=record.turn, at_us=record.at_us, principal=record.principal, cause=record.cause)
        events, digest = sealed_anew([*payloads[: seq - 1], changed, *payloads[seq:]])
        name = run_id("RandomFlow", 5_000 + seq)
        original.log.forge(name, events, Head(len(events), digest, "sealed"))
        problem = verify(original.log.events(name), original.log.head(name)).problems[0]
        assert (problem.seq, problem.check) == (seq, "decision")
        if not found:
            said = verified(str(name))
            assert said["exit"] == 1
            assert (said["problems"][0]["seq"], said["problems"][0]["check"]) == (seq, "decision"), said
        found += 1
    assert found > 10


def sealed_anew(payloads: list[bytes]) -> tuple[list[StoredEvent], bytes]:
    """A log with a seal that fits its events, whatever they say."""
    before, last = payloads[:-1], decode(len(payloads), payloads[-1])
    events, digest = chained(before)
    state = refold(events)
    seal = ev.RunSealed(canonical.digest(state), digest, state.seq, state.late)
    return chained([*before, encode(seal, turn=last.turn, at_us=last.at_us, principal=last.principal, cause=last.cause)])


def test_a_run_that_was_not_changed_passes(original: Original) -> None:
    """So the two above fail for the reason that they name."""
    assert verify(original.events, original.head).problems == []
    assert evflow("replay", str(RUN), "--verify").returncode == 0
