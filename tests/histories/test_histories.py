"""What a released version wrote, this version reads, folds, decides anew and verifies: byte by byte as it was."""

import json
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

from evflow.core import canonical, events as ev, flow_events
from evflow.core.codec import decode, encode
from evflow.core.events import TAGS
from evflow.core.state import RunState
from evflow.core.values import declared
from evflow.replay.refold import refold
from evflow.replay.verify import verify
from tests.histories.history import HERE, all_histories, means, read

HISTORIES = all_histories()
SNAPSHOT = HERE / "format.json"


def name(path: Path) -> str:
    """`0.1.0/linear`."""
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", HISTORIES, ids=name)
def test_a_recorded_history_verifies(path: Path) -> None:
    """Chain, folds, decisions and seal: the rules of then still stand (I8, I9, I13)."""
    history = read(path)
    verdict = verify(history.events, history.head)
    assert verdict.problems == []
    assert verdict.sealed
    assert verdict.events == len(history.events)


@pytest.mark.parametrize("path", HISTORIES, ids=name)
def test_a_recorded_event_means_what_it_meant(path: Path) -> None:
    """The text beside the bytes was written by the version that wrote them: a field that moved would show."""
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    for line, event in zip(lines, read(path).events, strict=True):
        # A later version may know more fields, which follow those of then.
        assert means(event).removesuffix(")").startswith(line["means"].removesuffix(")"))


@pytest.mark.parametrize("path", HISTORIES, ids=name)
def test_a_recorded_event_is_written_as_it_was(path: Path) -> None:
    """Value by value; fields of later versions stand behind those of then."""
    for seq, payload, _ in read(path).events:
        record = decode(seq, payload)
        again = encode(record.event, turn=record.turn, at_us=record.at_us, principal=record.principal, cause=record.cause)
        values = msgpack.unpackb(payload)
        assert msgpack.unpackb(again)[: len(values)] == values


def test_the_state_of_a_recorded_history_is_the_same_in_a_process_with_another_hash_seed() -> None:
    """Without the flow's code, which is not even there."""
    code = (
        "from evflow.core import canonical; from evflow.replay.refold import refold\n"
        "from tests.histories.history import all_histories, read\n"
        "print(*(canonical.digest(refold(read(path).events[:-1])).hex() for path in all_histories()))\n"
    )
    here: list[str] = []
    for path in HISTORIES:
        seal = decode(1, read(path).events[-1].payload).event
        assert isinstance(seal, ev.RunSealed)
        assert canonical.digest(refold(read(path).events[:-1])) == seal.state
        here.append(seal.state.hex())
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE.parent.parent, capture_output=True, text=True, check=True, timeout=60,
        env={"PYTHONHASHSEED": "17", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert out.stdout.split() == here


def test_the_histories_hold_every_kind_of_event_that_a_run_without_accidents_of_its_server_has() -> None:
    """What is not recorded could change unnoticed."""
    seen = {type(decode(seq, payload).event).__name__ for path in HISTORIES for seq, payload, _ in read(path).events}
    assert set(TAGS) - seen == {"LogRegressed"}


def test_the_histories_end_in_every_way_a_run_can_end() -> None:
    """Succeeded, failed, cancelled."""
    ends: dict[str, RunState] = {path.stem: refold(read(path).events) for path in HISTORIES}
    assert {state.status for state in ends.values()} == {"succeeded", "failed", "cancelled"}
    outcome = ends["ill-formed"].outcome
    assert outcome is not None
    assert outcome.code == "different-joins"
    assert ends["continued"].owners == 2
    assert {task.reused is not None for task in ends["resumed"].all_tasks()} == {True, False}


# --- the format -------------------------------------------------------------------------------------------


def current_format() -> dict[str, list[str]]:
    """Tag to its fields, in order, with their types, of a run's log and of a flow's."""
    tags = {**TAGS, **{f"flow:{tag}": cls for tag, cls in flow_events.TAGS.items()}}
    return {
        tag: [f"{field}: {getattr(kind, '__name__', kind) if isinstance(kind, type) else kind}" for field, kind in declared(cls).items()]
        for tag, cls in tags.items()
    }


def test_a_released_field_never_moves_and_a_released_tag_never_goes() -> None:
    """Fields are read by position: new ones go to the end, with a default, and into `format.json`."""
    released = json.loads(SNAPSHOT.read_text())
    now = current_format()
    for tag, fields in released.items():
        assert now.get(tag, [])[: len(fields)] == fields, f"{tag} was released with other fields"


def test_the_snapshot_of_the_format_is_up_to_date() -> None:
    """`python -m tests.histories.test_histories` adds what is new to it."""
    assert json.loads(SNAPSHOT.read_text()) == current_format()


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(current_format(), indent=1) + "\n")
