"""Archives in stores: their names, and reading them.

    archives/<installation>/<Flow>/<run>          the log of a run
    archives/<installation>/<Flow>/<run>.<hex>    the same, where a log that went back made two runs of one number
    archives/<installation>/<Flow>/log/<segment>  a part of the flow's own log

An archive is opened once and stays open for a while: a log is read in chunks.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from evflow import config
from evflow.archives.format import Archive, Unsound
from evflow.core.ids import FlowName, RunNumber
from evflow.errors import EnvironmentProblem
from evflow.log.archived import Archived
from evflow.log.protocol import StoredEvent
from evflow.store import Store, open_store

FOLDER: Final = "archives"
OWN_LOG: Final = "log"
"""The folder of a flow's own log, which no run can have as its number."""
_KEPT_OPEN: Final = 8


class ArchiveMissing(EnvironmentProblem):
    """A log was archived, and the archive is not there."""

    code = "archive-missing"

    def __init__(self, what: str, place: str, digest: bytes) -> None:
        super().__init__(
            f"The log of '{what}' was archived to '{place}' (SHA-256 {digest.hex()}), and there is no such file.",
            "Restore it from a copy. Where the store is a folder of another machine, ask there; where it was moved, set EVFLOW_STORE.",
        )


class ArchiveDamaged(EnvironmentProblem):
    """An archive is not what was written."""

    code = "archive-damaged"

    def __init__(self, what: str, place: str, digest: bytes, why: str) -> None:
        super().__init__(
            f"The archive '{place}' of the log of '{what}' is not the one that was written (SHA-256 {digest.hex()}): {why}.",
            "Restore it from a copy: the file was changed, or its disk is failing.",
        )


def name_of(installation: str, flow: FlowName, run: RunNumber | int, chain: bytes = b"") -> str:
    """An archive's name; with a chain's digest the one for a number that is taken by another log."""
    return f"{FOLDER}/{installation}/{flow}/{run}{f'.{chain[:8].hex()}' if chain else ''}"


def segment_name(installation: str, flow: FlowName, segment: int) -> str:
    """The name of a part of a flow's own log."""
    return f"{FOLDER}/{installation}/{flow}/{OWN_LOG}/{segment}"


def number_in(name: str) -> RunNumber | None:
    """The run that an archive is of; None for anything else."""
    *_, above, last = name.split("/")
    number = last.partition(".")[0]
    return RunNumber(int(number)) if number.isdecimal() and above != OWN_LOG else None


def highest_number(store: Store, flow: FlowName) -> int:
    """The highest run number of a flow in any archive of a store, of whatever installation; 0 if it has none.

    Raises:
        StoreUnusable: The store cannot be read.
    """
    names = (name for installation in store.list_folders(FOLDER) for name in store.list_named(f"{FOLDER}/{installation}/{flow}"))
    return max((number_in(name) or 0 for name in names), default=0)


def open_in(store: Store, name: str) -> Archive | None:
    """An archive of a store; None where it has no file of that name.

    Raises:
        Unsound: It is no archive, or was changed.
        StoreUnusable: The store cannot be read.
    """
    size = store.size_named(name)
    return None if size is None else Archive(lambda offset, length: store.read_named(name, offset, length), size)


class ArchiveReader:
    """`evflow.log.archived.Archives`: reads archives in their stores, or, where a store was moved, in the configured one."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[str, str], Archive] = OrderedDict()

    def read(self, what: str, archived: Archived, after: int, limit: int) -> list[StoredEvent]:
        """See `Archives.read`."""
        archive, place = self._opened(what, archived)
        try:
            return archive.read(after, limit)
        except Unsound as error:
            raise ArchiveDamaged(what, place, archived.digest, str(error)) from error

    def about(self, what: str, archived: Archived) -> Mapping[str, Any]:
        """See `Archives.about`."""
        return self._opened(what, archived)[0].about

    def _opened(self, what: str, archived: Archived) -> tuple[Archive, str]:
        key = (archived.store, archived.name)
        place = open_store(archived.store).where_named(archived.name)
        found = self._open.get(key)
        if found is None:
            found = self._find(what, archived, place)
            self._open[key] = found
            if len(self._open) > _KEPT_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return found, place

    def _find(self, what: str, archived: Archived, place: str) -> Archive:
        for url in (archived.store, config.get("store")):
            try:
                found = open_in(open_store(url), archived.name)
            except Unsound as error:
                raise ArchiveDamaged(what, place, archived.digest, str(error)) from error
            if found is not None:
                if found.chain != archived.chain:
                    raise ArchiveDamaged(what, place, archived.digest, "it is the archive of another log")
                return found
        raise ArchiveMissing(what, place, archived.digest)
