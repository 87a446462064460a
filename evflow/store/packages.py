"""The code of a flow as one object: an archive of its folder that plain Python can unpack.

The archive is a zip without compression, its members sorted, their times fixed: equal folders have equal digests on
every machine and under every version of zlib. What is in it: files with the wanted suffixes below the flow's
folder. Hidden folders, virtual environments, `__pycache__` and `node_modules` are passed over, and so is what a
`.evflowignore` beside the flow names, in the syntax of `.gitignore`.

The walk is bounded. Somebody who runs a flow from their home folder gets a package of the flow's file alone, and a
warning, within a fraction of a second.

An unchanged folder is recognised by its listing (names, sizes, times), which is kept in a cache with the digest.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from evflow.clock import now_us
from evflow.core.ids import Digest
from evflow.core.values import value
from evflow.errors import EnvironmentProblem, UsageError
from evflow.store.protocol import ObjectStore

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".evflowignore"
SUFFIXES = (".py",)

MAX_SEEN = 20_000
"""Entries of folders that are looked at: 0.1 to 0.2 s."""

MAX_FILES = 5_000
MAX_SIZE_BYTES = 50 << 20

_PASSED_OVER = frozenset({"__pycache__", "node_modules"})
_ENVIRONMENT_MARK = "pyvenv.cfg"
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
_CREATED_ON_UNIX = 3
_SETTLED_AFTER_US = 2_000_000
"""A file that changed later than this before its listing may change again with the same size and time."""


class BadIgnoreFile(UsageError):
    """A line of `.evflowignore` is no pattern."""

    code = "bad-ignore-file"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} cannot be used: {why}.", "Its lines have the syntax of .gitignore.")


class CodeUnreadable(EnvironmentProblem):
    """A file that belongs to the code package cannot be read."""

    code = "code-unreadable"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"'{path}' belongs to the flow's code package and cannot be read: {why}.",
            f"Make it readable, or name it in a file {IGNORE_FILE} beside the flow.",
        )


class FileNameNotText(UsageError):
    """The flow's file has a name that no archive and no log can hold."""

    code = "file-name-not-text"

    def __init__(self, path: str) -> None:
        super().__init__(f"The name of the flow's file {path!r} is not UTF-8.", "Give the file another name.")


class BadPackage(EnvironmentProblem):
    """An object is no code package, or names a file outside of its folder."""

    code = "bad-package"

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"'{where}' is not a code package that can be unpacked: {why}. Nothing was unpacked.")


class CannotUnpack(EnvironmentProblem):
    """The folder for a package's code cannot be written."""

    code = "cannot-unpack"

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"The code package cannot be unpacked into '{where}': {why}.", "Check the folder's owner and its free space.")


class FolderTaken(UsageError):
    """The folder to unpack into has something in it."""

    code = "folder-taken"

    def __init__(self, folder: Path) -> None:
        super().__init__(f"'{folder}' exists and is not empty; a code package is unpacked into a folder of its own.")


@value
class Package:
    """A code package in the store.

    Attributes:
        digest: The archive.
        file: The flow's file inside it.
        files: How many files it has; 0 where the cache knew it.
        warning: What the user should know, or an empty string.
        complete: False where the folder was too large, and the package holds the flow's file alone.
    """

    digest: Digest
    file: str
    files: int = 0
    warning: str = ""
    complete: bool = True


class _File(NamedTuple):
    """A file of the package: its name there, where it lies, and what tells whether it changed."""

    name: str
    path: str
    size: int
    changed_ns: int
    runnable: bool


class _TooLarge(Exception):
    """A bound of the walk was met; the text says which."""


