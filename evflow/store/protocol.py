"""What the rest of evflow asks of an object store, and what can go wrong with one.

Two kinds of content. **Objects** are named by the SHA-256 of their bytes: immutable, shared by whoever has
the same content, checked when they are read. **Named files** (captured logs, archives) have a name that
somebody chose. One contract suite runs over every implementation.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from evflow.core.ids import Digest, Micros
from evflow.errors import EnvironmentProblem, UsageError

Buffer = bytes | bytearray | memoryview
"""Bytes in memory; a memoryview is contiguous and of format `B`."""


class ObjectMissing(EnvironmentProblem):
    """The store has no object of that digest."""

    code = "object-missing"

    def __init__(self, digest: bytes, where: str) -> None:
        super().__init__(
            f"The object {digest.hex()} is not in the store: there is no '{where}'.",
            "Another store is set than the one it was written to (EVFLOW_STORE), or a lifecycle rule of the bucket removed it."
            if "://" in where
            else "Either the store's folder was changed (EVFLOW_STORE), or the data lies on the disk of the machine that wrote it.",
        )
        self.digest = digest
        self.where = where


class ObjectDamaged(EnvironmentProblem):
    """Stored bytes are not those that were written. Nothing of them was used."""

    code = "object-damaged"

    def __init__(self, where: str, expected: bytes, found: bytes | None, why: str = "") -> None:
        seen = f"has the digest {found.hex()}" if found is not None else "cannot be decoded"
        super().__init__(
            f"The content of '{where}' {seen}; {expected.hex()} was written{f' ({why})' if why else ''}.",
            f"{'It was changed in the bucket' if '://' in where else 'The file was changed or its disk is failing'}. "
            "Restore it from a copy, or run the task that made it again.",
        )
        self.where = where
        self.expected = expected
        self.found = found


class StoreFull(EnvironmentProblem):
    """There is no room for what is to be written."""

    code = "store-full"

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"The store at '{where}' is full: {reason}.",
            "Free some space there, or name another place with EVFLOW_STORE. What was stored before is untouched.",
        )


class StoreUnusable(EnvironmentProblem):
    """The store cannot be read or written: permissions, a read-only file system, a failing disk.

    Attributes:
        is_transient: It is known to be away or busy: a repeat may help without anybody changing anything.
    """

    code = "store-unusable"
    is_transient = False

    def __init__(self, where: str, reason: str, hint: str = "") -> None:
        super().__init__(
            f"The store cannot use '{where}': {reason}.",
            hint or "Check who owns the folder and that its file system can be written, or name another place with EVFLOW_STORE.",
        )


class UnknownStore(UsageError):
    """The URL does not name a store."""

    code = "unknown-store"

    def __init__(self, url: str) -> None:
        super().__init__(
            f"'{url}' does not name an object store.", "Give a folder, as a path or as 'file:///path/to/folder', or 's3://bucket/prefix'."
        )


class NameTaken(UsageError):
    """A named file exists that was to be created."""

    code = "name-taken"

    def __init__(self, name: str, where: str) -> None:
        super().__init__(f"The store has '{name}' already, at '{where}'; it is written once and never over.")


class NameMissing(EnvironmentProblem):
    """There is no file of that name in the store."""

    code = "name-missing"

    def __init__(self, name: str, where: str) -> None:
        super().__init__(f"The store has no '{name}': there is no '{where}'.")


class BadName(UsageError):
    """A name cannot be that of a file in the store."""

    code = "bad-name"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"'{name}' cannot name a file in the store.",
            "A name is parts joined by '/'; a part has letters, digits, '-', '_', '.', '=', '+', '~' or '%' and does not begin with '.'.",
        )


_OBJECT_NAME = re.compile("[0-9a-f]{64}")
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.=+~%")


def name_parts(name: str) -> list[str]:
    """The parts of a named file's name.

    Raises:
        BadName: It could lead elsewhere, or is no name in some kind of store.
    """
    if not is_name(name):
        raise BadName(name)
    return name.split("/")


def is_name(name: str) -> bool:
    """Whether a file of the store can have this name; what else is found there is somebody else's."""
    return all(part and part[0] != "." and _NAME_CHARACTERS.issuperset(part) for part in name.split("/"))


def digest_named(name: str) -> Digest | None:
    """The digest whose hexadecimal digits a name is; None for what others put beside objects: `.nfs…`, `.DS_Store`, the folders of a console."""
    return Digest(bytes.fromhex(name)) if _OBJECT_NAME.fullmatch(name) else None


