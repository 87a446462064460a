"""Move a sealed run's log from the server to the store, and the old part of a flow's log.

    write ──► read back and compare ──► note it in the flow's log ──► when `hot_for` is over: remove it from the server

Each step can be repeated, by whoever comes next, after a death at any point; two who do it at once do it once. An archive is created and never
written over: one that is there already is read and compared as if it had been written now. What does not compare is never removed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from evflow.archives.format import Archive, BrokenChain, Encoder, Unsound
from evflow.archives.reading import ArchiveDamaged, name_of, open_in, segment_name
from evflow.collector import paused
from evflow.core import flow_events
from evflow.core.apply import ImpossibleEvent, apply
from evflow.core.chain import LINK_BYTES, START, extend, links
from evflow.core.codec import UnreadableEvent, decode
from evflow.core.events import RunSealed, RunStarted
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.state import RunState
from evflow.core.summary import summary
from evflow.core.values import value
from evflow.errors import Conflict, EnvironmentProblem
from evflow.log.archived import LINGER_S, SEGMENT_EVENTS, Archived, LogKeeper, pack
from evflow.log.keys import own_shard, shared_shard
from evflow.log.protocol import ArchiveChange, Head, RunEntry, StoredEvent
from evflow.store import NameTaken, Store, UnknownStore, open_store

KEPT_EVENTS: Final = 1_000
"""So many events at a flow's end are never archived: they are what people and schedulers ask for."""
_CHUNK: Final = 1_000
_MOST_TRIES: Final = 100
_PIECE_BYTES: Final = 1 << 20


class NotArchivable(EnvironmentProblem):
    """A run's log stays where it is; `why` says the reason in a word."""

    code = "not-archivable"

    def __init__(self, run: RunId, why: str, text: str, hint: str = "") -> None:
        super().__init__(f"'{run}' is not archived: {text}.", hint)
        self.why = why


@value
class Sealed:
    """A sealed run's log at the server.

    Attributes:
        run: The run.
        shard: Where it is.
        head: Its end.
        sealed_us: When it was sealed.
    """

    run: RunId
    shard: str
    head: Head
    sealed_us: int


