"""What an attempt printed, as a file in the store.

A run's output lies among the store's named files, `logs/<Flow>/<number>/`: whoever has the run's artifacts has its output
as well. One file an attempt, `<task>.<attempt>.log`, written by the supervisor and by nobody else. A record is a line of
it, readable with `cat`:

    1732380000000000 o hello          text with its newline, to stdout
    1732380000000017 e Traceback      ... to stderr
    1732380000000032 o+100 %          text without a newline: the next record of the stream goes on
    1732380000000040 x 123456         so many bytes were left out here

The number is when the supervisor read it, in microseconds. The text is the bytes as they were printed, whatever they
are: a record ends at a newline, and no other byte means anything. A file exists once something was printed. It is
bounded: past the limit only the last 64 KiB are kept, because an end explains more than a middle.

Where the store is no folder of this machine, the supervisor writes to a folder beside it, and `evflow.store.remote_output` has the rest. A
*place* is what readers take: such a folder, or an address in a store.
"""

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, BinaryIO, Final, Literal

from evflow.core.ids import RunId
from evflow.core.values import value
from evflow.store.disk import translated
from evflow.store.files import root_of
from evflow.store.remote_output import is_remote, overwrite, place_of, read

Stream = Literal["stdout", "stderr"]
STREAMS: Final[tuple[Stream, Stream]] = ("stdout", "stderr")

DEFAULT_LIMIT_MB: Final = 10
TAIL_BYTES: Final = 64 * 1024
"""How much of the end is kept of a log that is over its limit."""

_LETTER: Final[dict[Stream, bytes]] = {"stdout": b"o", "stderr": b"e"}
_STREAM: Final[dict[bytes, Stream]] = {b"o": "stdout", b"e": "stderr"}


@value
class LogLine:
    """A record of a log.

    Attributes:
        at_us: When it was read from the attempt.
        stream: `stdout` or `stderr`.
        text: Without its newline; bytes that are no UTF-8 are replaced.
        ends: A newline followed it.
    """

    at_us: int
    stream: Stream
    text: str
    ends: bool = True


def folder_of(store: str, run: RunId) -> str:
    """The place of a run's output in the store at a URL (`RunStarted.store`), whether it exists or not.

    Raises:
        UnknownStore: No store has such a URL.
    """
    if is_remote(store):
        return place_of(store, run)
    return os.path.join(root_of(store), "named", "logs", run.flow, str(run.number))  # noqa: PTH118 - pathlib is a heavy import


def find_folder(store: str, run: RunId, configured: str) -> str | None:
    """The place of a run's output in its store, or, where that was moved, in the configured one; None if neither has it.

    One that is no folder is not asked: whoever reads there is told what is wrong with it.
    """
    for url in (store or configured, configured):
        folder = folder_of(url, run)
        if is_remote(folder):
            return folder
        if os.path.isdir(folder):  # noqa: PTH112 - as above
            return folder
    return None


def make_folder(store: str, run: RunId) -> str:
    """Make the folder that a run's attempts of this machine print to, and return it.

    Raises:
        StoreFull, StoreUnusable: It cannot be made.
    """
    if is_remote(store):
        folder = _beside(store, run)
        with translated(folder):
            os.makedirs(folder, 0o700, exist_ok=True)  # noqa: PTH103 - as above
        return folder
    folder = folder_of(store, run)
    with translated(folder):
        if not os.path.isdir(root_of(store)):  # noqa: PTH112 - as above
            os.makedirs(root_of(store), 0o700, exist_ok=True)  # noqa: PTH103 - as above
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - as above
    return folder


def _beside(store: str, run: RunId) -> str:
    """A folder of this machine for the output of a run in a store elsewhere."""
    config: Any = import_module("evflow.config")  # by name: settings know of the log, which stands beside the store
    name = hashlib.sha256(store.encode()).hexdigest()[:16]
    return os.path.join(config.get("home"), "output", name, run.flow, str(run.number))  # noqa: PTH118 - as above


def path_of(folder: str, task: int, attempt: int) -> str:
    """Where an attempt's log is, if it printed anything."""
    return f"{folder}/{task}.{attempt}.log"


