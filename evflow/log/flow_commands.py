"""The exchanges about what stands outside of runs: a flow's log, what is kept beside it, and the index of runs; as values (see `evflow.log.commands`)."""

from collections.abc import Sequence

import msgpack

from evflow.core.flow_events import split_at_number
from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.errors import Conflict
from evflow.log.commands import Operation, nothing, report, seq_of
from evflow.log.keys import BACKFILLED, FLOWS, flow_keys
from evflow.log.protocol import ArchiveChange, BackfillChange, Deployed, DeploymentChange, FlowChange, FlowEvent, RunEntry, TagChange
from evflow.log.scripts import invocation
from evflow.log.wire import Command, type_of_reply

_TAKEN, _CHANGED, _UNNUMBERED = 1, -1, -2
"""What `request_run.lua` and `flow_append.lua` answer, besides 0."""
LOOK_AFTER_US = 3_600_000_000
"""How often a run is looked at whose end is not in its line: see `look_at_us`."""


class FlowLogMoved(Conflict):
    """Somebody else appended to the flow's log first."""

    code = "flow-log-moved"

    def __init__(self, flow: FlowName, expected: int, found: int) -> None:
        super().__init__(f"The log of flow '{flow}' ends at event {found}, not at {expected}.", "Read its tail and decide again.")
        self.expected = expected
        self.found = found


class FlowLogForked(Conflict):
    """The flow's log ends where it was expected to, and is another one: the server lost its last events, and got others."""

    code = "flow-log-forked"

    def __init__(self, flow: FlowName) -> None:
        super().__init__(
            f"The server lost what was read of the log of flow '{flow}', and has other events in its place.",
            "Read it anew and decide again.",
        )


class DeploymentMoved(Conflict):
    """What is deployed is not what a request was made of.

    Attributes:
        found: What is deployed instead, packed; empty where nothing is.
    """

    code = "deployment-moved"

    def __init__(self, flow: FlowName, name: str, found: bytes) -> None:
        super().__init__(f"'{flow}:{name}' was changed since it was looked at.", "Look again, and ask for the run anew.")
        self.found = found


class NumbersUnknown(Conflict):
    """The server knows no run number of a flow: it is the first one, or the server is a new or an emptied one."""

    code = "numbers-unknown"

    def __init__(self, flow: FlowName) -> None:
        super().__init__(f"No number of a run of '{flow}' is known to the server.", "Say behind which number to go on.")


# --- a flow's log -----------------------------------------------------------------------------------------


def request_run(
    flow: FlowName,
    payload: bytes,
    minimum: int | None,
    expected: int | None = None,
    change: DeploymentChange | BackfillChange | None = None,
    deployed: Deployed | None = None,
) -> Operation[RunNumber]:
    """Register the flow, then take a number and append the request: raises FlowLogMoved, FlowLogForked, DeploymentMoved, NumbersUnknown."""
    if deployed is not None and isinstance(change, BackfillChange):
        raise ValueError("a backfill's request looks at its backfill, not at what is deployed")  # one hash beside the log
    before, behind = split_at_number(payload)
    keys = flow_keys(flow)
    beside, field, value = _beside(flow, change)
    place = (keys.log, keys.meta, beside)
    least, at = "" if minimum is None else minimum, "" if expected is None else expected
    request = invocation("request_run", place, before, behind, least, at, field, value, *(deployed or _before(change, field)))

    def parse(replies: list[type_of_reply]) -> RunNumber:
        done, found = replies[1]
        if done == _TAKEN:
            return RunNumber(found)
        if done == _CHANGED and deployed is not None:
            raise DeploymentMoved(flow, deployed.name, found)
        if done == _CHANGED:
            raise FlowLogForked(flow)
        raise NumbersUnknown(flow) if done == _UNNUMBERED else FlowLogMoved(flow, expected or 0, found)

    return Operation((("SADD", FLOWS, flow), request), parse)


