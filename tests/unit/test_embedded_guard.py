"""The guard of an embedded server, as far as it can be tried without one."""

import os
from pathlib import Path

import pytest

from evflow.log.embedded.guard import Guard


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was put on the disk, in order."""
    names: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: names.append(Path(f"/dev/fd/{fd}").resolve().name))  # pyright: ignore[reportUnknownLambdaType]
    return names


@pytest.fixture
def log(root: Path) -> Path:
    """An append-only folder with one file."""
    folder = root / "aof"
    folder.mkdir()
    (folder / "1.incr.aof").write_bytes(b"x")
    return folder


@pytest.fixture
def guard(root: Path, log: Path) -> Guard:
    (root / "clients").touch()
    made = Guard(os.getpid(), False, str(root / "clients"), str(log), str(root / "socket"), 0)
    os.close(made.clients)
    return made


def test_the_first_sync_takes_all_files_and_their_folder(guard: Guard, synced: list[str]) -> None:
    guard.sync()
    assert synced == ["1.incr.aof", "aof"]


def test_what_has_not_grown_is_not_synced_again(guard: Guard, synced: list[str], log: Path) -> None:
    guard.sync()
    synced.clear()
    guard.sync()
    assert synced == []
    (log / "1.incr.aof").write_bytes(b"xy")
    guard.sync()
    assert synced == ["1.incr.aof"]


def test_a_rewrite_has_its_new_file_and_the_folder_synced(guard: Guard, synced: list[str], log: Path) -> None:
    guard.sync()
    synced.clear()
    (log / "1.incr.aof").rename(log / "2.incr.aof")
    guard.sync()
    assert synced == ["2.incr.aof", "aof"]


def test_a_log_that_is_not_there_yet_is_no_mistake(guard: Guard, synced: list[str], log: Path) -> None:
    (log / "1.incr.aof").unlink()
    log.rmdir()
    guard.sync()
    assert synced == []