class LogWriter:
    """Appends what an attempt prints; opened at the first byte, so a silent attempt costs nothing."""

    __slots__ = ("_descriptor", "_limit", "_omitted", "_path", "_tail", "_tail_bytes", "_written")

    def __init__(self, folder: str, task: int, attempt: int, limit_bytes: int = DEFAULT_LIMIT_MB * 1_000_000) -> None:
        self._path = path_of(folder, task, attempt)
        self._limit = limit_bytes
        self._descriptor = -1
        self._written = 0
        self._omitted = 0
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    def write(self, stream: Stream, at_us: int, lines: Iterable[bytes], *, ends: bool = True) -> None:
        """Append lines that were read at one instant.

        Raises:
            OSError: The file cannot be written.
        """
        head = b"%d %s%s" % (at_us, _LETTER[stream], b" " if ends else b"+")
        if self._written + self._tail_bytes < self._limit:
            self._append(b"".join([head + line + b"\n" for line in lines]))
            return
        for line in lines:
            self._keep_for_the_end(head + line + b"\n")

    def close(self, at_us: int) -> None:
        """Write the end of a log that is over its limit, and close the file."""
        if self._tail:
            if self._omitted:
                self._append(b"%d x %d\n" % (at_us, self._omitted))
            self._append(b"".join(self._tail))
            self._tail.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, data: bytes) -> None:
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._written += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _keep_for_the_end(self, record: bytes) -> None:
        self._tail.append(record)
        self._tail_bytes += len(record)
        while self._tail_bytes > TAIL_BYTES and len(self._tail) > 1:
            dropped = len(self._tail.popleft())
            self._tail_bytes -= dropped
            self._omitted += dropped


def read_log(folder: str, task: int, attempt: int, stream: Stream | None = None) -> Iterator[LogLine]:
    """What an attempt printed, in the order in which it was read; nothing where it printed nothing.

    One stream, or both where `stream` is None. A record that is still being written is not returned.
    """
    file = _opened(folder, task, attempt)
    if file is None:
        return
    with file:
        for record in file:
            line = _parse(record)
            if line is not None and stream in {None, line.stream}:
                yield line


def read_on(folder: str, task: int, attempt: int, offset: int) -> tuple[list[LogLine], int]:
    """What an attempt printed behind an offset in its log, and the offset to go on from; for followers."""
    file = _opened(folder, task, attempt, offset)
    if file is None:
        return [], offset
    with file:
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return [line for record in whole.splitlines(keepends=True) if (line := _parse(record)) is not None], offset + len(whole)


def _opened(place: str, task: int, attempt: int, offset: int = 0) -> BinaryIO | None:
    """An attempt's log at a place, from an offset on."""
    if is_remote(place):
        data = read(place, path_of("", task, attempt)[1:], offset)
        return None if data is None else io.BytesIO(data)
    try:
        file = open(path_of(place, task, attempt), "rb")  # noqa: PTH123, SIM115 - pathlib is a heavy import; the caller closes it
    except FileNotFoundError:
        return None
    file.seek(offset)
    return file


def scrub(place: str, task: int, attempt: int, at_us: int) -> bool:
    """Forget what an attempt printed; whether there was anything.

    Raises:
        OSError, StoreUnusable: It cannot be written.
    """
    instead = b"%d e [scrubbed]\n" % at_us
    if is_remote(place):
        return overwrite(place, path_of("", task, attempt)[1:], instead)
    path = path_of(place, task, attempt)
    if not os.path.exists(path):  # noqa: PTH110 - as above
        return False
    with open(path, "wb") as file:  # noqa: PTH123 - as above
        file.write(instead)
    return True


def read_text(folder: str, task: int, attempt: int, stream: Stream | None = None) -> str:
    """What an attempt printed, as one text."""
    return "".join([f"{line.text}\n" if line.ends else line.text for line in read_log(folder, task, attempt, stream)])


def _parse(record: bytes) -> LogLine | None:
    at, _, rest = record.partition(b" ")
    if not record.endswith(b"\n") or not at.isdigit() or len(rest) < 3:
        return None
    if rest[:1] == b"x":
        return LogLine(int(at), "stderr", f"[{rest[2:-1].decode()} bytes are left out here: the log is over its limit]")
    stream = _STREAM.get(rest[:1])
    if stream is None:
        return None
    return LogLine(int(at), stream, rest[2:-1].decode("utf-8", "replace"), rest[1:2] == b" ")
