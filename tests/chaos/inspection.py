"""What must hold of all logs of a fleet when everything is over."""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evflow.core import backfill, events as ev, flow_events
from evflow.core.codec import decode
from evflow.core.deployments import fold, tick_of
from evflow.core.events import Event
from evflow.core.flow_events import BackfillTicksSkipped, RunRequested, ScheduleTicked
from evflow.core.graph import pool_of
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.state import RunState
from evflow.core.summary import GONE
from evflow.deployments.catalog import deployed
from evflow.deployments.finding import records
from evflow.log import pools
from evflow.log.commands import Operation
from evflow.log.keys import pool_keys, shared_shard
from evflow.log.protocol import LogClient
from evflow.replay.verify import verify
from tests.chaos.driver import Results, results

MINUTE_US = 60_000_000
MOST_LOSSES = 3


@dataclass
class Found:
    """What an inspection saw.

    Attributes:
        succeeded: Runs that succeeded.
        failed: Runs that were lost too often.
        tasks: Tasks of all runs.
        in_pools: Those of them whose step has a pool.
        attempts: Their attempts.
        lost: Attempts that were lost.
        ticks: Ticks that were decided.
        never_begun: Runs with a number that nobody was offered.
        numbers_given_again: Ticks whose run has the number of another one that had begun: a known flaw of fail-overs (docs/critiques.md).
        problems: What does not hold.
    """

    succeeded: int = 0
    failed: int = 0
    tasks: int = 0
    in_pools: int = 0
    attempts: int = 0
    lost: int = 0
    ticks: int = 0
    never_begun: list[RunId] = field(default_factory=list)
    numbers_given_again: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """For people."""
        return (
            f"{self.succeeded} runs succeeded, {self.failed} failed, {len(self.never_begun)} were never offered; {self.tasks} tasks, "
            f"{self.in_pools} of them in pools; {self.attempts} attempts, {self.lost} of them lost; {self.ticks} ticks; "
            f"numbers given again: {self.numbers_given_again}"
        )


def flow_log(log: LogClient, flow: FlowName) -> list[Event]:
    """The events of a flow's log."""
    return [flow_events.decode(*stored).event for stored in log.flow_events(flow, 0, 100_000)]


def runs(log: LogClient, flow: FlowName) -> list[RunId]:
    """Every run that has a number or a log."""
    asked = {event.number for event in flow_log(log, flow) if isinstance(event, RunRequested)}
    numbers = asked | {entry.run.number for entry in log.runs(flow)}
    return [RunId(flow, RunNumber(number)) for number in sorted(numbers)]


def open_runs(log: LogClient, flow: FlowName) -> list[RunId]:
    """Runs that began, or will begin, and are not sealed; one that was given up, or refused, and has no log is over.

    What was asked for begins, also where who asked for it got an error: schedulers offer it from the flow's log.
    """
    requests = {event.number for event in flow_log(log, flow) if isinstance(event, RunRequested)}
    heads = [(run, log.head(shared_shard(run), run)) for run in runs(log, flow)]
    lines = {entry.run: entry.summary.get("status") for entry in log.runs(flow)}
    asked = {run for run, _ in heads if (run.number in requests or run in lines) and lines.get(run) not in GONE}
    return [run for run, head in heads if head.status != "sealed" and (head.seq or run in asked)]


def left_in_pool(url: str, pool: str) -> str:
    """What a pool has left: orders, entries that somebody read, claims; empty if nothing."""
    picture = pools.ask(url, pools.picture(pool))
    queue = pool_keys(pool).queue
    entries, unread = pools.ask(
        url, Operation((("XLEN", queue), ("XPENDING", queue, pools.GROUP)), lambda replies: (replies[0], replies[1][0]))
    )
    if not (picture.queued or picture.running or entries):
        return ""
    return f"{picture.queued} orders, {entries} entries, {unread} of them read, claims {dict(picture.running)}"


def last_events(log: LogClient, runs: list[RunId], count: int = 15) -> str:
    """How the logs of runs end, for people."""
    lines: list[str] = []
    for run in runs:
        stored = log.read(shared_shard(run), run, 0, 100_000)[-count:]
        lines += [f"{run} {record.seq}: {record.event}" for record in (decode(one.seq, one.payload) for one in stored)]
        if not stored:
            entry = log.run(run)
            asked = [record for record in records(log, run.flow) if getattr(record.event, "number", None) == run.number]
            lines.append(f"{run} has no log; its line: {entry}; the flow's log of it: {asked}")
    return "\n".join(lines)


