"""A run's whole log, from wherever it lives."""

from collections.abc import Iterator

from evflow.collector import paused
from evflow.core.ids import RunId
from evflow.core.state import RunState
from evflow.core.summary import GONE, REFUSED
from evflow.core.values import value
from evflow.errors import EnvironmentProblem, EvflowError, UsageError
from evflow.log.owners import seen_owner
from evflow.log.protocol import Head, LogClient, RunEntry, StoredEvent, shown_owner
from evflow.replay.refold import refold


class RunNotFound(UsageError):
    """There is no such run in this log."""

    code = "run-not-found"

    def __init__(self, run: RunId, log: LogClient) -> None:
        newest = [str(entry.run) for entry in log.runs(run.flow, 5)]
        if newest:
            hint = f"Its newest runs are {', '.join(newest)}."
        elif run.flow in (flows := log.flows()):
            hint = f"'{run.flow}' has no run that began."
        elif flows:
            hint = f"No run of '{run.flow}' is in this log; it has runs of {', '.join(flows)}."
        else:
            hint = "This log has no runs at all. Is EVFLOW_HOME or EVFLOW_REDIS_URL the one that the run used?"
        super().__init__(f"There is no run '{run}'.", hint)


class RunNeverBegan(UsageError):
    """The run has a number and no event: there is nothing to look at or to go on from."""

    code = "run-never-began"

    def __init__(self, run: RunId) -> None:
        super().__init__(f"'{run}' has no events: its process died before the run began, or is about to begin it.", "Start a new run.")


class RunWaits(RunNeverBegan):
    """The run was asked of schedulers, and none has taken it yet."""

    code = "run-waits-for-a-scheduler"

    def __init__(self, entry: RunEntry, owner: str | None) -> None:
        EvflowError.__init__(self, *waits(entry, owner))


class RunGone(RunNeverBegan):
    """The run was asked for and never begins, or a server lost it and its owner gave it up."""

    code = "run-is-gone"

    def __init__(self, entry: RunEntry) -> None:
        EvflowError.__init__(self, *gone(entry))


def gone(entry: RunEntry) -> tuple[str, str]:
    """What to say of a run that never begins or was given up, and what to do."""
    why = str(entry.summary.get("reason") or "nothing says why").rstrip(".")
    if entry.summary.get("status") == REFUSED:
        return (
            f"'{entry.run}' was refused and does not begin: {why}.",
            "Ask for a new run; where that is refused too, deploy the flow again.",
        )
    return f"'{entry.run}' was given up: {why}.", f"`evflow why-not {entry.run.flow} --at TIME` says what else was decided then."


def waits(entry: RunEntry, owner: str | None) -> tuple[str, str]:
    """What to say of a run that no scheduler has taken yet, and what to do; `owner` is its shard's, if there is one."""
    asked = f"{entry.summary.get('user') or 'somebody'} asked for it"
    if owner is None:
        return f"'{entry.run}' waits for a scheduler: {asked}, and none runs at present.", "`evflow scheduler` starts one."
    return f"'{entry.run}' has not begun: {asked}, and {shown_owner(owner)}, a scheduler, is to take it.", ""


class RunLost(EnvironmentProblem):
    """The server knows how long the run's log is and has none of it."""

    code = "run-lost"

    def __init__(self, run: RunId, length: int) -> None:
        super().__init__(
            f"The log of '{run}' is lost: it had {length} events, and the server has none of them.",
            "Restore the server's data. `evflow doctor` says whether the server throws keys away.",
        )


@value
class RunLog:
    """A run's events as they are stored, and where the log says that it ends."""

    entry: RunEntry
    events: list[StoredEvent]
    head: Head


def load(log: LogClient, run: RunId) -> RunLog:
    """Read a run's log as `look` does, and see that there is something to look at.

    Raises:
        RunNotFound, RunNeverBegan: As `look`.
        RunLost: The server has lost its events.
    """
    found = look(log, run)
    if not found.events:
        raise RunLost(run, found.head.seq)
    return found


def look(log: LogClient, run: RunId) -> RunLog:
    """Read a run's log, whatever is left of it. The head is read first: a live log may then be longer.

    Raises:
        RunNotFound: There is no such run.
        RunNeverBegan: It never had an event; RunWaits: because no scheduler has taken it yet; RunGone: because it never begins.
    """
    entry, head = _begun(log, run)
    with paused():
        return RunLog(entry, list(events(log, entry)), head)


def folded(log: LogClient, run: RunId) -> tuple[RunEntry, RunState]:
    """A run's line in the index, and the state that its log folds to.

    It is folded while it is read: a page is let go before the next one comes, which a log of a million events needs, and
    which saves a tenth of the time of a shorter one.

    Raises:
        RunNotFound, RunNeverBegan: As `look`.
        RunLost: As `load`.
        UnreadableEvent, ImpossibleEvent: As `refold`.
    """
    entry, head = _begun(log, run)
    state = refold(events(log, entry))
    if state.seq == 0:
        raise RunLost(run, head.seq)
    return entry, state


def _begun(log: LogClient, run: RunId) -> tuple[RunEntry, Head]:
    entry = log.run(run)
    if entry is None:
        raise RunNotFound(run, log)
    head = log.head(entry.shard, run)
    if head.seq == 0:
        raise never_began(log, entry)
    return entry, head


def never_began(log: LogClient, entry: RunEntry) -> RunNeverBegan:
    """The error for a run without an event: it waits for a scheduler, was refused or given up, or its process died."""
    if entry.summary.get("status") in GONE:
        return RunGone(entry)
    if not entry.is_requested:
        return RunNeverBegan(entry.run)
    return RunWaits(entry, seen_owner(log, entry.shard))


def events(log: LogClient, entry: RunEntry, after: int = 0) -> Iterator[StoredEvent]:
    """A run's events behind a position, in order."""
    for page in log.pages(entry.shard, entry.run, after):
        yield from page