def append_flow(flow: FlowName, expected: int, payload: bytes, change: FlowChange | None) -> Operation[Seq]:
    """Append to a flow's log: raises FlowLogMoved, FlowLogForked. A deployment registers the flow first, which may never have run."""
    keys = flow_keys(flow)
    beside, field, value = _beside(flow, change)
    register: tuple[Command, ...] = (("SADD", FLOWS, flow),) if isinstance(change, DeploymentChange) else ()
    if isinstance(change, BackfillChange):
        register = (("SADD", BACKFILLED, flow),)

    def parse(replies: list[type_of_reply]) -> Seq:
        done, found = replies[-1]
        if done == _CHANGED:
            raise FlowLogForked(flow)
        if not done:
            raise FlowLogMoved(flow, expected, found)
        return Seq(found)

    marks = msgpack.packb(change.marks) if isinstance(change, DeploymentChange) and change.marks else b""
    append = invocation("flow_append", (keys.log, keys.meta, beside), expected, payload, field, value, marks, *_before(change, field))
    return Operation((*register, append), parse)


def flow_events(flow: FlowName, after: int, limit: int) -> Operation[list[FlowEvent]]:
    """Events of a flow's log behind a position."""
    command = ("XRANGE", flow_keys(flow).log, after + 1, "+", "COUNT", limit)
    return Operation((command,), lambda replies: [FlowEvent(seq_of(entry), values[1]) for entry, values in replies[0]])


def flow_marks(flow: FlowName) -> Operation[tuple[int, ...] | None]:
    """The positions of the events about a flow's deployments; None where nobody noted them."""

    def parse(replies: list[type_of_reply]) -> tuple[int, ...] | None:
        return None if replies[0] is None else tuple(msgpack.unpackb(replies[0]))

    return Operation((("HGET", flow_keys(flow).meta, "marks"),), parse)


def flow_seq(flow: FlowName) -> Operation[Seq]:
    """The last position of a flow's log."""
    return Operation((("HGET", flow_keys(flow).meta, "seq"),), lambda replies: Seq(int(replies[0] or 0)))


def flow_seqs(flows: Sequence[FlowName]) -> Operation[list[Seq]]:
    """The last positions of several flows' logs, in the flows' order."""
    asked = tuple(("HGET", flow_keys(flow).meta, "seq") for flow in flows)
    return Operation(asked, lambda replies: [Seq(int(reply or 0)) for reply in replies])


def _beside(flow: FlowName, change: FlowChange | None) -> tuple[str, str, bytes]:
    """The hash beside a flow's log that an event changes, the field and its value; no field where it changes none."""
    keys = flow_keys(flow)
    if isinstance(change, TagChange):
        return keys.tags, str(change.run.number), msgpack.packb(change.tags)
    if isinstance(change, ArchiveChange):
        return keys.archives, str(change.run.number), change.packed
    if isinstance(change, BackfillChange):
        return keys.backfills, str(change.number), change.packed
    return (keys.deployments, change.name, change.packed) if change is not None else (keys.deployments, "", b"")


def _before(change: FlowChange | None, field: str) -> tuple[str, bytes]:
    """The field that must have a value before the change, and that value; no field where any will do."""
    before = change.before if isinstance(change, DeploymentChange | BackfillChange) else None
    return ("", b"") if before is None else (field, before)


# --- what is kept beside it -------------------------------------------------------------------------------


def tags(run: RunId) -> Operation[tuple[str, ...] | None]:
    """A run's user tags as later changes left them."""

    def parse(replies: list[type_of_reply]) -> tuple[str, ...] | None:
        return None if replies[0] is None else tuple(msgpack.unpackb(replies[0]))

    return Operation((("HGET", flow_keys(run.flow).tags, run.number),), parse)


def all_tags(flow: FlowName) -> Operation[dict[RunNumber, tuple[str, ...]]]:
    """The user tags of all runs of a flow whose tags were ever changed."""

    def parse(replies: list[type_of_reply]) -> dict[RunNumber, tuple[str, ...]]:
        pairs = iter(replies[0])
        return {RunNumber(int(number)): tuple(msgpack.unpackb(changed)) for number, changed in zip(pairs, pairs, strict=True)}

    return Operation((("HGETALL", flow_keys(flow).tags),), parse)


def deployments(flow: FlowName) -> Operation[dict[str, bytes]]:
    """What is deployed of a flow now: name to packed deployment."""

    def parse(replies: list[type_of_reply]) -> dict[str, bytes]:
        pairs = iter(replies[0])
        return {name.decode(): packed for name, packed in sorted(zip(pairs, pairs, strict=True))}

    return Operation((("HGETALL", flow_keys(flow).deployments),), parse)


