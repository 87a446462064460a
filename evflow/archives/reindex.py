"""Rebuild what is kept beside the logs: the index of runs, tags, deployments, backfills, the notes of archives, what is due.

The logs and the archives are the truth. Which runs there are is said by the flow's own log (`RunRequested`), by the archives in the store, and by
the index as it is; each run's line then follows from its log. Safe beside everything that lives: a line of a run that goes on is written only
where none is, and what the flow's log makes of tags, deployments and backfills only while that log ends where it was folded.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from evflow.archives.archiving import FlowLogBusy, digest_of
from evflow.archives.format import Archive, Unsound
from evflow.archives.reading import FOLDER, number_in, open_in
from evflow.collector import paused
from evflow.core import backfill, flow_events
from evflow.core.apply import ImpossibleEvent, apply
from evflow.core.codec import UnreadableEvent, decode
from evflow.core.deployments import Deployments, pack
from evflow.core.flow_events import RunForgotten, RunGivenUp, RunRefused, RunRequested, RunTagged
from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.core.state import RunState
from evflow.core.summary import GIVEN_UP, GONE, REFUSED, summary
from evflow.core.values import entity, field
from evflow.errors import Conflict, EvflowError
from evflow.log.archived import Archived, LogKeeper, Projection
from evflow.log.keys import own_shard, shared_shard
from evflow.log.protocol import REQUESTED, RunEntry
from evflow.store import Store

_CHUNK: Final = 5_000
_MOST_TRIES: Final = 20


@entity
class FlowFindings:
    """What was found of a flow, and what was changed.

    Attributes:
        flow: The flow.
        at_server: Runs whose log is at the server.
        archived: Runs whose log is only in an archive.
        empty: Numbers that were taken and whose runs have no event.
        lost: Runs in the index whose log is nowhere; their lines stay.
        added: Lines that were missing.
        corrected: Lines that said something else than the log.
        archives: Archives that nobody had noted.
        tags: Runs whose tags were other ones.
        deployments: Deployments that were other ones, or were missing, or are none any more.
        backfills: Backfills that were other ones, or were missing, by number.
        counter: The run counter was too low.
        unreadable: What could not be read, in words.
    """

    flow: str
    at_server: int = 0
    archived: int = 0
    empty: int = 0
    lost: int = 0
    added: int = 0
    corrected: int = 0
    archives: int = 0
    tags: int = 0
    deployments: list[str] = field(default_factory=list[str])
    backfills: list[int] = field(default_factory=list[int])
    counter: bool = False
    unreadable: list[str] = field(default_factory=list[str])

    @property
    def changed(self) -> bool:
        """Something was not as the logs say."""
        return bool(self.added or self.corrected or self.archives or self.tags or self.deployments or self.backfills or self.counter)


@entity
class _Own:
    """What a flow's own log says."""

    seq: Seq = Seq(0)
    requested: dict[RunNumber, flow_events.FlowRecord] = field(default_factory=dict[RunNumber, flow_events.FlowRecord])
    tags: dict[RunNumber, tuple[str, ...]] = field(default_factory=dict[RunNumber, tuple[str, ...]])
    gone: dict[RunNumber, tuple[str, str]] = field(default_factory=dict[RunNumber, tuple[str, str]])
    forgotten: set[RunNumber] = field(default_factory=set[RunNumber])
    deployments: Deployments = field(default_factory=Deployments)
    plans: list[flow_events.FlowRecord] = field(default_factory=list[flow_events.FlowRecord])


def reindex(log: LogKeeper, stores: Iterable[Store], only: FlowName | None = None, *, dry_run: bool = False) -> Iterable[FlowFindings]:
    """Rebuild the index of a flow, or of all; gives what was found of each flow, as it goes.

    Args:
        log: The log.
        stores: Where archives may be.
        only: The flow.
        dry_run: Change nothing.

    Raises:
        StoreUnusable: A store cannot be read.
        LogUnavailable: The server is away.
        FlowLogBusy: A flow's own log changes faster than it can be folded.
    """
    archives = _archives(stores)
    for flow in sorted({*log.flows(), *archives} if only is None else {only}):
        yield _Flow(log, flow, archives.get(flow, {}), dry_run=dry_run).rebuild()


def _archives(stores: Iterable[Store]) -> dict[FlowName, dict[RunNumber, list[tuple[Store, str]]]]:
    """The archives of runs in the stores, by flow and number."""
    found: dict[FlowName, dict[RunNumber, list[tuple[Store, str]]]] = {}
    for store in stores:
        for name in store.list_named(FOLDER):
            number, parts = number_in(name), name.split("/")
            if number is not None and len(parts) == 4:
                found.setdefault(FlowName(parts[2]), {}).setdefault(number, []).append((store, name))
    return found


