"""What this machine has read from S3 or written to it, kept for the next who reads it.

    <folder>/objects/ab/cdef…    an object, by its digest: of whichever bucket, for all processes of the machine
    <folder>/tmp/…               what is being written, and large contents on their way to S3
    <folder>/size                how much there is, about

It has a bound: past it, what was not used for longest goes, until a tenth is free. A cached object is checked against its digest each time it is
read, like one that comes from S3, and one that is not whole is thrown away. A cache that cannot be written (a full disk, a read-only file
system) is none: nothing that anybody needs is only here.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from evflow.store.disk import Draft, TooShort, read_file, sweep_drafts
from evflow.store.protocol import StoreFull, StoreUnusable

KEPT_OF_TEN: Final = 9
LARGEST_OF_BOUND: Final = 0.5
"""A larger object would drive out all others."""


class ReadCache:
    """Objects in a folder, up to a bound; safe to use from many threads and processes at once."""

    def __init__(self, folder: Path, bound_bytes: int) -> None:
        self.folder = folder
        self._bound = bound_bytes
        self._objects = folder / "objects"

    def takes(self, size_bytes: int) -> bool:
        """Whether an object of that size would be kept."""
        return size_bytes <= self._bound * LARGEST_OF_BOUND

    def get(self, digest: bytes) -> memoryview | None:
        """An object, as writable memory, checked; None where it is not here."""
        if not self._bound:
            return None
        path = self._path(digest)
        try:
            data = read_file(path, 0, None)
        except (OSError, TooShort):
            return None
        if hashlib.sha256(data).digest() != digest:
            with suppress(OSError):
                path.unlink()
            return None
        self._touch(path)
        return data

    def keep(self, digest: bytes, data: bytes | bytearray | memoryview) -> None:
        """Keep an object, if that can be done."""
        if not self.takes(len(data)) or self._path(digest).exists():
            return
        with suppress(StoreFull, StoreUnusable), Draft(self.folder, durable=False) as draft:
            draft.write(data)
            self.adopt(draft, digest, len(data))

    def adopt(self, draft: Draft, digest: bytes, size_bytes: int) -> None:
        """Keep the content of a draft in this folder, which was checked."""
        path = self._path(digest)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.path.replace(path)
            self._count(size_bytes)

    def forget(self, digest: bytes) -> None:
        """Drop an object."""
        with suppress(OSError):
            self._path(digest).unlink()

    def sweep(self) -> None:
        """Remove what writers that died have left behind."""
        folder = self.folder / "tmp"
        if folder.is_dir() and any(folder.iterdir()):
            with suppress(StoreFull, StoreUnusable), Draft(self.folder) as draft:
                sweep_drafts(folder, draft.now_s())

    def _touch(self, path: Path) -> None:
        with suppress(OSError):  # it may be another user's, or gone
            os.utime(path)

    def _count(self, size_bytes: int) -> None:
        """Note that there is more; past the bound, look how much there is really, and remove what was not used for longest."""
        file = os.open(self.folder / "size", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            noted = os.read(file, 32)
            total = (int(noted) if noted.isdigit() else 0) + size_bytes
            if total > self._bound or not noted:
                total = self._evict()
            os.ftruncate(file, 0)
            os.pwrite(file, b"%d" % total, 0)
        finally:
            os.close(file)

    def _evict(self) -> int:
        kept = sorted(self._entries(), reverse=True)  # what was used last comes first
        total, bound = 0, self._bound
        if sum(size for _, size, _ in kept) > bound:
            bound = bound * KEPT_OF_TEN // 10
        for _, size, path in kept:
            if total + size > bound:
                with suppress(OSError):
                    Path(path).unlink()
            else:
                total += size
        return total

    def _entries(self) -> Iterator[tuple[int, int, str]]:
        for folder in os.scandir(self._objects):
            for entry in os.scandir(folder.path):
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    yield status.st_mtime_ns, status.st_size, entry.path

    def _path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self._objects / name[:2] / name[2:]
