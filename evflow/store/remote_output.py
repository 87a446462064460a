"""What attempts printed, and their live cards, in a store that is no folder of this machine.

Attempts and their supervisor write to a folder of their machine, as they do where the store is one. The owner of the attempts carries what is
written there into the store, while it grows and at each attempt's end:

    logs/<Flow>/<number>/<task>.<attempt>.log.d/<offset>    a piece of a log that goes on: records from that byte on; never changed
    logs/<Flow>/<number>/<task>.<attempt>.log               the whole log, written at the attempt's end; its pieces go then
    logs/<Flow>/<number>/<task>.<attempt>.….html, .json, .raw  a live card, as it was drawn last

A piece holds whole records, and offsets mean the same in both forms, so a follower goes on from one to the other.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from evflow.core.ids import RunId
from evflow.errors import EnvironmentProblem
from evflow.store.protocol import NameMissing, Store

LOOK_EVERY_S: Final = 1.0
"""How far whoever follows a task is behind it, at most, beside the way to the store."""
AT_ONCE: Final = 8
"""Files that are sent side by side."""
PIECE_BYTES: Final = 4 << 20
_OFFSET_DIGITS: Final = 12


def is_remote(place: str) -> bool:
    """Whether a store's URL, or a place in a store, is none of this machine's folders."""
    return "://" in place and not place.startswith("file://")


def place_of(store: str, run: RunId) -> str:
    """Where a run's output is in the store at a URL."""
    return f"{store}/named/logs/{run.flow}/{run.number}"


def _opened(place: str) -> tuple[Store, str]:
    from evflow.store import open_store

    url, _, name = place.rpartition("/named/")
    return open_store(url), name


def read(place: str, file: str, offset: int = 0) -> bytes | None:
    """A log from an offset on, whole or as far as it has come; None where there is none.

    Raises:
        StoreUnusable: The store cannot be read.
    """
    store, folder = _opened(place)
    name = f"{folder}/{file}"
    for _ in range(2):  # between the look for the whole and the one for the pieces it may become whole
        with suppress(NameMissing):
            return store.read_named(name, offset)
        found = _pieces(store, name, offset)
        if found is not None:
            return found
    return None


def _pieces(store: Store, name: str, offset: int) -> bytes | None:
    starts = sorted(int(piece.rpartition("/")[2]) for piece in store.list_named(f"{name}.d"))
    if not starts:
        return None
    ends = [*starts[1:], None]
    try:
        wanted = [start for start, end in zip(starts, ends, strict=True) if end is None or end > offset]
        content = b"".join(store.read_named(_piece(name, start)) for start in wanted)
    except NameMissing:
        return None
    return content[max(0, offset - wanted[0]) :]


def _piece(name: str, offset: int) -> str:
    return f"{name}.d/{offset:0{_OFFSET_DIGITS}}"


def overwrite(place: str, file: str, content: bytes) -> bool:
    """Let a log have another content; whether there was one."""
    store, folder = _opened(place)
    name = f"{folder}/{file}"
    pieces = store.list_named(f"{name}.d")
    if store.size_named(name) is None and not pieces:
        return False
    store.write_named(name, [content])
    for piece in pieces:
        store.remove_named(piece)
    return True


def fetch_cards(place: str, folder: str) -> None:
    """Have a run's live cards in a folder, as they are now."""
    store, name = _opened(place)
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - pathlib is a heavy import in an attempt
    for found in store.list_named(name):
        file = found.rpartition("/")[2]
        if file.endswith((".html", ".json", ".raw")):
            with suppress(NameMissing), open(f"{folder}/{file}.part", "wb") as part:  # noqa: PTH123 - as above
                part.write(store.read_named(found))
                os.replace(part.name, f"{folder}/{file}")  # noqa: PTH105 - as above