class Archivist:
    """Archives logs and removes what is archived. Blocking.

    Args:
        log: The log.
        store: URL of the store that flows' own logs go to.
        principal: Who does it, as events say it.
        stores: Opens stores.
    """

    def __init__(self, log: LogKeeper, store: str, principal: str, stores: Callable[[str], Store] = open_store) -> None:
        self._log = log
        self._store = store
        self._principal = principal
        self._stores = stores
        self._installation = ""

    # --- runs ----------------------------------------------------------------------------------------------

    def sealed(self, run: RunId) -> Sealed | None:
        """The run's log at the server; None where it has none there.

        Raises:
            NotArchivable: It is not sealed (`not-over`).
        """
        entry = self._log.run(run)
        for shard in (entry.shard,) if entry is not None else (own_shard(run), shared_shard(run)):
            head = self._log.hot_head(shard, run)
            if head.seq:
                break
        else:
            return None
        if head.status != "sealed":
            raise NotArchivable(run, "not-over", "it is not over", f"`evflow explain {run}` says what it waits for.")
        last = self._log.hot_read(shard, run, head.seq - 1, 1)
        if not last:  # its end is remembered, its log is gone
            return None
        try:
            record = decode(last[0].seq, last[0].payload)
        except UnreadableEvent as error:
            raise _damaged(run, str(error)) from error
        if not isinstance(record.event, RunSealed):
            raise _damaged(run, "it does not end with its seal")
        return Sealed(run, shard, head, record.at_us)

    def archive(self, sealed: Sealed) -> Archived:
        """Write a sealed log to its run's store, see that it is there, and note it; nothing is removed.

        Raises:
            NotArchivable: The log is damaged (`damaged`), or the store of the run is not to be seen from here (`elsewhere`).
            StoreFull, StoreUnusable: The archive cannot be written.
            ArchiveDamaged: What was written cannot be read back.
            LogUnavailable: The server is away.
        """
        known = self._log.archived(sealed.run)
        if known is not None and (known.events, known.chain) == (sealed.head.seq, sealed.head.digest):
            return known
        store = self._store_of(sealed)
        archived = self._written(sealed, store)
        self._note(sealed.run, archived)
        return archived

    def planned(self, sealed: Sealed) -> Archived:
        """The archive that `archive` would make, but for its digest and size; errors as for `archive`."""
        name = name_of(self._identity(), sealed.run.flow, sealed.run.number)
        return Archived(self._store_of(sealed).url, name, b"", 0, sealed.head.seq, sealed.head.digest, sealed.sealed_us)

    def drop(self, sealed: Sealed, archived: Archived, linger_s: float = LINGER_S) -> bool:
        """Remove an archived log from the server, if it is the one that was archived; answers whether it is gone.

        Raises:
            ArchiveDamaged, ArchiveMissing: The archive is not there any more as it was written: the log stays.
        """
        self._verify(str(sealed.run), self._stores(archived.store), archived.name, archived.head)
        if not self._log.drop_run(sealed.shard, sealed.run, archived.head, linger_s):
            return False
        self._log.look_again(sealed.run, None)
        return True

    def _store_of(self, sealed: Sealed) -> Store:
        """The run's store, if it is to be seen from here: it has what the run began with."""
        run = sealed.run
        first = self._log.hot_read(sealed.shard, run, 0, 1)
        try:
            started = decode(1, first[0].payload).event if first else None
        except UnreadableEvent as error:
            raise _damaged(run, str(error)) from error
        if not isinstance(started, RunStarted):
            raise _damaged(run, "it does not begin as a run does")
        url = started.store or self._store
        try:
            store = self._stores(url)
        except UnknownStore as error:
            raise NotArchivable(run, "elsewhere", f"this version of evflow cannot use its store, '{url}'") from error
        if not store.exists(started.parameters):
            text = f"its store, '{url}', is not to be seen from this machine, or lost the run's parameters; it ran on {started.host or '?'}"
            raise NotArchivable(run, "elsewhere", text, "Run `evflow archive` there, or let all machines share a store (EVFLOW_STORE).")
        return store

    def _written(self, sealed: Sealed, store: Store) -> Archived:
        """Write an archive, or find that it is written; read it back."""
        run, head = sealed.run, sealed.head
        usual = name_of(self._identity(), run.flow, run.number)
        for name in (usual, name_of(self._identity(), run.flow, run.number, head.digest)):
            encoder = Encoder(self._events(sealed), lambda: self._about(sealed))
            try:
                store.write_named(name, encoder, create_only=True)
            except NameTaken:
                found = self._sound(store, name)
                if found is None or (found.events, found.chain) != (head.seq, head.digest):
                    continue  # a log that went back: two runs had this number
            except BrokenChain as error:
                raise _damaged(run, str(error)) from error
            else:
                if (encoder.seq, encoder.chain) != (head.seq, head.digest):
                    store.remove_named(name)  # nobody refers to it yet
                    raise _damaged(run, f"it ends at event {encoder.seq} and should at {head.seq}")
            digest, size = self._verify(str(run), store, name, head)
            return Archived(store.url, name, digest, size, head.seq, head.digest, sealed.sealed_us)
        raise ArchiveDamaged(str(run), store.where_named(usual), head.digest, "something else stands there")

    def _sound(self, store: Store, name: str) -> Archive | None:
        try:
            return open_in(store, name)
        except Unsound:
            return None

    def _events(self, sealed: Sealed) -> Iterator[StoredEvent]:
        after = 0
        while chunk := self._log.hot_read(sealed.shard, sealed.run, after, _CHUNK):
            yield from chunk
            after = chunk[-1].seq

    def _about(self, sealed: Sealed) -> Mapping[str, Any]:
        run = sealed.run
        tags = self._log.tags(run)
        return {
            "kind": "run",
            "run": str(run),
            "installation": self._identity(),
            "shard": sealed.shard,
            "status": sealed.head.status,
            "sealed_us": sealed.sealed_us,
            "dropped": self._log.dropped(sealed.shard, run),
            "summary": self._line(sealed),
            "tags": None if tags is None else list(tags),
        }

    def _line(self, sealed: Sealed) -> dict[str, Any]:
        """The run's line in the index; written now where its owner died before it said that the run is over."""
        run = sealed.run
        entry = self._log.run(run)
        if entry is not None and entry.summary.get("finished_us"):
            return entry.summary
        state = RunState()
        try:
            with paused():
                for seq, payload, _ in self._events(sealed):
                    apply(state, decode(seq, payload))
        except (UnreadableEvent, ImpossibleEvent) as error:
            raise _damaged(run, error.message) from error
        line = summary(state)
        self._log.list_run(RunEntry(run, sealed.shard, line), only_missing=False)
        return line

    def _verify(self, what: str, store: Store, name: str, head: Head) -> tuple[bytes, int]:
        """Read an archive back, every byte of it; its digest and size.

        Raises:
            ArchiveDamaged: It is not the log that ends at this head.
        """
        place = store.where_named(name)
        try:
            archive = open_in(store, name)
            if archive is None:
                raise ArchiveDamaged(what, place, head.digest, "it is not there")
            archive.verify()
        except Unsound as error:
            raise ArchiveDamaged(what, place, head.digest, str(error)) from error
        if (archive.events, archive.chain) != (head.seq, head.digest):
            raise ArchiveDamaged(what, place, head.digest, "it is the archive of another log")
        return digest_of(store, name)

    def _note(self, run: RunId, archived: Archived) -> None:
        for _ in range(_MOST_TRIES):
            expected = self._log.flow_seq(run.flow)
            if self._log.archived(run) == archived:  # somebody else was faster, or we were and the answer was lost
                return
            payload = flow_events.encode(archived.of_run(run.number), at_us=self._log.now_us(), principal=self._principal)
            try:
                self._log.append_flow(run.flow, expected, payload, ArchiveChange(run, pack(archived)))
            except Conflict:
                continue
            return
        raise FlowLogBusy(run.flow)

    def _identity(self) -> str:
        if not self._installation:
            self._installation = self._log.installation()
        return self._installation

    # --- a flow's own log ----------------------------------------------------------------------------------

    def trim(self, flow: FlowName) -> int:
        """Move whole segments of a flow's log to the store, but for the newest events; answers how many.

        Raises:
            StoreFull, StoreUnusable: They cannot be written.
            ArchiveDamaged: What was written cannot be read back.
        """
        end = self._log.flow_seq(flow)
        done = 0
        segments = self._log.segments(flow)
        number = max(segments, default=-1) + 1
        while (number + 1) * SEGMENT_EVENTS + KEPT_EVENTS <= end:
            self._trim_one(flow, number)
            number, done = number + 1, done + 1
        return done

    def _trim_one(self, flow: FlowName, number: int) -> None:
        store = self._stores(self._store)
        name, begin = segment_name(self._identity(), flow, number), number * SEGMENT_EVENTS
        events = list(self._segment(flow, begin))
        if len(events) != SEGMENT_EVENTS:
            text = f"{len(events)} of {SEGMENT_EVENTS} events behind event {begin} are there"
            raise NotArchivable(RunId(flow, RunNumber(0)), "damaged", text)
        about = {"kind": "flow", "flow": flow, "installation": self._identity(), "first": begin + 1}
        head = Head(len(events), _chain(events), "sealed")
        with suppress(NameTaken):  # written by somebody who died before the note
            store.write_named(name, Encoder(events, lambda: about), create_only=True)
        digest, size = self._verify(f"{flow}'s own log", store, name, head)
        self._log.trim_flow(flow, number, Archived(store.url, name, digest, size, head.seq, head.digest))

    def _segment(self, flow: FlowName, begin: int) -> Iterator[StoredEvent]:
        chain = START
        for seq, (_, payload) in enumerate(self._log.flow_events(flow, begin, SEGMENT_EVENTS), 1):
            chain = extend(chain, payload)
            yield StoredEvent(seq, payload, chain[:LINK_BYTES])


class FlowLogBusy(EnvironmentProblem):
    """Every try to append to a flow's log lost to another writer."""

    code = "flow-log-busy"

    def __init__(self, flow: str) -> None:
        super().__init__(f"The log of flow '{flow}' changes faster than it can be read.", "Try again later.")


def _chain(events: Sequence[StoredEvent]) -> bytes:
    return links(START, [event.payload for event in events])[-1]


def digest_of(store: Store, name: str) -> tuple[bytes, int]:
    """SHA-256 and size of a named file, read a piece at a time."""
    from hashlib import sha256

    sha, size = sha256(), 0
    while piece := store.read_named(name, size, _PIECE_BYTES):
        sha.update(piece)
        size += len(piece)
    return sha.digest(), size


def _damaged(run: RunId, why: str) -> NotArchivable:
    return NotArchivable(run, "damaged", f"its log at the server is damaged: {why}", f"`evflow replay {run} --verify` looks at it.")
