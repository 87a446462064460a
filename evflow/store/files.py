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

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Self

from evflow.core.ids import Digest, Micros
from evflow.store.disk import (
    SMALL_BYTES,
    TMP,
    Draft,
    TooShort,
    make_folder,
    read_file,
    reason_of,
    size_of,
    sweep_drafts,
    sync_folder,
    take,
    translated,
    unless_missing,
    write_digested,
)
from evflow.store.protocol import (
    Buffer,
    NameMissing,
    NameTaken,
    ObjectDamaged,
    ObjectMissing,
    StoreUnusable,
    UnknownStore,
    digest_named,
    is_name,
    name_parts,
)

_TRASH = "trash"


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
        with Draft(self.root) as draft:
            digest = write_digested(draft, chain(head, rest))
            if not self._confirm(digest, draft.size):
                self._publish(draft, digest)
        return digest

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
            sync_folder(path.parent)
            return True

    def _publish(self, draft: Draft, digest: bytes) -> None:
        path = self._path(digest)
        draft.sync()
        with translated(path):
            try:
                draft.path.replace(path)
            except FileNotFoundError:
                make_folder(path.parent, self.root)
                draft.path.replace(path)
            sync_folder(path.parent)

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
        return size_of(self._path(digest))

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
                make_folder(trashed.parent, self.root)
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
            make_folder(path.parent, self.root)
            path.hardlink_to(trashed)
        sync_folder(path.parent)
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
        folder = self.root / TMP
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
                sync_folder(path.parent)
            return draft.size

    def _name(self, draft: Draft, path: Path, *, create_only: bool) -> None:
        make_folder(path.parent, self.root)
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
        return size_of(self._named_path(name))

    def list_named(self, prefix: str = "") -> list[str]:
        """See `NamedFiles.list_named`."""
        top = self._named_path(prefix) if prefix else self._named
        names: list[str] = []
        for folder, _, files in os.walk(top, onerror=unless_missing):
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
