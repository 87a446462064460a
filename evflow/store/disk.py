"""How contents get onto a disk of this machine and are read from there: for the store in a folder, and for what is kept of one in S3."""

import errno
import fcntl
import hashlib
import mmap
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from evflow.core.ids import Digest
from evflow.store.protocol import Buffer, StoreFull, StoreUnusable

SMALL_BYTES = 1 << 20
"""Up to here content is hashed before it is written (it may exist), and read instead of mapped."""

STEP_BYTES = 256 << 10
"""Hashed and written in turn: what was just hashed is still in the processor's cache."""

BESIDE_BYTES = 8 << 20
"""What lies behind so many bytes of a content is hashed in a thread while the next is made and written: a gigabyte takes 0.52 s instead of 0.71."""

AHEAD_STEPS = 4
"""So many steps may be written and not hashed: they are in the processor's cache still."""

JOINED_BYTES = 16 << 10
"""Smaller chunks are copied together: a system call for each would cost more."""

WRITEBACK_BYTES = 8 << 20
"""The disk starts after so many bytes instead of at the sync: 100 MB take 113 ms instead of 142."""

ABANDONED_AFTER_S = 60
"""A temporary file younger than this may be between its creation and its lock."""

UNLOCKABLE_AFTER_S = 24 * 3600
"""Where locks do not work, a temporary file that nobody wrote to for so long is abandoned."""

TMP = "tmp"
"""The folder, below that of a store or cache, of what is being written."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Draft:
    """A temporary file that becomes something, or goes when its block ends; the disk starts at once where it is to be `durable`."""

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self._root = root
        self.path = root / TMP / f"{os.getpid()}-{os.urandom(8).hex()}"
        self.size = 0
        self._flushed = 0
        self._durable = durable
        self._file = -1

    def __enter__(self) -> Self:
        with translated(self._root):
            try:
                self._file = self._create()
            except FileNotFoundError:
                make_folder(self.path.parent, self._root)
                self._file = self._create()
        return self

    def _create(self) -> int:
        file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444)
        with suppress(OSError):  # a file system without locks: what is abandoned there goes by its age
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        self.path.unlink(missing_ok=True)

    def write(self, data: Buffer) -> None:
        """Append."""
        view = memoryview(data)
        with translated(self._root):
            while view:
                written = os.write(self._file, view)
                self.size += written
                view = view[written:]
            if self._durable and self.size - self._flushed >= WRITEBACK_BYTES:
                self._start_writeback()

    def _start_writeback(self) -> None:
        # Advising that written pages are not needed starts writing them, without waiting. They are dirty, so
        # they stay in the page cache for whoever reads the object next.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file, self._flushed, self.size - self._flushed, os.POSIX_FADV_DONTNEED)
        self._flushed = self.size

    def sync(self) -> None:
        """Return when the content is on the disk."""
        with translated(self._root):
            os.fsync(self._file)

    def write_at(self, data: Buffer, offset: int) -> None:
        """Write a part at its place; parts may come in any order, and from several threads."""
        view = memoryview(data)
        with translated(self._root):
            while view:
                written = os.pwrite(self._file, view, offset)
                offset += written
                view = view[written:]

    def now_s(self) -> float:
        """The instant, by the clock that the folder's times are taken from."""
        return os.fstat(self._file).st_mtime


def write_digested(draft: Draft, chunks: Iterable[Buffer]) -> Digest:
    """Append a content, and return its SHA-256. Memory that a caller may use again for the next chunk is done with by then."""
    sha = hashlib.sha256()
    hashed: deque[Future[None]] = deque()

    def wait(most: int) -> None:
        while len(hashed) > most:
            hashed.popleft().result()

    def one_by_one() -> Iterator[Buffer]:
        for chunk in chunks:
            yield chunk
            if not isinstance(chunk, bytes):
                wait(0)

    with ThreadPoolExecutor(1, "evflow-digest") as digesting:
        for step in steps(one_by_one()):
            if draft.size < BESIDE_BYTES:
                sha.update(step)
            else:
                hashed.append(digesting.submit(sha.update, step))
                wait(AHEAD_STEPS)
            draft.write(step)
        wait(0)
    return Digest(sha.digest())