class _Flow:
    """The index of one flow, being rebuilt."""

    def __init__(self, log: LogKeeper, flow: FlowName, archives: dict[RunNumber, list[tuple[Store, str]]], *, dry_run: bool) -> None:
        self._log = log
        self._flow = flow
        self._archives = archives
        self._write = not dry_run
        self._found = FlowFindings(flow)
        self._notes: dict[RunNumber, Archived] = {}
        self._found_archives: dict[RunNumber, Mapping[str, Any]] = {}

    def rebuild(self) -> FlowFindings:
        """Look at everything; write what is not as it should be."""
        log, flow = self._log, self._flow
        own = self._fold()
        lines = {entry.run.number: entry for entry in log.runs(flow)}
        noted = log.all_archived(flow)
        tags_of_archives: dict[RunNumber, tuple[str, ...]] = {}
        numbers = {*own.requested, *own.gone, *lines, *noted, *self._archives} - own.forgotten
        self._note_found({number: self._archives[number] for number in numbers & self._archives.keys() - noted.keys()}, tags_of_archives)
        for number in sorted(numbers):
            self._run(RunId(flow, number), lines.get(number), own.requested.get(number), own.gone.get(number))
        self._project(tags_of_archives, max(numbers, default=0))
        return self._found

    # --- the flow's own log --------------------------------------------------------------------------------

    def _fold(self) -> _Own:
        own = _Own()
        while chunk := self._log.flow_events(self._flow, own.seq, _CHUNK):
            for seq, payload in chunk:
                own.seq = Seq(seq)
                try:
                    record = flow_events.decode(seq, payload)
                except UnreadableEvent as error:
                    self._found.unreadable.append(f"event {seq} of the log of '{self._flow}': {error.message}")
                    continue
                _fold_one(own, record)
        return own

    def _project(self, tags_of_archives: dict[RunNumber, tuple[str, ...]], highest: int) -> None:
        """Compare what the flow's log makes of tags and deployments with what is there; written for exactly that log."""
        for _ in range(_MOST_TRIES):
            own = self._fold()
            known_tags, known = self._log.all_tags(self._flow), self._log.deployments(self._flow)
            wanted = {number: tags for number, tags in {**tags_of_archives, **own.tags}.items() if number not in own.forgotten}
            tags = {number: of_run for number, of_run in wanted.items() if known_tags.get(number) != of_run}
            packed = {name: pack(deployment) for name, deployment in own.deployments.current.items()}
            changed = {name: packed.get(name, b"") for name in {*packed, *known} if packed.get(name) != known.get(name)}
            planned = {number: backfill.pack(plan) for number, plan in backfill.fold(own.plans).items()}
            known_plans = self._log.backfills(self._flow)
            plans = {number: plan for number, plan in planned.items() if known_plans.get(number) != plan}
            self._found.tags, self._found.deployments, self._found.backfills = len(tags), sorted(changed), sorted(plans)
            self._found.counter = self._log.counter(self._flow) < highest
            if not (self._write and (tags or changed or plans or self._found.counter)):
                return
            try:
                self._log.project(self._flow, own.seq, Projection(highest, tags, changed, plans))
            except Conflict:
                continue
            return
        raise FlowLogBusy(self._flow)

    # --- archives ------------------------------------------------------------------------------------------

    def _note_found(self, found: dict[RunNumber, list[tuple[Store, str]]], tags_of_archives: dict[RunNumber, tuple[str, ...]]) -> None:
        """Note archives that are in the store and nowhere noted; of two for one number the log that began later."""
        for number, places in found.items():
            newest: tuple[int, Archived, Archive] | None = None
            for store, name in places:
                read = self._read(store, name)
                if read is not None and (newest is None or read[0] > newest[0]):
                    newest = read
            if newest is not None:
                _, self._notes[number], archive = newest
                self._found_archives[number] = archive.about
                tags = archive.about.get("tags")
                if tags is not None:
                    tags_of_archives[number] = tuple(tags)
        self._found.archives = len(self._notes)
        if self._notes and self._write:
            self._log.note(self._flow, self._notes)

    def _read(self, store: Store, name: str) -> tuple[int, Archived, Archive] | None:
        try:
            archive = open_in(store, name)
            if archive is None:
                return None
            archive.verify()
        except Unsound as error:
            self._found.unreadable.append(f"the archive '{store.where_named(name)}': {error}")
            return None
        digest, size = digest_of(store, name)
        sealed_us = int(archive.about.get("sealed_us") or 0)
        return sealed_us, Archived(store.url, name, digest, size, archive.events, archive.chain, sealed_us), archive

    # --- runs ----------------------------------------------------------------------------------------------

    def _run(self, run: RunId, line: RunEntry | None, asked: flow_events.FlowRecord | None, gone: tuple[str, str] | None) -> None:
        shard = self._shard_of(run, line)
        if shard is not None:
            self._found.at_server += 1
            state = self._state(run, shard)
            if state is not None:
                self._compare(RunEntry(run, shard, summary(state)), line, sealed=state.sealed, hot=True)
            return
        archived = self._notes.get(run.number) or self._log.archived(run)
        if archived is None:
            self._without_log(run, line, asked, gone)
            return
        self._found.archived += 1
        entry = self._of_archive(run, archived, line)
        if entry is not None:
            self._compare(entry, line, sealed=True, hot=False)

    def _shard_of(self, run: RunId, line: RunEntry | None) -> str | None:
        """The shard in which the server has events of the run."""
        known: list[str] = [line.shard] if line is not None else []
        for shard in dict.fromkeys([*known, own_shard(run), shared_shard(run)]):
            if self._log.hot_read(shard, run, 0, 1):
                return shard
        return None

    def _of_archive(self, run: RunId, archived: Archived, line: RunEntry | None) -> RunEntry | None:
        """The line of a run that is in an archive only: it stands there, as its owner wrote it last."""
        try:
            about = self._found_archives.get(run.number) or self._log.archives.about(str(run), archived)
        except EvflowError as error:
            self._found.unreadable.append(error.message)
            return None
        shard = line.shard if line is not None else str(about.get("shard") or own_shard(run))
        return RunEntry(run, shard, dict(about.get("summary") or {}))

    def _state(self, run: RunId, shard: str) -> RunState | None:
        """What a log at the server folds to; None where it cannot be folded, which is told."""
        state = RunState()
        try:
            with paused():
                while events := self._log.hot_read(shard, run, state.seq, _CHUNK):
                    for seq, payload, _ in events:
                        apply(state, decode(seq, payload))
        except (UnreadableEvent, ImpossibleEvent) as error:
            self._found.unreadable.append(f"the log of '{run}': {error.message}")
            return None
        return state if state.header else None

    def _without_log(self, run: RunId, line: RunEntry | None, asked: flow_events.FlowRecord | None, gone: tuple[str, str] | None) -> None:
        if line is not None and line.summary.get("finished_us"):
            self._found.lost += 1
            return
        self._found.empty += 1
        if gone is not None:
            self._gone(run, line, asked, *gone)
            return
        if line is not None or asked is None or not isinstance(asked.event, RunRequested) or not asked.event.deployment:
            return
        about = {"status": REQUESTED, "requested_us": asked.at_us, "user": asked.event.user, "host": asked.event.host}
        self._found.added += 1
        if self._write:  # it may wait for a scheduler still
            self._log.list_run(RunEntry(run, shared_shard(run), about), only_missing=True)

    def _gone(self, run: RunId, line: RunEntry | None, asked: flow_events.FlowRecord | None, status: str, reason: str) -> None:
        """The line of a run that was refused or given up."""
        if line is not None and line.summary.get("status") in GONE:
            return
        about: dict[str, Any] = dict(line.summary) if line is not None else {}
        if line is None and asked is not None and isinstance(asked.event, RunRequested):
            about = {"requested_us": asked.at_us, "user": asked.event.user, "host": asked.event.host}
        entry = RunEntry(run, shared_shard(run), {**about, "status": status, "reason": reason})
        if line is None:
            self._found.added += 1
        else:
            self._found.corrected += 1
        if self._write:
            self._log.list_run(entry, only_missing=False)

    def _compare(self, entry: RunEntry, line: RunEntry | None, *, sealed: bool, hot: bool) -> None:
        if line is None:
            self._found.added += 1
        elif sealed and line != entry:
            self._found.corrected += 1
        if not self._write:
            return
        if line is None or (sealed and line != entry):
            self._log.list_run(entry, only_missing=not sealed)
        if hot:
            self._log.heat(entry)


def _fold_one(own: _Own, record: flow_events.FlowRecord) -> None:
    event = record.event
    if isinstance(event, RunRequested):
        own.requested[RunNumber(event.number)] = record
        own.gone.pop(RunNumber(event.number), None)
    elif isinstance(event, RunTagged):
        own.tags[RunNumber(event.number)] = event.tags
    elif isinstance(event, RunRefused):
        own.gone[RunNumber(event.number)] = REFUSED, event.reason
    elif isinstance(event, RunGivenUp) and RunNumber(event.number) not in own.requested:  # else another run has its number
        own.gone[RunNumber(event.number)] = GIVEN_UP, event.reason
    elif isinstance(event, RunForgotten):
        own.forgotten.add(RunNumber(event.number))
        own.tags.pop(RunNumber(event.number), None)
    own.deployments.apply(record)
    if backfill.number_of(event) is not None:
        own.plans.append(record)
