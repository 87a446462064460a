"""What attempts of a run find ready: the manifest that members of a foreach all start from is read once, ahead of their forks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from evflow.errors import EvflowError
from evflow.store import open_store
from evflow.store.artifacts import ArtifactView, save
from evflow.worker.attempt import Surroundings
from evflow.worker.spec import RunContext

Opened = Callable[[], list[bytes]]


@pytest.fixture
def surroundings(tmp_path: Path) -> Surroundings:
    store = open_store(f"file://{tmp_path}/store")
    parameters = save(store, {"n": 3}, {}).manifest
    return Surroundings(RunContext("Flow", 7, "", "s0", f"unix://{tmp_path}/nobody", store.url, parameters))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    found: list[bytes] = []
    read = ArtifactView.open.__func__  # type: ignore[attr-defined]

    def listen(cls: type[ArtifactView], /, store: object, manifest: bytes, **more: object) -> ArtifactView:
        found.append(manifest)
        view: ArtifactView = read(cls, store, manifest, **more)
        return view

    monkeypatch.setattr(ArtifactView, "open", classmethod(listen))
    return found


def test_what_two_in_a_row_start_from_is_read_once_for_all_that_follow(surroundings: Surroundings, opened: list[bytes]) -> None:
    one, other = (save(surroundings.store, {"x": value}, {}).manifest for value in (1, 2))
    for manifest in (one, other, one, other):
        surroundings.expect(manifest)
    assert opened == []  # nobody starts where the one before it did
    for _ in range(3):
        surroundings.expect(other)
        assert surroundings.view(other).load("x") == 2
    assert opened == [other]
    assert surroundings.view(one).load("x") == 1
    surroundings.expect(one)
    surroundings.expect(one)
    assert opened == [other, one, one]
    assert (surroundings.view(one).load("x"), surroundings.view(other).load("x")) == (1, 2)


def test_what_cannot_be_read_ahead_is_the_attempts_to_say(surroundings: Surroundings) -> None:
    surroundings.expect(b"\x01" * 32)
    with pytest.raises(EvflowError):
        surroundings.expect(b"\x01" * 32)
    with pytest.raises(EvflowError):
        surroundings.view(b"\x01" * 32)
