"""The exchanges of those who look after a log's life, as values (see `evflow.log.commands`)."""

from collections.abc import Iterable, Mapping, Sequence

import msgpack

from evflow.core.ids import FlowName, RunId, RunNumber, Seq
from evflow.log import archived as notes
from evflow.log.archived import SEGMENT_EVENTS, Archived, Projection
from evflow.log.commands import Operation, receive
from evflow.log.flow_commands import FlowLogMoved, line_of, look_at_us
from evflow.log.keys import BACKFILLED, FLOWS, flow_keys, own_shard, run_keys, shard_keys
from evflow.log.protocol import Head, Inbound, RunEntry
from evflow.log.scripts import invocation
from evflow.log.wire import Argument, Command, type_of_reply

_SEGMENT = b"log:"


def archived(run: RunId) -> Operation[Archived | None]:
    """Where a run's archive is."""
    return Operation((("HGET", flow_keys(run.flow).archives, run.number),), _note)


def gone(shard: str, run: RunId) -> Operation[Archived | None]:
    """Where a run's archive is, if the server has no event of the run."""

    def parse(replies: list[type_of_reply]) -> Archived | None:
        return None if replies[0] else _note(replies[1:])

    return Operation((("EXISTS", run_keys(shard, run).stream), ("HGET", flow_keys(run.flow).archives, run.number)), parse)


def segment(flow: FlowName, number: int) -> Operation[Archived | None]:
    """Where a segment of a flow's log is."""
    return Operation((("HGET", flow_keys(flow).archives, b"%s%d" % (_SEGMENT, number)),), _note)


def all_archived(flow: FlowName) -> Operation[dict[RunNumber, Archived]]:
    """The archives of a flow's runs."""

    def parse(replies: list[type_of_reply]) -> dict[RunNumber, Archived]:
        return {RunNumber(int(name)): notes.unpacked(note) for name, note in _pairs(replies[0]) if not name.startswith(_SEGMENT)}

    return Operation((("HGETALL", flow_keys(flow).archives),), parse)


def segments(flow: FlowName) -> Operation[dict[int, Archived]]:
    """The archived segments of a flow's own log."""

    def parse(replies: list[type_of_reply]) -> dict[int, Archived]:
        found = ((name, note) for name, note in _pairs(replies[0]) if name.startswith(_SEGMENT))
        return {int(name.removeprefix(_SEGMENT)): notes.unpacked(note) for name, note in found}

    return Operation((("HGETALL", flow_keys(flow).archives),), parse)


def hot(flows: Sequence[FlowName], until_us: int | None, limit: int) -> Operation[list[list[RunNumber]]]:
    """Runs with a log at the server, for each flow."""
    until: Argument = "+inf" if until_us is None else until_us
    asked = tuple(("ZRANGEBYSCORE", flow_keys(flow).hot, "-inf", until, "LIMIT", 0, limit) for flow in flows)
    return Operation(asked, lambda replies: [[RunNumber(int(number)) for number in reply] for reply in replies])


def look_again(run: RunId, at_us: int | None) -> Operation[None]:
    """Set when a run is to be looked at, or that it need not be."""
    key = flow_keys(run.flow).hot
    return Operation((("ZREM", key, run.number) if at_us is None else ("ZADD", key, at_us, run.number),), _nothing)


def drop_run(shard: str, run: RunId, head: Head, linger_s: float) -> Operation[bool]:
    """Remove a sealed run's log."""
    of_run, of_shard = run_keys(shard, run), shard_keys(shard)
    keys = (of_run.stream, of_run.meta, of_shard.active, of_shard.timers, of_shard.inbox, of_shard.feed)
    alone = "1" if shard == own_shard(run) else "0"
    dropped = invocation("drop_run", keys, str(run), head.seq, head.digest, round(linger_s * 1_000), alone)
    return Operation((dropped,), lambda replies: replies[0] == 1)


def trim_flow(flow: FlowName, number: int, note: Archived) -> Operation[None]:
    """Remove the old part of a flow's log."""
    keys = flow_keys(flow)
    last = (number + 1) * SEGMENT_EVENTS
    return Operation((invocation("trim_flow", (keys.log, keys.archives), b"%s%d" % (_SEGMENT, number), notes.pack(note), last),), _nothing)


def inbox(shard: str, after: bytes) -> Operation[list[Inbound]]:
    """Reports that wait."""
    return receive(shard, after, 0.0)


def list_run(entry: RunEntry, *, only_missing: bool) -> Operation[bool]:
    """Write a run's line; answers whether it was missing."""
    keys = flow_keys(entry.run.flow)
    commands: list[Command] = [("HSETNX" if only_missing else "HSET", keys.runs, entry.run.number, line_of(entry))]
    return Operation((("SADD", FLOWS, entry.run.flow), *commands), lambda replies: replies[1] == 1)


def heat(entry: RunEntry) -> Operation[None]:
    """Note that a run's log is at the server, if that is not noted."""
    look = look_at_us(entry)
    return Operation((("ZADD", flow_keys(entry.run.flow).hot, "NX", look[0] if look else 0, entry.run.number),), _nothing)


def unlist(run: RunId) -> Operation[None]:
    """Remove a run's line and what belongs to it."""
    keys = flow_keys(run.flow)
    return Operation((("HDEL", keys.runs, run.number), ("HDEL", keys.tags, run.number), ("ZREM", keys.hot, run.number)), _nothing)


def note(flow: FlowName, found: Mapping[RunNumber, Archived]) -> Operation[None]:
    """Note archives where none is noted."""
    keys = flow_keys(flow)
    noted = tuple(("HSETNX", keys.archives, number, notes.pack(archive)) for number, archive in found.items())
    return Operation((("SADD", FLOWS, flow), *noted), _nothing)


def project(flow: FlowName, expected: int, projection: Projection) -> Operation[None]:
    """Write what is kept beside a flow's log: raises FlowLogMoved."""
    keys = flow_keys(flow)
    arguments: list[Argument] = [expected, projection.counter, len(projection.tags), len(projection.deployments)]
    for number, of_run in projection.tags.items():
        arguments += (number, msgpack.packb(of_run))
    for name, packed in projection.deployments.items():
        arguments += (name, packed)
    for backfill, packed in projection.backfills.items():
        arguments += (backfill, packed)
    register: tuple[Command, ...] = (("SADD", BACKFILLED, flow),) if projection.backfills else ()

    def parse(replies: list[type_of_reply]) -> None:
        done, seq = replies[-1]
        if not done:
            raise FlowLogMoved(flow, expected, Seq(seq))

    return Operation((*register, invocation("project", (keys.meta, keys.tags, keys.deployments, keys.backfills), *arguments)), parse)


def _note(replies: list[type_of_reply]) -> Archived | None:
    return None if replies[0] is None else notes.unpacked(replies[0])


def _pairs(reply: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    pairs = iter(reply)
    return zip(pairs, pairs, strict=True)


def _nothing(_: list[type_of_reply]) -> None:
    return None