class Carrier:
    """Carries what attempts of this machine write into a folder into the store: a thread, from `start` to `finish`.

    Args:
        place: Where it goes.
        folder: Where it comes from.
        on_trouble: Told once what keeps it from the store; it is tried again as long as the carrier lives.
    """

    def __init__(self, place: str, folder: str, on_trouble: Callable[[str], None]) -> None:
        self._place = place
        self._folder = folder
        self._on_trouble = on_trouble
        self._told = False
        self._sent: dict[str, int] = {}
        self._drawn: dict[str, int] = {}
        self._ended: set[str] = set()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="evflow-output", daemon=True)

    def start(self) -> None:
        """Begin. What is in the folder is of attempts that go on, or of an owner that died."""
        self._thread.start()

    def ended(self, task: int, attempt: int) -> None:
        """An attempt is over: what it printed is complete."""
        self._ended.add(f"{task}.{attempt}.")
        self._wake.set()

    def finish(self) -> None:
        """All attempts are over: carry what is left, then end."""
        self._closing = True
        self._wake.set()

    def wait(self, within_s: float) -> None:
        """Wait for the end. What is left after so long stays in the folder, for who goes on with the run."""
        self._thread.join(within_s)

    def is_alive(self) -> bool:
        """Whether there is something to wait for."""
        return self._thread.is_alive()

    def _run(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(AT_ONCE, "evflow-output") as pool:
            while True:
                last = self._closing
                self._wake.clear()
                ended = set(self._ended)
                files = [*self._files(ended, last)]
                done = [*pool.map(self._carry, files)] if files else []
                left = {_attempt_of(file) for (file, _), sent in zip(files, done, strict=True) if not sent}
                self._ended -= {attempt for attempt in ended if attempt not in left}
                if last:
                    with suppress(OSError):  # something could not be sent, or there never was anything
                        os.rmdir(self._folder)  # noqa: PTH106 - as above
                    return
                self._wake.wait(LOOK_EVERY_S)

    def _files(self, ended: set[str], last: bool) -> Iterator[tuple[str, bool]]:
        with suppress(FileNotFoundError):
            for entry in os.scandir(self._folder):
                if not entry.name.startswith("."):
                    yield entry.name, last or _attempt_of(entry.name) in ended

    def _carry(self, given: tuple[str, bool]) -> bool:
        """Send what is new of a file; whether it is where it should be."""
        file, whole = given
        path = f"{self._folder}/{file}"
        try:
            if file.endswith(".log"):
                self._carry_log(file, path, whole=whole)
            else:
                self._carry_card(file, path)
            if whole:
                os.unlink(path)  # noqa: PTH108 - pathlib is a heavy import
        except FileNotFoundError:
            return True
        except (EnvironmentProblem, OSError) as error:
            if not self._told:
                self._on_trouble(str(error))
            self._told = True
            return False
        return True

    def _carry_log(self, file: str, path: str, *, whole: bool) -> None:
        store, folder = _opened(self._place)
        name = f"{folder}/{file}"
        if whole:
            with open(path, "rb") as log:  # noqa: PTH123 - as above
                store.write_named(name, iter(lambda: log.read(PIECE_BYTES), b""))
            # Of a former owner's pieces, too: it may have sent some.
            for piece in store.list_named(f"{name}.d"):
                store.remove_named(piece)
            self._sent.pop(file, None)
            return
        sent = self._sent.get(file, 0)
        while os.stat(path).st_size > sent:  # noqa: PTH116 - as above
            with open(path, "rb") as log:  # noqa: PTH123 - as above
                log.seek(sent)
                data = log.read(PIECE_BYTES)
            data = data[: data.rfind(b"\n") + 1]
            if not data:
                return
            store.write_named(_piece(name, sent), [data])
            sent = self._sent[file] = sent + len(data)

    def _carry_card(self, file: str, path: str) -> None:
        drawn = os.stat(path).st_mtime_ns  # noqa: PTH116 - as above
        if self._drawn.get(file) == drawn:
            return
        store, folder = _opened(self._place)
        with open(path, "rb") as page:  # noqa: PTH123 - as above
            store.write_named(f"{folder}/{file}", [page.read()])
        self._drawn[file] = drawn


def _attempt_of(file: str) -> str:
    return ".".join(file.split(".", 2)[:2]) + "."


def carrier_of(store: str, run: RunId, folder: str, on_trouble: Callable[[str], None]) -> Carrier | None:
    """What carries a run's output into its store, or None where the folder is the store's."""
    return Carrier(place_of(store, run), folder, on_trouble) if folder and is_remote(store) else None
