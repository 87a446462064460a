"""Reads a log for `evflow top`: once what there is, then what the feeds say that has changed.

Runs that go on are folded, so that what is shown of them is what the owner knows; those that are over are lines of the index. Who holds the limited
names that they wait for is asked as `evflow explain` asks it. It asks nobody but the log: no scheduler has to be reachable.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from evflow.archives.backlog import Backlog
from evflow.cli.explain_limits import Standing
from evflow.cli.top.overview import Overview, RunRow, SchedulerRow, TickRow
from evflow.core import events as ev
from evflow.core.apply import ImpossibleEvent, apply
from evflow.core.codec import UnreadableEvent, decode
from evflow.core.deployments import Deployment, unpacked
from evflow.core.explain_said import Said, of_platform, of_store
from evflow.core.ids import FlowName, RunId, Seq
from evflow.core.state import RunState
from evflow.core.summary import OVER
from evflow.core.tally import tally
from evflow.deployments.catalog import shown
from evflow.deployments.ticks import upcoming_us
from evflow.log.feeds import Feeds
from evflow.log.keys import shared_shards
from evflow.log.owners import seen_owner
from evflow.log.protocol import LogClient, RunEntry

LOOK_EVERY_US: Final = 2_000_000
"""How often is asked for schedulers, owners, limited names that runs wait for, and the ends of flows' logs: all names, and all flows, in one request."""
_MEASURE_EVERY_US: Final = 10_000_000
"""How often is measured what is not archived, which schedulers do as often."""
_NEWEST: Final = 30
"""Runs of a flow that are looked at: those that go on are among them, or have said so in a feed."""
_MOST_LIVE: Final = 500
"""Runs that are folded at once; the rest is shown as the index has it."""
_CHUNK: Final = 5_000
_RATE_US: Final = 10_000_000
_ENDS: Final = (ev.AttemptSucceeded, ev.AttemptFailed, ev.AttemptLost, ev.AttemptCrashed, ev.AttemptTimedOut, ev.AttemptCancelled)


class _Live:
    """A run that goes on, as far as it was read."""

    def __init__(self, entry: RunEntry) -> None:
        self.entry = entry
        self.state = RunState()
        self.readable = True
        self.lacks_a_name = False
        self.said: Sequence[Said] = ()