class ObjectStore(Protocol):
    """Content-addressed objects. Safe to use from many threads and processes at once."""

    @property
    def url(self) -> str:
        """What `open_store` takes to open this store again."""
        ...

    def put(self, chunks: Iterable[Buffer]) -> Digest:
        """Store the chunks, one after another, as one object; durable when this returns.

        Content that the store has already is not written again. A chunk may be reused by the caller as soon
        as the next one is asked for.

        Raises:
            StoreFull: There is no room; nothing is left behind.
            StoreUnusable: The store cannot be written.
        """
        ...

    def get(self, digest: bytes, offset: int = 0, length: int | None = None) -> memoryview:
        """The object, or a part of it, as writable memory that belongs to the caller.

        Without `offset` and `length` the bytes were checked against the digest. A part cannot be: its reader
        checks it against a digest of its own.

        Raises:
            ObjectMissing: The store has no such object.
            ObjectDamaged: The digest differs, or the object ends before the part does.
            StoreUnusable: The store cannot be read.
        """
        ...

    def size(self, digest: bytes) -> int | None:
        """The object's size in bytes, or None where the store has none of that digest."""
        ...

    def exists(self, digest: bytes) -> bool:
        """Whether the store has the object (which may still be damaged)."""
        ...

    def digests(self) -> Iterator[Digest]:
        """All objects, in no order."""
        ...

    def confirm(self, digest: bytes) -> bool:
        """Whether the store has the object, which then counts as written now: for whoever is going to refer to it."""
        ...

    def where(self, digest: bytes) -> str:
        """The object's path or address, for people, whether it exists or not."""
        ...


class NamedFiles(Protocol):
    """Files under names such as `logs/TrainFlow/3/17.0`, for what is not known by its content."""

    def write_named(self, name: str, chunks: Iterable[Buffer], *, create_only: bool = False) -> int:
        """Write a whole file, atomically and durably; returns its size in bytes.

        Raises:
            NameTaken: With `create_only`: the file exists.
            StoreFull: There is no room; an older content is untouched.
            StoreUnusable: The store cannot be written.
        """
        ...

    def read_named(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """A file's bytes from `offset` on, fewer than `length` where it ends before.

        Raises:
            NameMissing: There is no such file.
            StoreUnusable: The store cannot be read.
        """
        ...

    def size_named(self, name: str) -> int | None:
        """A file's size in bytes, or None where there is none."""
        ...

    def list_named(self, prefix: str = "") -> list[str]:
        """The names in the folder `prefix` and below, sorted."""
        ...

    def list_folders(self, prefix: str = "") -> list[str]:
        """The names of the folders in the folder `prefix`, without it, sorted; nothing below them is looked at."""
        ...

    def written_named(self, name: str) -> Micros | None:
        """When a file was last written, by the store's clock, or None where there is none."""
        ...

    def remove_named(self, name: str) -> int:
        """Remove a file; returns the bytes that became free, 0 where there is none.

        Raises:
            StoreUnusable: The store cannot be written.
        """
        ...

    def where_named(self, name: str) -> str:
        """A file's path or address, for people, whether it exists or not."""
        ...


class Removable(Protocol):
    """Objects that may go when nobody refers to them any more."""

    @property
    def at_once(self) -> int:
        """How many requests are well made side by side (`evflow.store.together`); 1 where one after another is as fast."""
        ...

    def written(self) -> Iterator[tuple[Digest, Micros, int]]:
        """All objects, in no order, each with the time it was last written or confirmed, by the store's clock, and its size in bytes."""
        ...

    def remove(self, digest: bytes, written_before_us: int, *, listed: bool = False) -> int:
        """Remove an object unless it was written or confirmed at that time or later; returns the bytes that became free, 0 if none.

        A `put` or `confirm` beside it that said that the object is there is right: the object stays then. With `listed` the caller has just seen
        it among `written`, and older than that: a store that would look first need not.

        Raises:
            StoreUnusable: The store cannot be written.
        """
        ...

    def settle_trash(self) -> None:
        """Put back what a `remove` that died has left half done.

        Raises:
            StoreUnusable: The store cannot be written.
        """
        ...

    def now_us(self) -> Micros:
        """The store's clock.

        Raises:
            StoreFull, StoreUnusable: It cannot be written, which is how it is asked.
        """
        ...


class Store(ObjectStore, NamedFiles, Removable, Protocol):
    """All of it, at one place."""

    def sweep(self) -> None:
        """Remove what writers that died have left behind. Once in a run is enough: its owner asks, its attempts do not.

        Raises:
            StoreFull, StoreUnusable: There is something to remove and the store cannot be written.
        """
        ...
