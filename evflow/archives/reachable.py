"""What is needed of a store: every object that a run, a report on its way, an event or a deployment refers to, at whatever distance.

Digests are found by their looks: every value of 32 bytes in an event counts as one, so that a new kind of event is never forgotten here. What
is no digest names no object, and costs nothing. Manifests are read, since they name objects and other manifests; what cannot be read stops
everything, because nobody knows what it would have named.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Set as AbstractSet
from typing import Any, Final, Self

import msgpack

from evflow.archives.format import Archive, Unsound
from evflow.archives.reading import FOLDER, number_in, open_in
from evflow.core import flow_events
from evflow.core.codec import UnreadableEvent, decode
from evflow.core.flow_events import RunForgotten, RunRequested
from evflow.core.ids import Digest, FlowName, RunId, RunNumber
from evflow.core.summary import OVER
from evflow.errors import EnvironmentProblem, EvflowError
from evflow.log.archived import LogKeeper
from evflow.log.errors import LogUnavailable
from evflow.log.keys import shared_shards
from evflow.log.protocol import RunEntry, StoredEvent
from evflow.store import ObjectDamaged, ObjectMissing, Store
from evflow.store.manifests import NotAManifest, read_manifest
from evflow.store.together import each

_CHUNK: Final = 5_000
_TOGETHER: Final = 1_000
"""Digests that are looked at together: bounded memory, and enough that a far store is never idle."""
_LAST_REQUESTS: Final = 1_000
"""As many events as `evflow.deployments.unconfirmed` looks at."""
_DIGEST_BYTES: Final = 32
_MANIFEST: Final = b"evfm"
_OF_MANIFESTS: Final = ("manifest", "parameters")


class CannotCollect(EnvironmentProblem):
    """It is not known what is needed; so nothing was removed."""

    code = "cannot-collect"

    def __init__(self, what: str, why: str, hint: str) -> None:
        super().__init__(f"Nothing was removed: {what} cannot be read, and what it refers to is not known. {why}", hint)


class Marks:
    """A set of digests that may have more members than memory has room for: a private temporary file behind a cache."""

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None)  # removed by sqlite when it is closed, or its process ends
        self._file.execute("PRAGMA journal_mode=OFF")
        self._file.execute("PRAGMA synchronous=OFF")
        self._file.execute("PRAGMA cache_size=-65536")
        self._file.execute("CREATE TABLE marks (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._file.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, digest: bytes) -> bool:
        """Add a digest; answers whether it was new."""
        return self._file.execute("INSERT OR IGNORE INTO marks VALUES (?)", (digest,)).rowcount == 1

    def __contains__(self, digest: object) -> bool:
        return self._file.execute("SELECT 1 FROM marks WHERE digest = ?", (digest,)).fetchone() is not None

    def __len__(self) -> int:
        return int(self._file.execute("SELECT COUNT(*) FROM marks").fetchone()[0])


class Needed:
    """What is needed of a store.

    Args:
        log: The log whose runs are kept.
        store: The store.
        forgotten_before_us: Runs that were forgotten later than this are needed still.

    Attributes:
        marks: The objects.
        runs: The runs whose printed output is needed.
        gone: Names of the archives of runs that were forgotten.
        logs: How many logs were read.
    """

    def __init__(self, log: LogKeeper, store: Store, forgotten_before_us: int) -> None:
        self._log = log
        self._store = store
        self._before_us = forgotten_before_us
        self._waiting: dict[bytes, str] = {}  # marked and not looked at yet, each with what refers to it
        self._absent: set[bytes] = set()
        self._wanted: dict[bytes, RunId] = {}  # manifests of runs, which have to be there
        self.marks = Marks()
        self.runs: set[RunId] = set()
        self.gone: list[str] = []
        self.logs = 0

    def find(self) -> None:
        """Look at every run, archive, report and deployment.

        Raises:
            CannotCollect: Something cannot be read.
            LogUnavailable, StoreUnusable: Log or store cannot be used.
        """
        flows = self._log.flows()
        noted: set[str] = set()
        for flow in flows:
            for packed in self._log.deployments(flow).values():
                self._deployment(flow, packed)
            entries = self._log.runs(flow)
            noted |= {archived.name for archived in self._log.all_archived(flow).values()}
            for entry in entries:
                self.runs.add(entry.run)
                self._run(entry)
            self._requests(flow, {entry.run.number for entry in entries if not entry.is_requested})
        for shard in shared_shards():
            self._inbox(shard)
        self._published()
        self._archives(noted, {flow: self._forgotten(flow) for flow in flows})
        self._look()

    # --- what refers to objects ----------------------------------------------------------------------------

    def _run(self, entry: RunEntry) -> None:
        self.logs += 1
        try:
            seen = self._events(entry.run, self._stored(entry))
        except (CannotCollect, LogUnavailable):
            raise
        except (UnreadableEvent, EnvironmentProblem) as error:
            raise _run_unreadable(entry.run, error.message) from error
        if not seen and entry.summary.get("started_us") and self._log.run(entry.run) is not None:  # else it was forgotten meanwhile
            raise _run_unreadable(entry.run, "Its log is neither at the server nor in an archive.")
        if entry.summary.get("status") not in OVER:
            self._inbox(entry.shard)

    def _stored(self, entry: RunEntry) -> Iterator[StoredEvent]:
        after = 0
        while chunk := self._log.read(entry.shard, entry.run, after, _CHUNK):
            yield from chunk
            after = chunk[-1].seq

    def _events(self, run: RunId, events: Iterable[StoredEvent]) -> int:
        """Mark what events refer to; answers how many they were."""
        at_home, seq = False, 0
        for seq, payload, _ in events:
            event = decode(seq, payload).event
            if seq == 1:
                at_home = self._is_ours(getattr(event, "store", ""))
            if at_home:
                for name in _OF_MANIFESTS:
                    digest = getattr(event, name, None)
                    if isinstance(digest, bytes):
                        self._wanted.setdefault(digest, run)
            self._mark(_digests(msgpack.unpackb(payload, use_list=False, strict_map_key=False)), f"an object of '{run}'")
        return seq

    def _is_ours(self, url: str) -> bool:
        from evflow.store import UnknownStore, open_store

        try:
            return open_store(url).url == self._store.url
        except UnknownStore:
            return False

    def _requests(self, flow: FlowName, begun: AbstractSet[int]) -> None:
        """Requests whose offers may still be made: see `evflow.deployments.unconfirmed`."""
        end = self._log.flow_seq(flow)
        for seq, payload in self._log.flow_events(flow, max(0, end - _LAST_REQUESTS), _LAST_REQUESTS):
            try:
                event = flow_events.decode(seq, payload).event
            except UnreadableEvent:
                continue  # it names nothing that could be offered
            if isinstance(event, RunRequested) and event.number not in begun:
                self._mark(_digests(event.offer), f"a request for '{flow}/{event.number}'")

    def _inbox(self, shard: str) -> None:
        """Reports that nobody took yet; what is no report names nothing."""
        after = b"0"
        while entries := self._log.inbox(shard, after):
            for entry in entries:
                try:
                    report = msgpack.unpackb(entry.payload, use_list=False, strict_map_key=False)
                except (ValueError, msgpack.UnpackException):
                    continue
                self._mark(_digests(report), f"a report for '{entry.run}'")
            after = entries[-1].id

    def _published(self) -> None:
        """Events that triggers may still hear: a large payload lies in the store."""
        after_us = 0
        while events := self._log.published(after_us):
            for event in events:
                try:
                    body = msgpack.unpackb(event.body, use_list=False, strict_map_key=False)
                except (ValueError, msgpack.UnpackException):
                    continue  # nobody can hear it
                self._mark(_digests(body), f"the event '{event.id}'")
            after_us = events[-1].at_us

    def _deployment(self, flow: FlowName, packed: bytes) -> None:
        """What is deployed, and what its manifest names."""
        for digest in _digests(msgpack.unpackb(packed, use_list=False, strict_map_key=False)):
            self._mark([digest], f"a deployment of '{flow}'")
            if self._store.exists(digest):
                try:
                    self._mark(_digests(msgpack.unpackb(self._store.get(digest), strict_map_key=False)), f"a deployment of '{flow}'")
                except (ValueError, TypeError, msgpack.UnpackException):
                    continue  # the code package, which names nothing

    def _forgotten(self, flow: FlowName) -> dict[RunNumber, int]:
        found: dict[RunNumber, int] = {}
        after = 0
        while chunk := self._log.flow_events(flow, after, _CHUNK):
            for seq, payload in chunk:
                try:
                    record = flow_events.decode(seq, payload)
                except UnreadableEvent as error:
                    hint = f"`evflow reindex --flow {flow}` says what else cannot be read."
                    raise CannotCollect(f"event {seq} of the log of '{flow}'", error.message, hint) from error
                if isinstance(record.event, RunForgotten):
                    found[RunNumber(record.event.number)] = record.at_us
            after = chunk[-1].seq
        return found

    def _archives(self, noted: set[str], forgotten: dict[FlowName, dict[RunNumber, int]]) -> None:
        """Archives that no run in the index has: of runs that were forgotten, and of those that the index does not know (yet)."""
        here = f"{FOLDER}/{self._log.installation()}/"
        for name in self._store.list_named(FOLDER):
            number, parts = number_in(name), name.split("/")
            if number is None or len(parts) != 4 or name in noted:
                continue
            run = RunId(FlowName(parts[2]), number)
            forgotten_us = forgotten.get(run.flow, {}).get(number) if name.startswith(here) else None
            if forgotten_us is not None and forgotten_us < self._before_us:
                self.gone.append(name)
                continue
            self.logs += 1
            self.runs.add(run)
            try:
                archive: Archive | None = open_in(self._store, name)
                if archive is not None:
                    self._events(run, archive.all())
            except (Unsound, UnreadableEvent) as error:
                what = f"the archive '{self._store.where_named(name)}'"
                raise CannotCollect(what, str(error), "Restore it, or remove the file where it is not needed any more.") from error

    # --- marking -------------------------------------------------------------------------------------------

    def _mark(self, digests: Iterable[bytes], what: str) -> None:
        self._waiting.update((digest, what) for digest in digests if self.marks.add(digest))
        if len(self._waiting) >= _TOGETHER:
            self._look()

    def _look(self) -> None:
        """Look at what was marked, at what that names, and so on; then whether what has to be there is.

        Many at once: a store that is far away takes as long for one as for thirty.
        """
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            manifests = (one for one, begins in each(self._store, self._begins_like_a_manifest, waiting.items()) if begins)
            for (_, what), named in each(self._store, self._named_by, manifests):
                self._waiting.update((digest, what) for digest in named if self.marks.add(digest))
        for digest, run in self._wanted.items():
            if digest in self._absent:
                raise _run_unreadable(run, ObjectMissing(digest, self._store.where(digest)).message)
        self._wanted.clear()

    def _begins_like_a_manifest(self, marked: tuple[bytes, str]) -> bool:
        digest, _ = marked
        try:
            return bytes(self._store.get(digest, 0, len(_MANIFEST))) == _MANIFEST
        except ObjectMissing:
            self._absent.add(digest)
        except ObjectDamaged:  # it is shorter than that
            pass
        return False

    def _named_by(self, marked: tuple[bytes, str]) -> list[Digest]:
        """The objects that a manifest names."""
        digest, what = marked
        try:
            manifest = read_manifest(self._store, digest)
        except (NotAManifest, ObjectMissing):
            return []  # an object that only begins like one, or that went away
        except EvflowError as error:
            hint = "Restore the object from a copy, or forget the run that it belongs to: `evflow forget RUN`."
            raise CannotCollect(what, error.message, hint) from error
        return [*manifest.objects(), *([manifest.base] if manifest.base is not None else [])]


def _run_unreadable(run: RunId, why: str) -> CannotCollect:
    return CannotCollect(f"run '{run}'", why, f"Restore what is missing, or let the run go: `evflow forget {run}`.")


def _digests(plain: Any) -> Iterator[bytes]:
    """All values in a decoded event that look like a digest."""
    whole: Any = plain  # The type checkers do not agree on what is known of a narrowed Any.
    if isinstance(plain, bytes):
        if len(plain) == _DIGEST_BYTES:
            yield plain
    elif isinstance(plain, dict | list | tuple):
        for item in whole:
            yield from _digests(item)
        if isinstance(plain, dict):
            for item in whole.values():
                yield from _digests(item)
