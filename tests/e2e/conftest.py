"""What tests from outside share: a folder to work in, and a client that knows nothing of the test before."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow.client import namespaces
from evflow.client.connection import disconnect, look_at


@pytest.fixture
def folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    work = root / "flows"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def client_forgets() -> Iterator[None]:
    """Afterwards the client of this process has no connection, no namespace and no spin of the test."""
    yield
    look_at(None)
    namespaces.forget()
    disconnect()