class Watch:
    """What goes on in a log. Blocking; for one thread.

    Args:
        log: The log; nobody else uses it meanwhile.
        feeds: Its feeds.
        where: The server, for people.
        backlog: Measures what is not archived; None: nobody asks.
    """

    def __init__(self, log: LogClient, feeds: Feeds, where: str, backlog: Backlog | None = None) -> None:
        self._backlog = backlog
        self._unarchived_bytes = 0
        self._measured_us = 0
        self._log = log
        self._feeds = feeds
        self._where = where
        self._ends: dict[FlowName, Seq] = {}
        self._live: dict[RunId, _Live] = {}
        self._lines: dict[RunId, RunEntry] = {}
        self._deployments: dict[FlowName, list[Deployment]] = {}
        self._next_us: dict[str, int | None] = {}
        self._owners: dict[str, str | None] = {}
        self._schedulers: list[str] = []
        self._ended_us: deque[int] = deque()
        self._looked_us = 0
        self._now_us = 0
        self._standing = Standing(log)

    def look(self, wait_s: float) -> None:
        """Take in what has changed; waits for it up to `wait_s`.

        Raises:
            LogUnavailable: The server is away. What was known of it stays.
        """
        self._now_us = self._log.now_us()
        if self._now_us - self._looked_us >= LOOK_EVERY_US or self._now_us < self._looked_us:
            self._look_around()
            self._looked_us = self._now_us
        changed = self._feeds.wait(wait_s)
        for shard, name in sorted(changed):
            self._hear(shard, name)
        self._now_us = self._log.now_us()

    def overview(self, trouble: str = "") -> Overview:
        """What was taken in so far."""
        while self._ended_us and self._ended_us[0] < self._now_us - _RATE_US:
            self._ended_us.popleft()
        live = [_row(one, self._owners.get(one.entry.shard) or "", self._now_us) for one in self._live.values()]
        waiting = [
            _line(entry, self._owner_of(entry.shard)) for run, entry in self._lines.items() if run not in self._live and not _is_over(entry)
        ]
        ended = [_line(entry, "") for run, entry in self._lines.items() if run not in self._live and _is_over(entry)]
        return Overview(
            now_us=self._now_us,
            where=self._where,
            schedulers=tuple(self._scheduler_rows()),
            free=tuple(shard for shard in shared_shards() if self._owners.get(shard) is None),
            live=(*live, *waiting),
            ended=tuple(sorted(ended, key=lambda row: -row.until_us)),
            ticks=tuple(sorted(self._tick_rows(), key=lambda row: row.at_us)),
            rate=len(self._ended_us) / (_RATE_US / 1e6),
            unarchived_bytes=self._unarchived_bytes,
            trouble=trouble,
        )

    # --- reading -------------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        self._feeds.follow(shared_shards())  # before anything is read, so that nothing falls between
        flows = self._log.flows()
        for flow, end in zip(flows, self._log.flow_seqs(flows), strict=True):
            if self._ends.get(flow) != end:
                self._load_flow(flow)
                self._ends[flow] = end
        if self._backlog is not None and not 0 <= self._now_us - self._measured_us < _MEASURE_EVERY_US:
            self._unarchived_bytes = self._backlog.bytes(flows)
            self._measured_us = self._now_us
        self._schedulers = self._log.schedulers()
        shards = {*shared_shards(), *(one.entry.shard for one in self._live.values())}
        self._owners = {shard: seen_owner(self._log, shard) for shard in sorted(shards)}
        self._standing = Standing(self._log)
        lines = [one for one in self._live.values() if one.state.takes_slots]
        self._standing.look(limit.name for one in lines for limit in self._standing.needed(one.state, 1))
        for one in lines:
            self._ask_for_names(one)
        self._ask_for_said()

    def _ask_for_said(self) -> None:
        """What owners say of their runs, where attempts are about to begin."""
        begin = {
            one.entry.shard
            for one in self._live.values()
            if not all(one.state.tasks[number].attempt.started_us for number in one.state.live)
        }
        told = self._log.said_waits(sorted(begin))
        for run, one in self._live.items():
            one.said = told.get(str(run), ())

    def _ask_for_names(self, one: _Live) -> None:
        """Whether the first task of a run's line lacks a limited name, as of the last look around where that was asked for then."""
        one.lacks_a_name = one.state.takes_slots and any(self._standing.waits(one.entry.shard, one.state, 1))

    def _load_flow(self, flow: FlowName) -> None:
        self._deployments[flow] = list(_readable(self._log.deployments(flow).values()))
        self._next_us = {name: at_us for name, at_us in self._next_us.items() if name.partition(":")[0] != flow}
        newest = self._log.runs(flow, _NEWEST)
        kept = {entry.run for entry in newest}
        for run in [run for run in self._lines if run.flow == flow and run not in kept and run not in self._live]:
            del self._lines[run]
        for entry in newest:
            self._note(entry)

    def _note(self, entry: RunEntry) -> None:
        self._lines[entry.run] = entry
        if entry.run in self._live or _is_over(entry) or len(self._live) >= _MOST_LIVE:
            return
        if entry.shard not in shared_shards():
            self._feeds.follow([entry.shard])
        self._read(entry)

    def _hear(self, shard: str, name: str) -> None:
        """A feed names a run."""
        try:
            run = RunId.parse(name)
        except ValueError:  # somebody else wrote there
            return
        known = self._live.get(run)
        if known is None:
            entry = self._log.run(run)
            if entry is not None:
                self._note(entry)
        elif known.entry.shard == shard:
            self._read(known.entry)
        if (one := self._live.get(run)) is not None:
            self._ask_for_names(one)

    def _read(self, entry: RunEntry) -> None:
        """Fold what is new of a run; one that is over goes back to the index."""
        one = self._live.get(entry.run) or _Live(entry)
        while one.readable:
            stored = self._log.read(entry.shard, entry.run, one.state.seq, _CHUNK)
            try:
                for event in stored:
                    record = decode(event.seq, event.payload)
                    apply(one.state, record)
                    if isinstance(record.event, _ENDS):
                        self._ended_us.append(record.at_us)
            except (ImpossibleEvent, UnreadableEvent):
                one.readable = False
            if len(stored) < _CHUNK:
                break
        if one.state.seq and not one.state.over:
            self._live[entry.run] = one
        elif self._live.pop(entry.run, None) is not None or one.state.over:
            self._end(entry, one.state)

    def _end(self, entry: RunEntry, state: RunState) -> None:
        if entry.shard not in shared_shards():
            self._feeds.leave(entry.shard)
        reason = state.outcome.reason if state.outcome else ""
        tasks = {"tasks": len(state.tasks) - 1, "reason": reason, "user": state.header.get("user", "")}
        times = {"status": state.status, "started_us": state.started_us, "finished_us": state.finished_us}
        self._lines[entry.run] = RunEntry(entry.run, entry.shard, {**entry.summary, **tasks, **times})

    # --- rows ----------------------------------------------------------------------------------------------

    def _owner_of(self, shard: str) -> str:
        return _process(self._owners.get(shard) or "")

    def _scheduler_rows(self) -> Iterator[SchedulerRow]:
        owned: dict[str, list[str]] = {_process(name): [] for name in self._schedulers}
        for shard in shared_shards():
            owner = self._owner_of(shard)
            if owner:
                owned.setdefault(owner, []).append(shard)
        for process, shards in owned.items():
            taken = sum(len(one.state.live) for one in self._live.values() if one.entry.shard in shards)
            host, _, pid = process.partition(":")
            yield SchedulerRow(host, pid, tuple(shards), taken)

    def _tick_rows(self) -> Iterator[TickRow]:
        for flow, deployments in self._deployments.items():
            for one in deployments:
                name = shown(flow, one.name)
                at_us = self._next_us.get(name, 0)
                if at_us is not None and at_us <= self._now_us:
                    at_us = self._next_us[name] = None if one.paused else upcoming_us(one, self._now_us)
                if at_us is not None:
                    yield TickRow(name, at_us)


