"""Remove from a store what no kept run needs.

    cut off (now - grace) ──► find what is needed ──► remove what is older than the cut and not needed

What was written, or was there when somebody wanted to write it, after the cut is never touched; so whoever stores an object has the whole
grace to refer to it. A run that was forgotten is needed until the grace is over, too.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final, cast

import msgpack

from evflow.archives.reachable import Needed
from evflow.archives.users import StoreUser, users
from evflow.core.ids import Digest, FlowName, RunId, RunNumber
from evflow.core.values import entity
from evflow.errors import UsageError
from evflow.log.archived import LogKeeper
from evflow.store import NameMissing, Store
from evflow.store.together import each

DEFAULT_GRACE_S: Final = 86_400.0
LEAST_GRACE_S: Final = 3_600.0
"""A task writes its objects one after another, then reports: so long it may take at least."""
_LOGS: Final = "logs"
_CACHE: Final = "cache"


class StoreShared(UsageError):
    """Other logs use the store, and what they need is not known here."""

    code = "store-shared"

    def __init__(self, store: str, others: list[StoreUser]) -> None:
        named = ", ".join(f"{other.installation} ({other.log or 'unknown'} on {other.host or 'unknown'})" for other in others)
        super().__init__(
            f"Nothing was removed: the store '{store}' is used by {'another log' if len(others) == 1 else 'other logs'}, too: {named}. "
            "What runs there refer to is not known here.",
            f"Give each log a store of its own. Where such a log is gone for good: `evflow gc --retire {others[0].installation}`; "
            "the runs that it archived are kept.",
        )


@entity
class Collected:
    """What was removed, or would be.

    Attributes:
        objects: Objects.
        objects_bytes: Their size.
        files: Archives and printed output of runs that are gone.
        files_bytes: Their size.
        kept: Objects that stay because something refers to them.
        young: Objects that stay because they are younger than the grace.
        logs: Logs that were read to know it.
    """

    objects: int = 0
    objects_bytes: int = 0
    files: int = 0
    files_bytes: int = 0
    kept: int = 0
    young: int = 0
    logs: int = 0


def collect(
    log: LogKeeper,
    store: Store,
    *,
    grace_s: float = DEFAULT_GRACE_S,
    retired: Collection[str] = (),
    here: tuple[str, str] = ("", ""),
    dry_run: bool = False,
) -> Collected:
    """Remove what is not needed.

    Args:
        log: The log whose runs are kept; all of them, in whatever namespace.
        store: The store.
        grace_s: What is younger stays.
        retired: Installations that are gone for good.
        here: This log's address and this host, as in the notes in the store: such a note is from before the server lost its memory.
        dry_run: Remove nothing.

    Raises:
        StoreShared: Another log uses the store.
        CannotCollect: Something cannot be read; nothing was removed.
        LogUnavailable, StoreUnusable: Log or store cannot be used.
    """
    own = log.installation()
    others = [user for user in users(store) if user.installation not in (own, *retired) and (user.log, user.host) != here]
    if others:
        raise StoreShared(store.url, others)
    if not dry_run:
        store.sweep()
        store.settle_trash()
    # Before anything is looked at: what is stored from here on is younger.
    before_us = store.now_us() - round(grace_s * 1e6)
    needed = Needed(log, store, log.now_us() - round(grace_s * 1e6))
    with needed.marks:
        needed.find()
        found = Collected(logs=needed.logs)
        _objects(store, needed, before_us, found, dry_run=dry_run)
    _files(store, needed, before_us, found, dry_run=dry_run)
    collect_cache(store, own, before_us, found, dry_run=dry_run)
    return found


def _objects(store: Store, needed: Needed, before_us: int, found: Collected, *, dry_run: bool) -> None:
    def unneeded() -> Iterator[tuple[Digest, int]]:
        for digest, written_us, size in store.written():
            if digest in needed.marks:
                found.kept += 1
            elif written_us >= before_us:
                found.young += 1
            else:
                yield digest, size

    def freed(one: tuple[Digest, int]) -> int:
        return one[1] if dry_run else store.remove(one[0], before_us, listed=True)

    for (_, size), freed_bytes in each(store, freed, unneeded()):
        found.objects += bool(freed_bytes or not size)
        found.objects_bytes += freed_bytes


def _files(store: Store, needed: Needed, before_us: int, found: Collected, *, dry_run: bool) -> None:
    """Archives of forgotten runs, and what the tasks of runs printed that are in no index and no archive."""
    gone = list(needed.gone)
    for name, written_us in each(store, store.written_named, filter(partial(_is_strangers, needed), store.list_named(_LOGS))):
        if written_us is not None and written_us < before_us:
            gone.append(name)
    _remove_files(store, gone, found, dry_run=dry_run)


def _is_strangers(needed: Needed, name: str) -> bool:
    """Whether a name is one of printed output of a run that nobody knows."""
    parts = name.split("/")
    return len(parts) == 4 and parts[2].isdecimal() and RunId(FlowName(parts[1]), RunNumber(int(parts[2]))) not in needed.runs


def _remove_files(store: Store, names: Iterable[str], found: Collected, *, dry_run: bool) -> None:
    def freed(name: str) -> int:
        return (store.size_named(name) or 0) if dry_run else store.remove_named(name)

    for _, freed_bytes in each(store, freed, names):
        found.files += 1
        found.files_bytes += freed_bytes


def collect_cache(store: Store, installation: str, before_us: int, found: Collected, *, dry_run: bool) -> None:
    """What `@cached` can give no more: the entries whose manifest is gone. They need nothing, and what they name is kept by the runs that have it."""

    def is_useless(name: str) -> bool:
        written_us = store.written_named(name)
        if written_us is None or written_us >= before_us:
            return False
        with suppress(NameMissing, ValueError, msgpack.UnpackException):
            kept = msgpack.unpackb(store.read_named(name))
            manifest = cast("dict[str, bytes]", kept)["manifest"] if isinstance(kept, dict) and "manifest" in kept else b""
            if manifest and store.exists(manifest):
                return False
        return True

    names = store.list_named(f"{_CACHE}/{installation}")
    _remove_files(store, [name for name, useless in each(store, is_useless, names) if useless], found, dry_run=dry_run)
