"""Equal states are equal bytes, in every process; other states are other bytes."""

import subprocess
import sys
import tracemalloc
from collections import OrderedDict
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest

from evflow.core import canonical
from evflow.core.state import Attempt, RunState, Split, Task
from evflow.replay.refold import refold
from tests.core_run import CoreRun, fan
from tests.core_world import CoreWorld
from tests.random_flows import grow

REPOSITORY = Path(__file__).resolve().parents[2]


def world() -> CoreWorld:
    """A run with splits, retries and losses."""
    random = Random(11)
    made = CoreWorld(grow(random), random, lossy=True)
    made.play()
    return made


def test_the_digest_is_the_same_in_a_process_with_another_hash_seed(tmp_path: Path) -> None:
    """I8: whoever folds the log gets the sealed state."""
    made = world()
    for seq, payload, _ in made.stored:
        (tmp_path / f"{seq:05}").write_bytes(payload)
    code = (
        "import sys; from pathlib import Path\n"
        "from evflow.core import canonical; from evflow.log.protocol import StoredEvent; from evflow.replay.refold import refold\n"
        "files = sorted(Path(sys.argv[1]).iterdir())\n"
        "print(canonical.digest(refold(StoredEvent(n, f.read_bytes(), b'') for n, f in enumerate(files, 1))).hex())\n"
    )
    expected = canonical.digest(made.run.state).hex()
    for seed in ("1", "4242"):
        out = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60,
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert out.stdout.strip() == expected


def test_the_order_of_a_map_in_memory_does_not_matter() -> None:
    """Nor whether a sequence is a list or a tuple: msgpack knows arrays."""
    made = world()
    before = canonical.digest(made.run.state)
    header = made.run.state.header
    made.run.state.header = {name: _reversed(header[name]) for name in reversed(header)}
    assert canonical.digest(made.run.state) == before


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _reversed(value[name]) for name in reversed(list(value))}
    return list(map(_reversed, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", [*canonical.SCALARS, *canonical.SCALARS_2])
def test_every_scalar_of_a_run_counts(name: str) -> None:
    """Changed alone, it changes the digest."""
    state = refold(world().stored)
    before = canonical.digest(state)
    value = getattr(state, name)
    setattr(state, name, not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else "other")
    assert canonical.digest(state) != before


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Task, (*canonical.TASK, *canonical.TASK_2)),
        (Attempt, (*canonical.ATTEMPT, *canonical.ATTEMPT_3, *canonical.ATTEMPT_4)),
        (Split, canonical.SPLIT),
    ],
)
def test_every_field_that_people_are_shown_stands_in_the_encoding(kind: type, names: tuple[str, ...]) -> None:
    """Or is known to be there in another form; how far a gang is, its nodes say."""
    other = {"frame", "visits", "attempts", "out", "first_failure", "failed_us"}
    assert {field.name for field in fields(kind)} - other == set(names)


def test_cards_count_from_version_3_on() -> None:
    """A log of an earlier version has none, and its seal knows nothing of them."""
    state = refold(world().stored)
    before = canonical.digest(state)
    state.tasks[1].attempts[-1].cards = (("default", "", b"p" * 32, 5, False),)
    with_one = canonical.digest(state)
    state.tasks[1].attempts[-1].cards = (("default", "", b"q" * 32, 5, False),)
    assert len({before, with_one, canonical.digest(state)}) == 3
    state.logic = 2
    old = canonical.digest(state)
    state.tasks[1].attempts[-1].cards = ()
    assert canonical.digest(state) == old


def test_every_field_of_a_run_stands_in_the_encoding_or_follows_from_others() -> None:
    """The agenda holds nothing but timers between turns; graph, options and budget are in the header; who caused an event, in the event;
    who waits for what, in its attempt."""
    derived = {"graph", "options", "budget", "agenda", "by", "lines"}
    elsewhere = {"header", "failing", "outcome", "tasks", "splits", "waiting", "live", "steps", "held", "pause", "stuck"}
    assert {field.name for field in fields(RunState)} == {
        *canonical.SCALARS,
        *canonical.SCALARS_2,
        *canonical.SCALARS_OF_HOOKS,
    } | derived | elsewhere


def test_the_order_of_the_queue_counts() -> None:
    """Who waits longer stands before."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=3)
    before = canonical.digest(run.state)
    run.state.waiting = OrderedDict((number, None) for number in reversed(run.state.waiting))
    assert canonical.digest(run.state) != before


def test_text_with_half_a_surrogate_pair_has_the_digest_that_its_log_folds_to() -> None:
    """The live state has it as it came, the log as it can be shown."""
    run = CoreRun(*fan())
    run.begin(1)
    run.fail(1, where="\udcff.py:1")
    assert canonical.digest(run.state) == canonical.digest(refold(run.stored()))


def test_places_and_arrivals_count() -> None:
    """A member's index, and who arrived."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=2)
    before = canonical.digest(run.state)
    frame = run.task(2).frame
    assert frame is not None
    run.task(2).frame = replace(frame, index=1)
    assert canonical.digest(run.state) != before


def test_the_digest_is_that_of_one_whole_value() -> None:
    """It is made in parts; the format knows none."""
    state = world().run.state
    whole = canonical.encode(state)
    assert canonical.digest(state) == sha256(whole).digest()
    assert msgpack.packb(msgpack.unpackb(whole, strict_map_key=False)) == whole


def test_the_digest_of_a_wide_run_needs_no_memory_for_all_of_its_tasks() -> None:
    """Else a scheduler would need as much again as the state has, for every wide run that ends."""
    run = CoreRun(*fan())
    run.done(1, "body", splits=20_000)
    encoded = len(canonical.encode(run.state))
    tracemalloc.start()
    try:
        canonical.digest(run.state)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < encoded / 2
