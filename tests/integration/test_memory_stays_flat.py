"""The server's memory does not grow with the number of runs that are over, but for a line and a note for each.

`make soak` does it with ten thousand runs.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from evflow.archives.archiving import Archivist
from evflow.archives.forget import forget, outdated
from evflow.archives.keeping import Caretaker
from evflow.core.ids import Micros
from evflow.core.retention import Kept
from evflow.log.archived import SEGMENT_EVENTS
from evflow.log.keeper import RedisLogKeeper
from evflow.log.keys import flow_keys
from evflow.log.protocol import Head
from evflow.log.wire import Wire
from tests.archive_world import FLOW, ArchiveWorld
from tests.client_world import ClientWorld
from tests.effort import scaled

RUNS = scaled(1_000)
BATCHES = 5
LINE_AND_NOTE_BYTES = 1_000
"""What is kept at the server of a run that is over."""
KEYS = flow_keys(FLOW)


class Forgetful(RedisLogKeeper):
    """Ends of removed logs are not remembered: nobody is late here, and the test does not wait ten minutes."""

    def drop_run(self, shard: str, run: object, head: Head, linger_s: float = 0.0) -> bool:
        del linger_s
        return super().drop_run(shard, run, head, 0.0)  # type: ignore[arg-type]

    def now_us(self) -> Micros:
        """Answer an instant behind the ends of all runs, which the test's world puts an hour apart."""
        return Micros(super().now_us() + (RUNS + 100) * 3_600_000_000)


@pytest.fixture
def world(evflow_home: Path) -> Iterator[ArchiveWorld]:
    runs = ClientWorld(evflow_home)
    made = ArchiveWorld(runs)
    yield made
    made.close()
    runs.close()


def sizes(world: ArchiveWorld) -> dict[str, int]:
    """Answer the bytes that each key takes."""
    wire = Wire.connect(world.url)
    try:
        names = [key.decode() for key in wire.call("KEYS", "*")]
        return {name: int(wire.call("MEMORY", "USAGE", name, "SAMPLES", 0)) for name in names}
    finally:
        wire.close()


def test_a_run_that_is_over_leaves_a_line_and_a_note(world: ArchiveWorld) -> None:
    with closing(Forgetful(world.url, world.log.archives)) as log:
        leaves_a_line_and_a_note(world, log)


def leaves_a_line_and_a_note(world: ArchiveWorld, log: Forgetful) -> None:
    caretaker = Caretaker(log, Archivist(log, world.store.url, "scheduler"), 0)
    keys: set[frozenset[str]] = set()
    before: dict[str, int] = {}
    for batch in range(BATCHES):
        for _ in range(RUNS // BATCHES):
            world.sealed()
        while caretaker.look(lambda _: True) == 0.0:
            pass
        now = sizes(world)
        keys.add(frozenset(now))
        per_run = {name: (size - before.get(name, 0)) / (RUNS / BATCHES) for name, size in now.items()}
        assert per_run[KEYS.runs] + per_run[KEYS.archives] < LINE_AND_NOTE_BYTES + 20_000 / RUNS * (batch == 0)
        before = now
    assert len(keys) == 1, "keys come with runs and stay"
    assert caretaker.counts.archived == caretaker.counts.dropped == RUNS
    assert world.log.hot([FLOW], None, 10) == [[]]
    assert int(str(world.call("XLEN", KEYS.log))) <= 2 * SEGMENT_EVENTS
    rest = {name: size for name, size in before.items() if name not in (KEYS.runs, KEYS.archives, KEYS.log)}
    assert sum(rest.values()) < 20_000


def test_with_a_rule_nothing_grows(world: ArchiveWorld) -> None:
    kept = Kept(last=5)
    found: list[dict[str, int]] = []
    for _ in range(3):
        for _ in range(max(10, RUNS // 20)):
            world.dropped(world.sealed().id)
        for run in outdated(world.log, FLOW, kept):
            forget(world.log, world.archivist, run, "keep-last 5", "scheduler")
        now = sizes(world)
        now.pop(KEYS.log)  # its old part is archived in segments of a thousand
        found.append(now)
    assert found[1].keys() == found[2].keys()
    assert all(sum(now.values()) < 20_000 for now in found), "with five runs kept, hashes that were large once included"
    assert len(world.log.runs(FLOW)) == 5