class TooShort(Exception):
    """A file ends before the part that was asked for."""


def read_file(path: str | Path, offset: int, length: int | None) -> memoryview:
    """A file, or a part of it, as writable memory: a large one is mapped.

    Raises:
        TooShort: It ends before the part does.
        OSError: It cannot be read.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        wanted = size - offset if length is None else length
        if wanted < 0 or offset + wanted > size:
            raise TooShort(f"it has {size} bytes, and bytes {offset} to {offset + wanted} were asked for")
        if wanted >= SMALL_BYTES:
            try:
                return _map(file, offset, wanted)
            except OSError:
                pass  # no mapping on this file system, or too many open files: read it then
        return _copy(file, offset, wanted)
    finally:
        os.close(file)


def _map(file: int, offset: int, length: int) -> memoryview:
    """The bytes as private memory: a page is copied when it is written to, the file never changes."""
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    mapped = mmap.mmap(file, offset - start + length, access=mmap.ACCESS_COPY, offset=start)
    return memoryview(mapped)[offset - start :]


def _copy(file: int, offset: int, length: int) -> memoryview:
    view = memoryview(bytearray(length))
    done = 0
    while done < length:
        count = os.preadv(file, [view[done:]], offset + done)
        if count == 0:
            raise TooShort(f"it ends after {offset + done} bytes")
        done += count
    return view


def take(chunks: Iterator[Buffer], limit: int) -> tuple[list[Buffer], bool]:
    """The chunks up to `limit` bytes, and whether they are all.

    They are copied where more may come, since a caller may reuse a chunk's memory for the next.
    """
    taken: list[Buffer] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            taken.append(chunk)
            return taken, False
        taken.append(bytes(chunk))
    return taken, True


def steps(chunks: Iterable[Buffer]) -> Iterator[Buffer]:
    """The same bytes in portions: small chunks joined, large ones cut without a copy."""
    joined = bytearray()
    for chunk in chunks:
        if len(chunk) < JOINED_BYTES:
            joined += chunk
            if len(joined) < STEP_BYTES:
                continue
        if joined:
            yield joined
            joined = bytearray()
        if len(chunk) >= JOINED_BYTES:
            view = memoryview(chunk)
            for start in range(0, len(view), STEP_BYTES):
                yield view[start : start + STEP_BYTES]
    if joined:
        yield joined


def size_of(path: Path) -> int | None:
    """The size of a file in bytes; None where there is none."""
    with translated(path):
        try:
            return path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None


def unless_missing(error: OSError) -> None:
    """What cannot be listed is not as if it were empty."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        with translated(str(error.filename)):
            raise error


def make_folder(path: Path, root: Path) -> None:
    """Make a folder and those above it, durably.

    A store that we make is its user's alone. In one that somebody made and opened to others, folders have the
    rights that the user's mask leaves.
    """
    mode = 0o777 if root in path.parents else 0o700
    try:
        path.mkdir(mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        if not path.parent.exists():
            make_folder(path.parent, root)
        # Somebody else may have made the one above in this moment. A file system that has no new folders, as /proc, says the same again.
        with suppress(FileExistsError):
            path.mkdir(mode)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Return when the names in a folder are on the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # a file system that cannot sync folders
            raise
    finally:
        os.close(folder)


def sweep_drafts(folder: Path, now_s: float) -> None:
    """Remove temporary files whose writers died."""
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                age_s = now_s - entry.stat().st_mtime
                if age_s > ABANDONED_AFTER_S and (_unlocked(entry.path) or age_s > UNLOCKABLE_AFTER_S):
                    Path(entry.path).unlink()
            except OSError:
                continue  # gone already, or another user's


def _unlocked(path: str) -> bool:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def reason_of(error: OSError) -> str:
    """What the operating system says."""
    return error.strerror or str(error)


@contextmanager
def translated(path: Path | str) -> Generator[None]:
    """Say what an error of the operating system means for the store."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or path)
        if error.errno in _FULL:
            raise StoreFull(where, reason_of(error)) from error
        raise StoreUnusable(where, reason_of(error)) from error