def build(
    store: ObjectStore, main_file: Path, *, folder: Path | None = None, suffixes: Sequence[str] = SUFFIXES, cache: Path | None = None
) -> Package:
    """Store the code of a flow.

    Args:
        store: Where to.
        main_file: The flow's file. It is part of the package in any case.
        folder: What to package; the folder of the file by default.
        suffixes: The endings of the files that belong to it, `.py` among them.
        cache: A folder for what is remembered about unchanged folders, or None.

    Raises:
        BadIgnoreFile: A pattern of `.evflowignore` is wrong.
        CodeUnreadable: A file cannot be read.
        FileNameNotText: The flow's file has a name that is not UTF-8.
        StoreFull: There is no room.
        StoreUnusable: The store cannot be written.
    """
    top = (folder or main_file.parent).absolute()
    main = _main(main_file.absolute(), top)
    files, warning, complete = _listing(top, main, tuple(suffixes))
    remembered = None if cache is None else _Remembered(cache, top, main.name, files)
    if remembered is not None and (known := remembered.digest()) is not None and store.confirm(known):
        return Package(known, main.name, 0, warning, complete)
    digest = store.put([_archive(files)])
    if remembered is not None:
        remembered.keep(digest)
    return Package(digest, main.name, len(files), warning, complete)


# --- which files -----------------------------------------------------------------------------------------


def _main(path: Path, top: Path) -> _File:
    name = path.relative_to(top).as_posix() if path.is_relative_to(top) else path.name
    if not _is_text(name):
        raise FileNameNotText(str(path))
    try:
        return _file(name, str(path), path.stat())
    except OSError as error:
        raise CodeUnreadable(str(path), error.strerror or str(error)) from error


def _file(name: str, path: str, status: os.stat_result) -> _File:
    return _File(name, path, status.st_size, status.st_mtime_ns, bool(status.st_mode & stat.S_IXUSR))


def _listing(top: Path, main: _File, suffixes: tuple[str, ...]) -> tuple[list[_File], str, bool]:
    """The files of the package, sorted by name, a warning, and whether they are all of them."""
    files = {main.name: main}
    size = main.size
    left_out: list[str] = []
    try:
        for file in _walk(top, suffixes, _ignored(top)):
            if file.name == main.name:
                continue
            if not _is_text(file.name):  # a zip cannot hold the name, nor an import statement
                left_out.append(file.path)
                continue
            files[file.name] = file
            size += file.size
            _check_bounds(len(files), size)
    except _TooLarge as error:
        why = (
            f"The code package holds {main.name} alone, because {top} is too large for one: {error}. Modules beside the flow are not in it. "
            f"Move the flow into a folder of its own, or name what does not belong to it in {IGNORE_FILE}."
        )
        return [main], why, False
    warning = ""
    if left_out:
        more = f" and {len(left_out) - 1:,} more" if len(left_out) > 1 else ""
        warning = f"The code package is without {min(left_out)!r}{more}: names in it must be UTF-8."
    return [files[name] for name in sorted(files)], warning, True


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_bounds(files: int, size: int) -> None:
    if files > MAX_FILES:
        raise _TooLarge(f"it has more than {MAX_FILES:,} files of code")
    if size > MAX_SIZE_BYTES:
        raise _TooLarge(f"its code has more than {MAX_SIZE_BYTES >> 20} MB")


def _walk(top: Path, suffixes: tuple[str, ...], ignored: "GitIgnoreSpec | None") -> Iterator[_File]:
    seen = 0
    pending: list[tuple[str, str, frozenset[tuple[int, int]]]] = [("", str(top), frozenset())]
    while pending:
        prefix, folder, above = pending.pop()
        try:
            with os.scandir(folder) as scan:
                entries: list[os.DirEntry[str]] = []
                for entry in scan:
                    seen += 1
                    if seen > MAX_SEEN:
                        raise _TooLarge(f"it has more than {MAX_SEEN:,} files and folders")
                    entries.append(entry)
            status = os.stat(folder)  # noqa: PTH116  thousands of these: a Path each would cost more than the call
        except OSError:
            continue  # not ours to read, or gone again: Python could not import from it either
        itself = (status.st_dev, status.st_ino)
        if itself in above:
            continue  # a link to a folder that it is in
        if prefix and any(entry.name == _ENVIRONMENT_MARK for entry in entries):
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir():
                if not (entry.name.startswith(".") or entry.name in _PASSED_OVER or _matches(ignored, name + "/")):
                    pending.append((name + "/", entry.path, above | {itself}))
            elif entry.name.endswith(suffixes) and entry.is_file() and not _matches(ignored, name):
                yield _file(name, entry.path, entry.stat())


def _matches(ignored: "GitIgnoreSpec | None", name: str) -> bool:
    return ignored is not None and ignored.match_file(name)


