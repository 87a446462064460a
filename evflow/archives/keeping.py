"""Which logs are archived and removed, and when: looked up in a list of runs that are due, never found by a search.

Each flow has a list of its runs with a log at the server, by the instant from which on somebody should look (`LogKeeper.hot`). A run that ends is
due at once: it is archived. It is due again when its time at the server is over. One that nobody can archive now is due later.
"""

from collections.abc import Callable, Sequence
from typing import Final

from evflow import diagnostics
from evflow.archives.archiving import Archivist, NotArchivable, Sealed
from evflow.archives.backlog import Backlog
from evflow.archives.reading import ArchiveDamaged, ArchiveMissing
from evflow.core.ids import FlowName, RunId
from evflow.core.retention import next_move
from evflow.core.values import entity, field, value
from evflow.log.archived import SEGMENT_EVENTS, Archived, LogKeeper
from evflow.log.errors import LogUnavailable
from evflow.log.flow_commands import LOOK_AFTER_US
from evflow.store import StoreFull, StoreUnusable

LOOK_EVERY_S: Final = 10.0
"""How soon after its end a run is archived, and its log removed when its time is over."""
BATCH: Final = 50
"""Runs of a flow in one look: other flows, and the end of a process, wait for no more."""
_AWAY_S: Final = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""How long a store that is full or away is left alone, the first time and each time after."""


@value
class Done:
    """What was done with a run's log.

    Attributes:
        run: The run.
        archived: Its archive, or None.
        fresh: It was archived now.
        dropped: Its log was removed from the server now.
        gone: It was removed before.
        why: Why it is not archived, as a word and as a sentence; empty where it is.
    """

    run: RunId
    archived: Archived | None = None
    fresh: bool = False
    dropped: bool = False
    gone: bool = False
    why: tuple[str, str] = ("", "")


@entity
class Counts:
    """What a process has done so far.

    Attributes:
        archived: Runs that were archived.
        archived_bytes: Size of their archives.
        dropped: Runs whose log was removed from the server.
        segments: Parts of flows' own logs that were moved.
        refused: Runs that could not be archived, by reason.
    """

    archived: int = 0
    archived_bytes: int = 0
    dropped: int = 0
    segments: int = 0
    refused: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, done: Done) -> None:
        """Count what was done with a run."""
        if done.fresh and done.archived is not None:
            self.archived += 1
            self.archived_bytes += done.archived.size_bytes
        self.dropped += done.dropped
        if done.why[0]:
            self.refused[done.why[0]] = self.refused.get(done.why[0], 0) + 1


def move(log: LogKeeper, archivist: Archivist, run: RunId, hot_for_us: int, now_us: int) -> Done:
    """Do what is to be done with a run's log, and say when to look again.

    Raises:
        StoreFull, StoreUnusable: Its store cannot be used now.
        LogUnavailable: The server is away.
    """
    try:
        sealed = archivist.sealed(run)
        if sealed is None:
            log.look_again(run, None)
            archived = log.archived(run)
            return Done(run, archived, gone=archived is not None, why=("", "") if archived else ("empty", "it has no events"))
        return _move_sealed(log, archivist, sealed, hot_for_us, now_us)
    except NotArchivable as error:
        log.look_again(run, now_us + LOOK_AFTER_US)
        return Done(run, why=(error.why, error.message))
    except (ArchiveDamaged, ArchiveMissing) as error:  # the log stays at the server
        log.look_again(run, now_us + LOOK_AFTER_US)
        return Done(run, why=(error.code, error.message))


def _move_sealed(log: LogKeeper, archivist: Archivist, sealed: Sealed, hot_for_us: int, now_us: int) -> Done:
    before = log.archived(sealed.run)
    archived = archivist.archive(sealed)
    if next_move(archived=True, sealed_us=sealed.sealed_us, hot_for_us=hot_for_us, now_us=now_us) == "drop":
        return Done(sealed.run, archived, archived != before, archivist.drop(sealed, archived))
    log.look_again(sealed.run, sealed.sealed_us + hot_for_us)
    return Done(sealed.run, archived, archived != before)


class Caretaker:
    """Looks after the logs of flows. Blocking.

    Args:
        log: The log; used by this alone.
        archivist: Archives.
        hot_for_us: How long a log stays at the server after its run's end.

    Attributes:
        counts: What was done so far.
        unarchived_bytes: The events of runs of its flows that are over and not archived, as of its last look.
    """

    def __init__(self, log: LogKeeper, archivist: Archivist, hot_for_us: int) -> None:
        self._log = log
        self._archivist = archivist
        self._hot_for_us = hot_for_us
        self._refused: dict[RunId, str] = {}
        self._segments: dict[FlowName, int] = {}
        self._away = 0
        self._backlog = Backlog(log)
        self.counts = Counts()
        self.unarchived_bytes = 0

    def look(self, is_mine: Callable[[FlowName], bool]) -> float:
        """Do what is due with the flows that are mine, at most `BATCH` runs of each; returns after how many seconds to look again.

        Raises:
            LogUnavailable: The server is away.
        """
        flows = [flow for flow in self._log.flows() if is_mine(flow)]
        wait_s = self._work(flows)
        self.unarchived_bytes = self._backlog.bytes(flows, [run for run in self._refused if run.flow in flows])
        return wait_s

    def _work(self, flows: Sequence[FlowName]) -> float:
        try:
            more = self._look(flows)
            self._trim(flows)
        except (StoreFull, StoreUnusable) as error:
            wait_s = _AWAY_S[min(self._away, len(_AWAY_S) - 1)]
            self._away += 1
            diagnostics.warning("archives wait for the store", why=error.message, again_in_s=wait_s)
            return wait_s
        self._away = 0
        return 0.0 if more else LOOK_EVERY_S

    def _look(self, flows: Sequence[FlowName]) -> bool:
        now_us = self._log.now_us()
        more = False
        for flow, numbers in zip(flows, self._log.hot(flows, now_us, BATCH), strict=True):
            for number in numbers:
                self._one(RunId(flow, number), now_us)
            more = more or len(numbers) == BATCH
        return more

    def _one(self, run: RunId, now_us: int) -> None:
        try:
            done = move(self._log, self._archivist, run, self._hot_for_us, now_us)
        except (LogUnavailable, StoreFull, StoreUnusable):
            raise
        except Exception as error:  # noqa: BLE001 - whatever is in one log, the others are archived; it is told and tried again later
            self._log.look_again(run, now_us + LOOK_AFTER_US)
            done = Done(run, why=("defect", f"{type(error).__name__}: {error}"))
        self.counts.add(done)
        self._tell(done)

    def _tell(self, done: Done) -> None:
        word, text = done.why
        if word and word not in ("not-over", "empty") and self._refused.get(done.run) != word:
            diagnostics.warning("log stays at the server", run=done.run, why=text)
            self._refused[done.run] = word
        elif done.archived is not None:
            self._refused.pop(done.run, None)
            diagnostics.debug("log moves", run=done.run, archived=done.fresh, dropped=done.dropped, bytes=done.archived.size_bytes)

    def _trim(self, flows: Sequence[FlowName]) -> None:
        for flow, seq in zip(flows, self._log.flow_seqs(flows), strict=True):
            if seq < (self._segments.get(flow, 0) + 2) * SEGMENT_EVENTS:
                continue
            try:
                self.counts.segments += self._archivist.trim(flow)
            except (NotArchivable, ArchiveDamaged) as error:
                diagnostics.warning("a flow's own log stays at the server", flow=flow, why=error.message)
            self._segments[flow] = max(seq // SEGMENT_EVENTS - 1, 0)
