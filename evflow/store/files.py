"""The object store in a folder.

    <root>/objects/ab/cdef…   an object, named by the SHA-256 of its bytes; never changed, mode 0444
    <root>/named/…            named files
    <root>/tmp/…              what is being written
    <root>/trash/…            objects on their way out

A write goes to a temporary file, which is synced, renamed to its place and whose folder is synced then: a name
that can be seen has its whole content, and a `put` that returned survives a power failure. Renaming one
object over its twin changes nothing, so writers of the same content need no lock between them.

An object is removed in two steps, so that none vanishes under a writer who found it there and counts on it: it is renamed into
the trash, looked at once more, and put back where a writer had touched it in between. The writer touches first and looks then.

A writer that dies leaves its temporary file behind. It had an advisory lock on it, which died too: `sweep`, which
each run's owner calls once, removes what is old and unlocked.
"""

import errno
import fcntl
import hashlib
import mmap
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Self

from evflow.core.ids import Digest, Micros
from evflow.store.protocol import (
    Buffer,
    NameMissing,
    NameTaken,
    ObjectDamaged,
    ObjectMissing,
    StoreFull,
    StoreUnusable,
    UnknownStore,
    digest_named,
    is_name,
    name_parts,
)

SMALL_BYTES = 1 << 20
"""Up to here content is hashed before it is written (it may exist), and read instead of mapped."""

STEP_BYTES = 256 << 10
"""Hashed and written in turn: what was just hashed is still in the processor's cache."""

JOINED_BYTES = 16 << 10
"""Smaller chunks are copied together: a system call for each would cost more."""

WRITEBACK_BYTES = 8 << 20
"""The disk starts after so many bytes instead of at the sync: 100 MB take 113 ms instead of 142."""

ABANDONED_AFTER_S = 60
"""A temporary file younger than this may be between its creation and its lock."""

UNLOCKABLE_AFTER_S = 24 * 3600
"""Where locks do not work, a temporary file that nobody wrote to for so long is abandoned."""

