"""Where an embedded server's files are."""

import os
from pathlib import Path

import pytest

from evflow.log.embedded import places
from evflow.log.embedded.problems import HomeUnusable, SocketPathTooLong
from evflow.log.url import parse


def long_home(root: Path) -> Path:
    return root / ("h" * 120)


def test_the_files_are_in_the_home_and_nobody_else_may_enter(evflow_home: Path) -> None:
    found = places.find(evflow_home)
    assert found.socket == evflow_home / "server" / "socket"
    assert found.data.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_enter_is_closed_to_them(evflow_home: Path) -> None:
    (evflow_home / "server").mkdir(parents=True)
    (evflow_home / "server").chmod(0o755)
    assert places.find(evflow_home).data.stat().st_mode & 0o777 == 0o700


def test_a_long_home_has_its_socket_elsewhere_and_its_locks_at_home(root: Path) -> None:
    found = places.find(long_home(root))
    assert len(os.fsencode(found.socket)) <= places.SOCKET_PATH_LIMIT_BYTES
    assert found.sockets.stat().st_mode & 0o777 == 0o700
    assert found.locks == found.data


def test_all_clients_of_a_home_come_to_the_same_place_whatever_their_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = places.find(long_home(root))
    (root / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(root / "run"))
    assert places.find(long_home(root)) == first


def test_two_long_homes_have_two_places(root: Path) -> None:
    assert places.find(long_home(root) / "a").socket != places.find(long_home(root) / "b").socket


def test_a_place_that_a_reboot_removed_is_made_again(root: Path) -> None:
    first = places.find(long_home(root))
    first.sockets.rmdir()
    assert places.find(long_home(root)).sockets.is_dir()


def test_no_short_place_at_all_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SOCKET_PATH_LIMIT_BYTES", 10)
    with pytest.raises(SocketPathTooLong, match="shorter path"):
        places.find(long_home(root))


def test_a_home_that_is_a_file_is_said(root: Path) -> None:
    (root / "file").write_text("")
    with pytest.raises(HomeUnusable, match="no folder"):
        places.find(root / "file")
    with pytest.raises(HomeUnusable, match="no folder"):
        places.find(root / "file" / "below")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_home_of_somebody_else_is_not_used(evflow_home: Path) -> None:
    evflow_home.mkdir()
    os.chown(evflow_home, 12_345, -1)
    with pytest.raises(HomeUnusable, match="belongs to user 12345"):
        places.find(evflow_home)


def test_looking_makes_nothing(evflow_home: Path) -> None:
    assert places.look(evflow_home) is None
    assert not evflow_home.exists()


@pytest.mark.parametrize("name", ["plain", "a b", "100%", "what?db=3", "a#b", "me@home", "ümlaut"])
def test_the_url_of_any_home_leads_to_its_socket(root: Path, name: str) -> None:
    found = places.find(root / name)
    assert parse(found.url).path == str(found.socket)