def _ignored(top: Path) -> "GitIgnoreSpec | None":
    path = top / IGNORE_FILE
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadIgnoreFile(path, str(error)) from error
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise BadIgnoreFile(path, str(error)) from error


# --- the archive -----------------------------------------------------------------------------------------


def _archive(files: Sequence[_File]) -> bytes:
    from zipfile import ZIP_STORED, ZipFile, ZipInfo

    target = BytesIO()
    with ZipFile(target, "w", ZIP_STORED) as archive:
        for file in files:
            info = ZipInfo(file.name, _FIXED_TIME)
            info.create_system = _CREATED_ON_UNIX
            info.external_attr = (stat.S_IFREG | (0o755 if file.runnable else 0o644)) << 16
            try:
                content = Path(file.path).read_bytes()
            except OSError as error:
                raise CodeUnreadable(file.path, error.strerror or str(error)) from error
            archive.writestr(info, content)
    return target.getvalue()


def extract(store: ObjectStore, digest: bytes, folder: Path) -> None:
    """Unpack a code package into a folder, which appears whole or not at all.

    Raises:
        FolderTaken: The folder has something in it.
        ObjectMissing: The store has no such object.
        ObjectDamaged: Its content is not what was written.
        BadPackage: It is no package, or names a file outside of the folder.
        CannotUnpack: The folder cannot be written.
    """
    from zipfile import BadZipFile, ZipFile

    where = store.where(digest)
    try:
        with ZipFile(BytesIO(store.get(digest))) as archive:
            members = [(_safe(member.filename, where), member.external_attr >> 16, archive.read(member)) for member in archive.infolist()]
    except BadZipFile as error:
        raise BadPackage(where, str(error)) from error
    try:
        _write(members, folder)
    except OSError as error:
        raise CannotUnpack(str(folder), error.strerror or str(error)) from error


def unpacked(store: ObjectStore, digest: bytes, cache: Path) -> Path:
    """A folder with the code of a package, below `cache`; unpacked when it is asked for the first time.

    Raises:
        ObjectMissing: The store has no such object.
        ObjectDamaged: Its content is not what was written.
        BadPackage: It is no package.
    """
    folder = cache / "code" / digest.hex()
    if not folder.is_dir():
        with suppress(FolderTaken):  # another process was faster, with the same content
            extract(store, digest, folder)
    return folder


def _safe(name: str, where: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise BadPackage(where, f"it names {name!r}")
    return path


def _write(members: Sequence[tuple[PurePosixPath, int, bytes]], folder: Path) -> None:
    import shutil

    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name[:40]}-{os.urandom(8).hex()}"
    draft.mkdir()
    try:
        for name, mode, content in members:
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if mode & stat.S_IXUSR:
                path.chmod(0o755)
        try:
            draft.rename(folder)  # takes the place of an empty folder too
        except OSError as error:
            if folder.exists():
                raise FolderTaken(folder) from error
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


# --- the cache -------------------------------------------------------------------------------------------


class _Remembered:
    """What the cache knows of a folder: one small file for each flow's file, `listing digest`."""

    def __init__(self, cache: Path, top: Path, main: str, files: Sequence[_File]) -> None:
        folder_name = hashlib.sha256(f"{top}\0{main}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._path = cache / "packages" / folder_name
        listing = "\n".join(f"{file.name}\0{file.size}\0{file.changed_ns}\0{file.runnable}" for file in files)
        self._listing = hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()
        self._changed_us = max(file.changed_ns for file in files) // 1_000

    def digest(self) -> Digest | None:
        """The package of exactly this listing, or None."""
        try:
            listing, _, digest = self._path.read_text("ascii").partition(" ")
            return Digest(bytes.fromhex(digest)) if listing == self._listing else None
        except (OSError, ValueError):
            return None  # not there, or not ours: it is made again

    def keep(self, digest: Digest) -> None:
        """Remember a package, unless a file is so young that it may change unseen."""
        if now_us() - self._changed_us < _SETTLED_AFTER_US:
            return
        draft = self._path.with_name(f".{self._path.name}-{os.urandom(4).hex()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(f"{self._listing} {digest.hex()}", "ascii")
            draft.replace(self._path)
        except OSError:
            return  # only the next start is slower
