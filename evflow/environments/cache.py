"""The environments of a machine: a folder each, below `EVFLOW_HOME/environments`, named by the digest of its lock.

    <name>/            the environment; whole once `ready.json` is in it
    <name>/ready.json  what it is, written last and at once; its time is that of the last use
    <name>/lock.json   what it was built from
    <name>.lock        a file to lock: whoever builds or removes holds it alone, whoever uses the environment shares it
    support/           what evflow needs in them (`evflow.environments.support`)
    resolved/          what was resolved, by what was asked for

An environment is built in its place, since its files name that place; so a rename cannot be what makes it whole. The kernel
gives a lock back when its holder dies: a builder that was killed leaves a folder without `ready.json`, which the next one
removes.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

from evflow.clock import now_us
from evflow.core.values import value
from evflow.environments.spec import Lock

READY: Final = "ready.json"
LOCK: Final = "lock.json"


@value
class Built:
    """An environment that is whole.

    Attributes:
        name: Of its folder.
        kind: `pypi` or `conda`.
        python: Its interpreter.
        version: The interpreter's version.
        abi: What binaries of it are for.
        packages: How many it has.
        size_bytes: Of its files, those that it shares with the tool's cache included.
        built_us: When it was built.
        took_us: How long that took.
        installed: What is in it, as `name==version` or `name-version-build` of conda, sorted.
    """

    name: str
    kind: str
    python: str
    version: str
    abi: str
    packages: int = 0
    size_bytes: int = 0
    built_us: int = 0
    took_us: int = 0
    installed: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {field: getattr(self, field) for field in self.__match_args__}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_plain`; fields of later versions are dropped."""
        known: dict[str, Any] = {field: plain[field] for field in cls.__match_args__ if field in plain}
        known["installed"] = tuple(known.get("installed", ()))
        return cls(**known)


class Cache:
    """The environments below a home."""

    def __init__(self, home: Path) -> None:
        self.root = home / "environments"

    def folder(self, name: str) -> Path:
        """Where an environment is, or is to be."""
        return self.root / name

    def ready(self, name: str) -> Built | None:
        """The environment of a name, where it is whole and its interpreter is still there."""
        try:
            built = Built.from_plain(json.loads((self.folder(name) / READY).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return built if os.path.exists(built.python) else None  # noqa: PTH110 - a link whose target is gone is none

    def used(self, name: str) -> None:
        """Note that it is used now."""
        with suppress(OSError):
            os.utime(self.folder(name) / READY)

    def last_use_s(self, name: str) -> float:
        """When it was used last, in seconds since the epoch; 0 where that is not known."""
        try:
            return (self.folder(name) / READY).stat().st_mtime
        except OSError:
            return 0.0

    def finish(self, built: Built, lock: Lock) -> None:
        """Make an environment whole."""
        folder = self.folder(built.name)
        (folder / LOCK).write_bytes(lock.to_bytes())
        part = folder / f"{READY}.part"
        with part.open("w", encoding="utf-8") as file:
            json.dump(built.to_plain(), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / READY)

    def clear(self, name: str) -> None:
        """Remove what is there of an environment; the caller holds its lock alone."""
        folder = self.folder(name)
        (folder / READY).unlink(missing_ok=True)  # first: what is half removed is not whole
        if folder.exists():
            shutil.rmtree(folder)

    def names(self) -> list[str]:
        """The environments that are whole."""
        return sorted(folder.parent.name for folder in self.root.glob(f"*/{READY}"))

    def lock_of(self, name: str) -> Lock | None:
        """What an environment was built from."""
        try:
            return Lock.from_bytes((self.folder(name) / LOCK).read_bytes())
        except (OSError, ValueError):
            return None

    def leftovers(self) -> list[str]:
        """Folders of environments that are not whole."""
        found = (folder for folder in self.root.glob("*/") if folder.name not in {"support", "resolved"})
        return sorted(folder.name for folder in found if not (folder / READY).exists())

    def resolutions(self) -> list[Path]:
        """The files of what was resolved."""
        return sorted((self.root / "resolved").glob("*.json"))

    # --- locks ---------------------------------------------------------------------------------------------

    @contextmanager
    def alone(self, name: str) -> Generator[None]:
        """Hold an environment alone, however long others have it."""
        descriptor = self._open(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.set_inheritable(
                descriptor, True
            )  # a tool that outlives a killed builder works on in the folder: nobody else does before its end
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def alone_or_not(self, name: str) -> Generator[bool]:
        """Hold an environment alone, if nobody has it; whether that is so."""
        descriptor = self._open(name)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def share(self, name: str) -> int | None:
        """Have an environment, so that nobody removes it: a descriptor, which its holder closes; None where it is not to be had now."""
        descriptor = self._open(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if self.ready(name) is None:
            os.close(descriptor)
            return None
        self.used(name)
        return descriptor

    def _open(self, name: str) -> int:
        self.root.mkdir(parents=True, exist_ok=True)
        return os.open(self.root / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    # --- what is too much ----------------------------------------------------------------------------------

    def prune(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Remove environments; those that somebody uses stay.

        Returns:
            What was removed, and what stayed.
        """
        removed: list[str] = []
        stayed: list[str] = []
        for name in names:
            with self.alone_or_not(name) as free:
                if free:
                    self.clear(name)
                (removed if free else stayed).append(name)
        return removed, stayed

    def surplus(self, *, max_bytes: int | None = None, unused_s: float | None = None) -> list[str]:
        """The environments beyond a size, all together, or unused for a time; those that were used last stay."""
        sizes = {name: built.size_bytes for name in self.names() if (built := self.ready(name)) is not None}
        found = [name for name in self.names() if name not in sizes]
        total, now_s = 0, now_us() / 1e6
        for name in sorted(sizes, key=self.last_use_s, reverse=True):
            total += sizes[name]
            too_old = unused_s is not None and now_s - self.last_use_s(name) > unused_s
            if too_old or (max_bytes is not None and total > max_bytes):
                found.append(name)
        return found
