"""What a process does around a body before there is one: all of it, and without a trace."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evflow.core.codec import decode_report
from evflow.core.events import AttemptSucceeded
from evflow.core.ids import RunId
from evflow.flow.current import current
from evflow.log.client import RedisLogClient
from evflow.store import open_store
from evflow.store.artifacts import ArtifactView, save
from evflow.worker.forks import REHEARSE_AFTER, ForkLauncher, Started
from evflow.worker.rehearsal import rehearse
from evflow.worker.spec import RunContext


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    store = open_store(f"file://{tmp_path}/store")
    parameters = save(store, {"n": 3}, {}).manifest
    return RunContext("Flow", 7, "", "s0", f"unix://{tmp_path}/nobody", store.url, parameters)


def test_a_rehearsal_goes_all_the_way_and_leaves_nothing(context: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[tuple[str, AttemptSucceeded]] = []
    report = RedisLogClient.report

    def listen(self: RedisLogClient, shard: str, run: RunId, payload: bytes, **more: Any) -> bool:
        answer = report(self, shard, run, payload, **more)
        event, _ = decode_report(payload)
        assert isinstance(event, AttemptSucceeded)
        reported.append((f"{shard} {run}", event))
        return answer

    monkeypatch.setattr(RedisLogClient, "report", listen)
    store = open_store(context.store_url)
    before = sorted(tmp_path.rglob("*"))
    for _ in range(3):
        rehearse(context, store, ArtifactView.open(store, context.parameters), whole=True)
    assert [(place, event.next_steps, event.artifacts) for place, event in reported] == [("s0 Flow/7", ("end",), 2)] * 3
    assert sorted(tmp_path.rglob("*")) == before
    assert not current.is_running_flow


def test_what_is_wrong_is_left_to_the_attempt(context: RunContext, tmp_path: Path) -> None:
    store = open_store(context.store_url)
    parameters = ArtifactView.open(store, context.parameters)
    for file in (tmp_path / "store").rglob("*"):
        if file.is_file():
            file.unlink()
    rehearse(context, store, parameters, whole=True)


def test_a_fork_server_rehearses_once_when_many_attempts_came(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    class Runner:
        used_up = True
        rehearsed = 0

        def prepare(self, context: RunContext) -> None: ...
        def expect(self, context: RunContext, order: bytes) -> None: ...
        def forget(self, context: RunContext) -> None: ...
        def rest(self) -> None: ...
        def rehearse(self, context: RunContext, *, whole: bool = False) -> None:
            self.rehearsed += 1

        def __call__(self, context: RunContext, order: bytes) -> int:
            return 0

    runner = Runner()
    launcher = ForkLauncher(runner)

    def fork(_: Callable[[], int]) -> Started:
        return Started(1, -1, -1)

    monkeypatch.setattr(launcher, "_fork", fork)
    counts: list[int] = []
    for _ in range(2 * REHEARSE_AFTER):
        launcher.launch(context, b"")
        counts.append(runner.rehearsed)
    assert counts[REHEARSE_AFTER - 2] == 0
    assert counts[REHEARSE_AFTER - 1] == counts[-1] > 8