_TMP = "tmp"
_TRASH = "trash"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def root_of(url: str) -> str:
    """The folder of the store at `file:///folder`, or in the folder of that path.

    Raises:
        UnknownStore: The URL is of another kind, or not absolute.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        if not url:
            raise UnknownStore(url)
        return os.path.abspath(os.path.expanduser(url))  # noqa: PTH100, PTH111 - who reads logs needs no pathlib for it
    if scheme != "file" or not rest.startswith("/"):
        raise UnknownStore(url)
    from urllib.parse import unquote

    return unquote(rest)


class FileStore:
    """Objects and named files in one folder; made on the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "objects"
        self._named = root / "named"

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The store at `file:///folder`, or in the folder of that path.

        Raises:
            UnknownStore: The URL is of another kind, or not absolute.
        """
        return cls(Path(root_of(url)))

    def __repr__(self) -> str:
        return f"FileStore({str(self.root)!r})"

    @property
    def url(self) -> str:
        """`file://` and the folder."""
        return self.root.as_uri()

    # --- objects -----------------------------------------------------------------------------------------

    def put(self, chunks: Iterable[Buffer]) -> Digest:
        """See `ObjectStore.put`."""
        rest = iter(chunks)
        head, complete = take(rest, SMALL_BYTES)
        if complete:
            return self._put_small(b"".join(head))
        return self._put_large(head, rest)

    def _put_small(self, data: bytes) -> Digest:
        digest = hashlib.sha256(data).digest()
        if not self._confirm(digest, len(data)):
            with Draft(self.root) as draft:
                draft.write(data)
                self._publish(draft, digest)
        return Digest(digest)

    def _put_large(self, head: list[Buffer], rest: Iterable[Buffer]) -> Digest:
        sha = hashlib.sha256()
        with Draft(self.root) as draft:
            for step in steps(chain(head, rest)):
                sha.update(step)
                draft.write(step)
            digest = sha.digest()
            if not self._confirm(digest, draft.size):
                self._publish(draft, digest)
        return Digest(digest)

    def _confirm(self, digest: bytes, size: int) -> bool:
        """Whether the object is there; it counts as written now, and its name is durable.

        A file of another length is what a failing disk left of the object: it is written again. So is one that may not be touched, as
        another user's in a shared store: a collection of garbage spares what is young.
        """
        path = self._path(digest)
        with translated(path):
            try:
                if path.stat().st_size != size:
                    return False
                os.utime(path)
                path.stat()  # after the touch: whoever removes it renames first and looks then
            except (FileNotFoundError, PermissionError):
                return False
            _sync_folder(path.parent)
            return True

    def _publish(self, draft: "Draft", digest: bytes) -> None:
        path = self._path(digest)
        draft.sync()
        with translated(path):
            try:
                draft.path.replace(path)
            except FileNotFoundError:
                _make_folder(path.parent, self.root)
                draft.path.replace(path)
            _sync_folder(path.parent)

    def get(self, digest: bytes, offset: int = 0, length: int | None = None) -> memoryview:
        """See `ObjectStore.get`. Large objects are mapped: memory is used as it is touched."""
        path = self.where(digest)
        whole = offset == 0 and length is None
        try:
            data = self._found(path, digest, offset, length)
        except FileNotFoundError:
            raise ObjectMissing(digest, path) from None
        except TooShort as short:
            raise ObjectDamaged(path, digest, None, str(short)) from None
        except OSError as error:
            raise StoreUnusable(path, reason_of(error)) from error
        if whole:
            found = hashlib.sha256(data).digest()
            if found != digest:
                raise ObjectDamaged(path, digest, found)
        return data

    def _found(self, path: str, digest: bytes, offset: int, length: int | None) -> memoryview:
        try:
            return read_file(path, offset, length)
        except FileNotFoundError:
            try:
                return read_file(self._trashed(digest), offset, length)  # about to be put back, or left there by a remover that died
            except FileNotFoundError:
                return read_file(path, offset, length)

    def size(self, digest: bytes) -> int | None:
        """See `ObjectStore.size`."""
        return _size(self._path(digest))

    def exists(self, digest: bytes) -> bool:
        """See `ObjectStore.exists`."""
        return self.size(digest) is not None

    def digests(self) -> Iterator[Digest]:
        """See `ObjectStore.digests`."""
        with translated(self._objects):
            if not self._objects.exists():
                return
            for folder in self._objects.iterdir():
                if not folder.is_dir():
                    continue
                for path in folder.iterdir():
                    if (digest := digest_named(folder.name + path.name)) is not None:
                        yield digest

    def confirm(self, digest: bytes) -> bool:
        """See `ObjectStore.confirm`."""
        size = self.size(digest)
        return size is not None and self._confirm(digest, size)

    @property
    def at_once(self) -> int:
        """See `Removable.at_once`."""
        return 1

    def written(self) -> Iterator[tuple[Digest, Micros, int]]:
        """See `ObjectStore.written`."""
        for digest in self.digests():
            path = self._path(digest)
            with translated(path):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
            yield digest, Micros(status.st_mtime_ns // 1_000), status.st_size

    def remove(self, digest: bytes, written_before_us: int, *, listed: bool = False) -> int:
        """See `ObjectStore.remove`."""
        del listed  # a look costs next to nothing here
        path, trashed = self._path(digest), self._trashed(digest)
        with translated(path):
            try:
                if path.stat().st_mtime_ns // 1_000 >= written_before_us:
                    return 0
                _make_folder(trashed.parent, self.root)
                path.rename(trashed)
            except FileNotFoundError:
                return 0
            status = trashed.stat()
            if status.st_mtime_ns // 1_000 >= written_before_us:
                self._put_back(trashed, path)
                return 0
            trashed.unlink()
            return status.st_size

    def settle_trash(self) -> None:
        """See `ObjectStore.settle_trash`."""
        folder = self.root / _TRASH
        with translated(folder):
            if folder.exists():
                for trashed in list(folder.iterdir()):
                    self._put_back(trashed, self._path(bytes.fromhex(trashed.name)))

    def _put_back(self, trashed: Path, path: Path) -> None:
        with suppress(FileExistsError):  # somebody wrote it again
            _make_folder(path.parent, self.root)
            path.hardlink_to(trashed)
        _sync_folder(path.parent)
        trashed.unlink(missing_ok=True)

    def now_us(self) -> Micros:
        """See `ObjectStore.now_us`."""
        with Draft(self.root) as draft:
            return Micros(round(draft.now_s() * 1e6))

    def where(self, digest: bytes) -> str:
        """The object's path. Each attempt asks for some: put together here, it costs a tenth of what pathlib takes."""
        name = digest.hex()
        return f"{self._objects}/{name[:2]}/{name[2:]}"

    def _trashed(self, digest: bytes) -> Path:
        return self.root / _TRASH / digest.hex()

    def _path(self, digest: bytes) -> Path:
        return Path(self.where(digest))

    def sweep(self) -> None:
        """See `Store.sweep`."""
        folder = self.root / _TMP
        with translated(folder):
            try:
                if not os.listdir(folder):  # noqa: PTH208 - an iterator would have to be closed
                    return
            except FileNotFoundError:
                return
        with Draft(self.root) as draft:
            sweep_drafts(folder, draft.now_s())

    # --- named files -------------------------------------------------------------------------------------

    def write_named(self, name: str, chunks: Iterable[Buffer], *, create_only: bool = False) -> int:
        """See `NamedFiles.write_named`."""
        path = self._named_path(name)
        with Draft(self.root) as draft:
            for chunk in chunks:
                draft.write(chunk)
            draft.sync()
            with translated(path):
                try:
                    self._name(draft, path, create_only=create_only)
                except FileNotFoundError:  # `remove_named` took the folder, which was empty
                    self._name(draft, path, create_only=create_only)
                except FileExistsError:
                    raise NameTaken(name, str(path)) from None
                _sync_folder(path.parent)
            return draft.size

    def _name(self, draft: "Draft", path: Path, *, create_only: bool) -> None:
        _make_folder(path.parent, self.root)
        if create_only:
            path.hardlink_to(draft.path)
        else:
            draft.path.replace(path)

    def read_named(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `NamedFiles.read_named`."""
        path = self._named_path(name)
        with translated(path):
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    return file.read(-1 if length is None else length)
            except FileNotFoundError:
                raise NameMissing(name, str(path)) from None

    def size_named(self, name: str) -> int | None:
        """See `NamedFiles.size_named`."""
        return _size(self._named_path(name))

    def list_named(self, prefix: str = "") -> list[str]:
        """See `NamedFiles.list_named`."""
        top = self._named_path(prefix) if prefix else self._named
        names: list[str] = []
        for folder, _, files in os.walk(top, onerror=_unless_missing):
            names.extend((Path(folder) / file).relative_to(self._named).as_posix() for file in files)
        return sorted(filter(is_name, names))

    def list_folders(self, prefix: str = "") -> list[str]:
        """See `NamedFiles.list_folders`."""
        top = self._named_path(prefix) if prefix else self._named
        with translated(top):
            try:
                return sorted(entry.name for entry in os.scandir(top) if entry.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return []

    def written_named(self, name: str) -> Micros | None:
        """See `NamedFiles.written_named`."""
        path = self._named_path(name)
        with translated(path):
            try:
                return Micros(path.stat().st_mtime_ns // 1_000)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def remove_named(self, name: str) -> int:
        """See `NamedFiles.remove_named`."""
        path = self._named_path(name)
        with translated(path):
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                return 0
            if path.parent != self._named:
                with suppress(OSError):  # something is in it still
                    path.parent.rmdir()
            return size

    def where_named(self, name: str) -> str:
        """See `NamedFiles.where_named`."""
        return str(self._named_path(name))

    def _named_path(self, name: str) -> Path:
        return self._named.joinpath(*name_parts(name))


class Draft:
    """A temporary file that becomes something, or goes when its block ends; the disk starts at once where it is to be `durable`."""

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self._root = root
        self.path = root / _TMP / f"{os.getpid()}-{os.urandom(8).hex()}"
        self.size = 0
        self._flushed = 0
        self._durable = durable
        self._file = -1

    def __enter__(self) -> Self:
        with translated(self._root):
            try:
                self._file = self._create()
            except FileNotFoundError:
                _make_folder(self.path.parent, self._root)
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


def _size(path: Path) -> int | None:
    with translated(path):
        try:
            return path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None


def _unless_missing(error: OSError) -> None:
    """What cannot be listed is not as if it were empty."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        with translated(str(error.filename)):
            raise error


def _make_folder(path: Path, root: Path) -> None:
    """Make a folder and those above it, durably.

    A store that we make is its user's alone. In one that somebody made and opened to others, folders have the
    rights that the user's mask leaves.
    """
    try:
        path.mkdir(0o777 if root in path.parents else 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        if not path.parent.exists():
            _make_folder(path.parent, root)
            _make_folder(path, root)
            return
        raise  # a file system that has no new folders, as /proc
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
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