def _row(one: _Live, owned_by: str, now_us: int) -> RunRow:
    state, run, owner = one.state, one.entry.run, _process(owned_by)
    storeless = sum(wait.tasks for wait in of_store(state, one.said, owned_by, now_us))
    unstarted = sum(wait.tasks for wait in of_platform(state, one.said, owned_by, now_us))
    counts = tally(state, lambda: one.lacks_a_name, storeless, unstarted)
    steps: dict[str, int] = {}
    for number in [*state.live, *list(state.waiting)[:_NEWEST]]:
        steps.setdefault(state.tasks[number].step, 0)
    status: str = state.status
    if not one.readable:
        status = "unreadable"
    elif not owner:
        status = "interrupted"
    elif state.cancelling is not None or state.failing is not None:
        status = "cancelling" if state.cancelling is not None else "failing"
    done = sum(count.succeeded + count.failed for count in state.steps.values())
    return RunRow(
        str(run), run.flow, int(run.number), status, ", ".join(steps), done, len(state.tasks) - 1,
        counts.running + counts.starting if owner else 0,
        tuple(counts.waiting.items()), state.started_us, 0, str(state.header.get("user", "")), owner,
    )  # fmt: skip


def _line(entry: RunEntry, owner: str) -> RunRow:
    summary, run = entry.summary, entry.run
    since_us = int(summary.get("started_us") or summary.get("requested_us") or 0)
    tasks, until_us = int(summary.get("tasks") or 0), int(summary.get("finished_us") or 0)
    return RunRow(
        str(run), run.flow, int(run.number), str(summary.get("status", "?")), "", tasks, tasks, 0, (), since_us, until_us,
        str(summary.get("user", "")), owner, str(summary.get("reason", "")),
    )  # fmt: skip


def _is_over(entry: RunEntry) -> bool:
    return entry.summary.get("status") in OVER


def _process(owner: str) -> str:
    """Host and process of an owner's name, which has more."""
    return ":".join(owner.split(":")[:2])


def _readable(packed: Iterable[bytes]) -> Iterator[Deployment]:
    for one in packed:
        try:
            yield unpacked(one)
        except UnreadableEvent:  # `evflow deployments` says more of it
            continue
