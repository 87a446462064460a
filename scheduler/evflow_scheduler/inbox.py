"""Reports as facts: which entries of an inbox become events, and why the others do not.

An offer is the report that begins a run in a shared shard: the run's first event, as whoever asked for the run wrote it.

Every entry is consumed, one way or the other (design: nothing waits for ever); what does not become an event is
counted under its reason.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from evflow.core.codec import MAX_REPORT_BYTES, UnreadableEvent, decode_report
from evflow.core.events import (
    AttemptExited,
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    EnvironmentReplaced,
    EnvironmentResolved,
    Event,
    Fact,
    GangRefused,
    LogRegressed,
    RunContinued,
    RunStarted,
    SlotGranted,
    TaskReused,
)
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.core.state import RunState
from evflow.core.values import entity, field
from evflow.errors import Conflict
from evflow.log.commands import INBOX_BATCH
from evflow.log.limits import LOOK
from evflow.log.protocol import Inbound
from evflow_scheduler.run import OwnedRun

_THE_OWNERS = (RunStarted, RunContinued, LogRegressed, SlotGranted, TaskReused, EnvironmentResolved, EnvironmentReplaced, GangRefused)
"""Facts that only the owner itself states; a report that claims one is refused."""


class BegunElsewhere(Conflict):
    """A run of the shard goes on that this owner does not have: it slept while another one came, and went unnoticed by the lease."""

    code = "begun-elsewhere"

    def __init__(self, run: RunId) -> None:
        super().__init__(f"'{run}' was begun by another owner of its shard, which this one has not noticed: it gives the shard up.")


@entity
class Accepted:
    """What a batch of inbox entries comes to.

    Attributes:
        facts: Run to `(event, principal, cause)`, in the order of arrival.
        consumed: Run to the ids of the entries that became its facts, in the same order: an entry is struck off in the
            act that writes its own event, since a crash may come between the appends of two runs.
        starts: Run to the starts that its successes tell of: a short attempt's report overtakes what the executor saw, which is then too late.
        useless: Ids of the entries that became none.
        dropped: Reason to number of those.
    """

    facts: dict[RunId, list[tuple[Event, str, int]]] = field(default_factory=dict[RunId, list[tuple[Event, str, int]]])
    consumed: dict[RunId, list[bytes]] = field(default_factory=dict[RunId, list[bytes]])
    starts: dict[RunId, list[tuple[Event, str, int]]] = field(default_factory=dict[RunId, list[tuple[Event, str, int]]])
    useless: list[bytes] = field(default_factory=list[bytes])
    dropped: dict[str, int] = field(default_factory=dict[str, int])


class Offer(NamedTuple):
    """A run that somebody asks this shard for: its first event, who asks, and the inbox entry."""

    run: RunId
    event: RunStarted
    principal: str
    entry: bytes


class Inbox(Protocol):
    """Where reports wait."""

    async def receive(self, after: bytes, timeout_s: float) -> list[Inbound]:
        """As `EventLog.receive`, for the shard."""
        ...


async def waiting_reports(inbox: Inbox) -> list[Inbound]:
    """All reports that wait now."""
    found: list[Inbound] = []
    after = b"0"
    while True:
        entries = await inbox.receive(after, 0)
        found += entries
        if len(entries) < INBOX_BATCH:
            return found
        after = entries[-1].id


def accept(entries: list[Inbound], named: Callable[[str], OwnedRun | None], begun: Collection[AttemptId] = ()) -> Accepted:
    """Sort a batch of entries.

    Args:
        entries: The entries.
        named: The run of a name, where the shard has it.
        begun: Attempts of which it is known already, though the run's state does not say so yet, that they have started.
    """
    accepted = Accepted()
    begun = set(begun)
    ended: set[AttemptId] = set()
    for entry in entries:
        if is_a_word(entry):
            accepted.useless.append(entry.id)
            continue
        run = named(entry.run)
        reason = "unknown-run" if run is None else ""
        if run is not None:
            event, principal, reason = _read(entry, run.state)
            if isinstance(event, AttemptStarted | AttemptExited) and not _is_news(run, event, begun, ended):
                accepted.useless.append(entry.id)  # what usually happens is no reason to count anything
            elif event is not None:
                started = _start_of(run, event, principal, begun, ended)
                if started is not None:
                    accepted.starts.setdefault(run.id, []).append((started, principal, 0))
                _note(run, event, begun, ended)
                accepted.facts.setdefault(run.id, []).append((event, principal, 0))
                accepted.consumed.setdefault(run.id, []).append(entry.id)
        if reason:
            accepted.useless.append(entry.id)
            accepted.dropped[reason] = accepted.dropped.get(reason, 0) + 1
    return accepted


def is_a_word(entry: Inbound) -> bool:
    """Whether an entry reports nothing and only says: look again."""
    return not entry.run and entry.payload == LOOK


def _is_news(run: OwnedRun, event: AttemptStarted | AttemptExited, begun: set[AttemptId], ended: set[AttemptId]) -> bool:
    """Whether what a worker saw says something that the run does not know: a worker and an attempt report by themselves, in any order."""
    task = run.state.tasks[event.task]
    if task.id not in run.state.live or task.attempt.number != event.attempt:
        return False
    name = AttemptId(run.id, TaskId(task.id), event.attempt)
    return name not in ended and (isinstance(event, AttemptExited) or not (name in begun or task.attempt.started_us))


def _start_of(
    run: OwnedRun, event: Event, principal: str, begun: Collection[AttemptId], ended: Collection[AttemptId]
) -> AttemptStarted | None:
    """The start of an attempt that says of itself that it succeeded (`worker:HOST:PID`) before anybody said that it began."""
    if not isinstance(event, AttemptSucceeded):
        return None
    name = AttemptId(run.id, TaskId(event.task), event.attempt)
    _, host, pid = principal.split(":") if principal.count(":") == 2 else ("", "", "")
    if name in begun or name in ended or not host or not pid.isdecimal():
        return None
    task = run.state.tasks[event.task]
    if task.id not in run.state.live or task.attempt.number != event.attempt or task.attempt.started_us:
        return None
    return AttemptStarted(event.task, event.attempt, host, int(pid), event.started_us or event.ended_us)


def _note(run: OwnedRun, event: Event, begun: set[AttemptId], ended: set[AttemptId]) -> None:
    if isinstance(event, AttemptStarted):
        begun.add(AttemptId(run.id, TaskId(event.task), event.attempt))
    elif isinstance(event, AttemptSucceeded | AttemptFailed | AttemptExited):
        ended.add(AttemptId(run.id, TaskId(event.task), event.attempt))


def offer_of(entry: Inbound) -> Offer | None:
    """The offer that an entry is, if it is one."""
    try:
        event, principal = decode_report(entry.payload)
    except UnreadableEvent:
        return None
    if not isinstance(event, RunStarted) or f"{event.flow}/{event.number}" != entry.run:
        return None
    return Offer(RunId(FlowName(event.flow), RunNumber(event.number)), event, principal, entry.id)


def _read(entry: Inbound, state: RunState) -> tuple[Event | None, str, str]:
    """The entry's event and principal, or the reason why it is none."""
    if state.sealed:
        return None, "", "run-sealed"
    if len(entry.payload) > MAX_REPORT_BYTES:
        return None, "", "too-large"
    try:
        event, principal = decode_report(entry.payload)
    except UnreadableEvent:
        return None, "", "malformed"
    if not isinstance(event, Fact) or isinstance(event, _THE_OWNERS):
        return None, "", "not-a-report"
    task = getattr(event, "task", None)
    if task is not None and state.task(task) is None:
        return None, "", "unknown-task"
    return event, principal, ""