def inspect(
    log: LogClient, flow: FlowName, book: Path, *, lost: bool, may_have_twins: Container[str] = (), torn: Sequence[tuple[int, int]] = ()
) -> Found:
    """Look at everything.

    Args:
        log: The log.
        flow: The flow.
        book: What bodies wrote.
        lost: The server had lost writes that it had acknowledged: then a tick's decision may be among them.
        may_have_twins: Tasks whose worker could not know that it was given up, by name.
        torn: Spans in which two servers took writes, in microseconds: what began then may have been begun by an owner at each of them, which
            nobody can tell but a server that does not take writes without its replica (docs/critiques.md).
    """
    found = Found()
    made: list[tuple[RunId, Results]] = []
    triggers: Counter[tuple[str, int]] = Counter()
    excused: set[str] = set()
    asked = {event.number: event.trigger for event in flow_log(log, flow) if isinstance(event, RunRequested) and event.trigger is not None}
    for run in runs(log, flow):
        shard = shared_shard(run)
        events, head = log.read(shard, run, 0, 100_000), log.head(shard, run)
        if not events:
            found.never_begun.append(run)
            continue
        verdict = verify(events, head)
        found.problems += [f"{run}: {problem}" for problem in verdict.problems[:1]]
        if not verdict.sealed:
            found.problems.append(f"{run} is not sealed: {verdict.state.status}")
        _results(run, verdict.state, found, made)
        trigger = verdict.state.header.get("trigger") or {}
        if asked.get(run.number, trigger) != trigger:
            found.numbers_given_again.append(f"{run} was asked for by {asked[run.number]}, and what began is {trigger}")
        if "tick_us" in trigger:
            triggers[trigger["kind"], trigger["tick_us"]] += 1
        for task in verdict.state.all_tasks():
            if any(since <= attempt.granted_us <= until for attempt in task.attempts for since, until in torn):
                excused.add(f"{run}/{task.id}")
        started = [decode(one.seq, one.payload).event for one in events]
        found.problems += [f"{run} began twice" for event in started[1:] if isinstance(event, ev.RunStarted)]
    found.problems += [f"{run} made other artifacts than {made[0][0]}" for run, what in made if what != made[0][1]]
    _ticks(flow_log(log, flow), found)
    _beside(log, flow, found)
    if not lost:
        found.problems += found.numbers_given_again
        found.problems += [f"{count} runs have the tick {tick}" for tick, count in triggers.items() if count > 1]
    twins = [path.stem.split(".") for path in book.glob("*.twin")]
    found.problems += [
        f"a body ran beside its twin: {run}/{task} of {whose}"
        for run, task, whose in twins
        if (name := f"{flow}/{run}/{task}") not in may_have_twins and name not in excused
    ]
    return found


def _results(run: RunId, state: RunState, found: Found, made: list[tuple[RunId, Results]]) -> None:
    """One accepted result for each task; a run fails only where a task was lost too often."""
    for task in state.all_tasks():
        found.tasks += 1
        found.in_pools += pool_of(state.graph[task.step].policy.executor) is not None
        found.attempts += len(task.attempts)
        found.lost += sum(attempt.outcome == "lost" for attempt in task.attempts)
        won = sum(attempt.outcome == "succeeded" for attempt in task.attempts)
        if won != (task.status == "succeeded"):
            found.problems.append(f"{run}: task {task.id} is {task.status} and has {won} accepted results")
    if state.status == "succeeded":
        found.succeeded += 1
        made.append((run, results(state)))
    else:
        found.failed += 1
        lost = [task for task in state.all_tasks() if state.failing is not None and task.id == state.failing.task]
        if not lost or lost[0].losses <= MOST_LOSSES:
            found.problems.append(f"{run} {state.status}: {state.outcome.reason if state.outcome else state.status}")


def _beside(log: LogClient, flow: FlowName, found: Found) -> None:
    """What stands beside the flow's log is what the log folds to."""
    records = [flow_events.decode(*stored) for stored in log.flow_events(flow, 0, 100_000)]
    if deployed(log, flow) != fold(records).current:
        found.problems.append(f"deployed is {deployed(log, flow)}, and the log says {fold(records).current}")
    backfills = {number: backfill.unpacked(packed) for number, packed in log.backfills(flow).items()}
    if backfills != backfill.fold(records):
        found.problems.append(f"the backfills are {backfills}, and the log says {backfill.fold(records)}")


def _ticks(events: list[Event], found: Found) -> None:
    """Each tick of the schedule, and of each backfill, is decided once, in order, and none is left out."""
    decided: dict[str, list[int]] = {}
    for event in events:
        number = backfill.number_of(event)
        if isinstance(event, RunRequested) and number is not None:
            decided.setdefault(f"backfill {number}", []).append((event.trigger or {})["tick_us"])
        elif isinstance(event, BackfillTicksSkipped):
            decided.setdefault(f"backfill {number}", []).extend(range(event.since_us or event.tick_us, event.tick_us + 1, MINUTE_US))
        elif isinstance(event, ScheduleTicked):
            decided.setdefault("the schedule", []).extend(range(event.since_us or event.tick_us, event.tick_us + 1, MINUTE_US))
        elif (tick_us := tick_of(event)) is not None:
            decided.setdefault("the schedule", []).append(tick_us)
    for whose, ticks in decided.items():
        found.ticks += len(ticks)
        if ticks != list(range(ticks[0], ticks[0] + len(ticks) * MINUTE_US, MINUTE_US)):
            found.problems.append(f"the ticks of {whose} are not decided once each: {[(tick - ticks[0]) // MINUTE_US for tick in ticks]}")