def backfills(flow: FlowName) -> Operation[dict[int, bytes]]:
    """All backfills of a flow: number to packed backfill."""

    def parse(replies: list[type_of_reply]) -> dict[int, bytes]:
        pairs = iter(replies[0])
        return dict(sorted((int(number), packed) for number, packed in zip(pairs, pairs, strict=True)))

    return Operation((("HGETALL", flow_keys(flow).backfills),), parse)


def backfilled() -> Operation[list[FlowName]]:
    """All flows that ever had a backfill, by name."""
    return Operation((("SMEMBERS", BACKFILLED),), lambda replies: sorted(FlowName(name.decode()) for name in replies[0]))


# --- the index of runs ------------------------------------------------------------------------------------


def flows() -> Operation[list[FlowName]]:
    """All flows that ever ran or were deployed, by name."""
    return Operation((("SMEMBERS", FLOWS),), lambda replies: sorted(FlowName(name.decode()) for name in replies[0]))


def run_counter(flow: FlowName) -> Operation[tuple[int, int]]:
    """The highest run number of a flow, and how many lines its index has."""
    keys = flow_keys(flow)
    return Operation((("HGET", keys.meta, "runs"), ("HLEN", keys.runs)), lambda replies: (int(replies[0] or 0), replies[1]))


def index_run(entry: RunEntry) -> Operation[None]:
    """Write a run's line in the index, and note that its log is at the server."""
    written = ("HSET", flow_keys(entry.run.flow).runs, entry.run.number, line_of(entry))
    # The flow once more: a server that lost its memory under a run has it again with the run's line.
    return Operation((("SADD", FLOWS, entry.run.flow), written, *_heated(entry)), nothing)


def offer_run(entry: RunEntry, payload: bytes, *, only_missing: bool) -> Operation[bool]:
    """Write the line of a run that is asked for, and put its first event into its shard's inbox.

    The line comes first, also where the two have different servers: whoever begins the run writes the next one.

    Args:
        entry: The line.
        payload: The first event, as a report.
        only_missing: A line that is there stays: it may be that of an owner who has begun the run after an earlier try.
    """
    write = "HSETNX" if only_missing else "HSET"
    reported = report(entry.shard, entry.run, payload)
    commands = ((write, flow_keys(entry.run.flow).runs, entry.run.number, line_of(entry)), *reported.commands)
    return Operation(commands, lambda replies: reported.parse(replies[1:]))


def line_of(entry: RunEntry) -> bytes:
    """A run's line as the index holds it."""
    line: bytes = msgpack.packb((entry.shard, entry.summary))
    return line


def look_at_us(entry: RunEntry) -> tuple[int, bool] | None:
    """From when on somebody should look whether the run's log can go, and whether that is sure; None where it has none yet.

    A run that ends without its last line, because its owner died in between, is found an hour after it began, and each hour.
    """
    finished_us, started_us = entry.summary.get("finished_us"), entry.summary.get("started_us")
    if finished_us:
        return int(finished_us), True
    return (int(started_us) + LOOK_AFTER_US, False) if started_us else None


def _heated(entry: RunEntry) -> tuple[Command, ...]:
    look = look_at_us(entry)
    if look is None:
        return ()
    at_us, sure = look
    return (("ZADD", flow_keys(entry.run.flow).hot, *(() if sure else ("NX",)), at_us, entry.run.number),)


def index_lines(flow: FlowName, numbers: Sequence[int]) -> Operation[list[RunEntry]]:
    """The index's lines for these numbers, in their order; numbers without one are left out."""

    def parse(replies: list[type_of_reply]) -> list[RunEntry]:
        return [_entry(flow, number, line) for number, line in zip(numbers, replies[0], strict=True) if line is not None]

    return Operation((("HMGET", flow_keys(flow).runs, *numbers),), parse)


def all_index_lines(flow: FlowName) -> Operation[list[RunEntry]]:
    """All of the index's lines of a flow, newest first."""

    def parse(replies: list[type_of_reply]) -> list[RunEntry]:
        pairs = iter(replies[0])
        lines = {int(number): line for number, line in zip(pairs, pairs, strict=True)}
        return [_entry(flow, number, lines[number]) for number in sorted(lines, reverse=True)]

    return Operation((("HGETALL", flow_keys(flow).runs),), parse)


def _entry(flow: FlowName, number: int, line: bytes) -> RunEntry:
    shard, summary = msgpack.unpackb(line, strict_map_key=False)
    return RunEntry(RunId(flow, RunNumber(number)), shard, summary)
