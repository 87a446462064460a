"""Every exchange with the server, as values: the commands to send and how to read their replies.

Sans I/O, so that the blocking client and the asynchronous log share each command and each parser: nothing about
Redis is written twice. An `Operation` is sent in one write; where its last command runs a script, `repaired`
gives the command for a server that does not hold the script. Here are those about a run and about what is published;
what stands outside of runs is in `evflow.log.flow_commands`.

Replies are RESP2's (`evflow.log.wire` says why): bytes, int, None and lists.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

from evflow.core.chain import LINK_BYTES
from evflow.core.ids import FlowName, Micros, RunId
from evflow.log.errors import AppendTooLarge, DurabilityLate, LogForeign, ScriptMissing
from evflow.log.keys import EVENT_KEYS, INSTALLATION, SCHEDULERS, is_own, run_keys, shard_keys
from evflow.log.protocol import (
    MAX_APPEND_BYTES,
    MAX_APPEND_CONSUMED,
    MAX_APPEND_EVENTS,
    AppendCall,
    EventBounds,
    Head,
    HeadMoved,
    Inbound,
    Keep,
    Lease,
    LeaseHeld,
    LeaseLost,
    Placed,
    PublishedEvent,
    StoredEvent,
)
from evflow.log.scripts import invocation, with_source
from evflow.log.wire import Argument, Command, Following, type_of_reply

T = TypeVar("T")
_new = cast("Any", tuple).__new__
INBOX_BATCH = MAX_APPEND_CONSUMED
"""Reports that are received at once: no more than one call may consume."""
_MICROS = 1_000_000
_DROPPED = "dropped:"


class Operation(Generic[T]):
    """Commands that are sent in one write, and what their replies mean."""

    __slots__ = ("commands", "parse")

    def __init__(self, commands: tuple[Command, ...], parse: Callable[[list[type_of_reply]], T]) -> None:
        self.commands = commands
        self.parse = parse


def together(operations: Sequence[Operation[Any]]) -> Operation[None]:
    """Operations in one exchange, one behind the other; raises what they do."""

    def parse(replies: list[type_of_reply]) -> None:
        at = 0
        for operation in operations:
            operation.parse(replies[at : at + len(operation.commands)])
            at += len(operation.commands)

    return Operation(tuple(command for operation in operations for command in operation.commands), parse)


def repaired(operation: Operation[Any], replies: list[type_of_reply]) -> dict[int, Command]:
    """The commands to send again because the server did not hold their scripts, by their places."""
    return {at: with_source(operation.commands[at]) for at, reply in enumerate(replies) if isinstance(reply, ScriptMissing)}


def finished(operation: Operation[T], replies: list[type_of_reply], where: str) -> T:
    """What the replies mean.

    Raises:
        LogUnavailable: The server at `where` refused one of the commands, or answers as no Redis does.
        Conflict: As the operation says.
    """
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    try:
        return operation.parse(replies)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        said = ", ".join(repr(reply)[:50] for reply in replies)
        raise LogForeign(where, f"to {operation.commands[0][0]!r} it says {said}") from error


# --- the owner's side ------------------------------------------------------------------------------------


def take(shard: str, owner: str, ttl_s: float, since: int = 0) -> Operation[Lease]:
    """Take a shard's lease: raises LeaseHeld."""

    def parse(replies: list[type_of_reply]) -> Lease:
        answer, *rest = replies[0]
        if answer == b"ok":
            return Lease(shard, owner, int(rest[0]), ttl_s)
        raise LeaseHeld(shard, rest[0].decode(), int(rest[1]) / _MICROS, int(rest[2]))

    return Operation((_lease(shard, "take", owner, _micros(ttl_s), since),), parse)


def renew(lease: Lease) -> Operation[None]:
    """Extend a lease: raises LeaseLost."""

    def parse(replies: list[type_of_reply]) -> None:
        if replies[0][0] != b"ok":
            raise LeaseLost(lease.shard, replies[0][1].decode(), int(replies[0][3]))

    return Operation((_lease(lease.shard, "renew", lease.owner, _micros(lease.ttl_s), lease.epoch),), parse)


def release(lease: Lease) -> Operation[None]:
    """Give a lease back, if it is still ours."""
    ends = "ends" if is_own(lease.shard) else ""
    return Operation((_lease(lease.shard, "release", lease.owner, 0, lease.epoch, ends),), nothing)


def check_limits(call: AppendCall) -> None:
    """See that a call may be sent.

    Raises:
        AppendTooLarge: It holds too many events, consumed ids or bytes.
        ValueError: Events and links differ in number.
    """
    if len(call.events) != len(call.links):
        raise ValueError(f"{len(call.events)} events with {len(call.links)} links")
    size = sum(map(len, call.events))
    for what, count, limit in (
        ("events", len(call.events), MAX_APPEND_EVENTS),
        ("consumed reports", len(call.consumed), MAX_APPEND_CONSUMED),
        ("bytes of events", size, MAX_APPEND_BYTES),
    ):
        if count > limit:
            raise AppendTooLarge(what, count, limit)


def after(call: AppendCall) -> Head:
    """The head that the call leads to."""
    if not call.events:
        return call.expected
    return Head(call.expected.seq + len(call.events), call.links[-1], call.status)


def bury(shard: str, owner: str) -> Operation[None]:
    """End the lease of an owner whose process is known to be gone."""
    return Operation((_lease(shard, "bury", owner, 0),), nothing)


def append(lease: Lease, call: AppendCall) -> Operation[Head]:
    """Append whole turns: raises LeaseLost, HeadMoved, AppendTooLarge."""
    check_limits(call)
    shard, run = shard_keys(lease.shard), run_keys(lease.shard, call.run)
    new = after(call)
    arguments: list[Argument] = [
        lease.owner, lease.epoch, str(call.run), call.expected.seq, call.expected.digest, new.digest, call.status,
        "" if call.wake_at_us is None else call.wake_at_us, len(call.events), len(call.consumed), len(call.dropped),
    ]  # fmt: skip
    for payload, link in zip(call.events, call.links, strict=True):
        arguments += (payload, link[:LINK_BYTES])
    arguments += call.consumed
    for reason, count in call.dropped.items():
        arguments += (reason, count)
    keys = (shard.lease, run.stream, run.meta, shard.inbox, shard.feed, shard.active, shard.timers)

    def parse(replies: list[type_of_reply]) -> Head:
        answer, *rest = replies[0]
        if answer == b"ok":
            return new
        if answer == b"lease":
            raise LeaseLost(lease.shard, rest[0].decode(), int(rest[1]))
        raise HeadMoved(call.run, call.expected, Head(int(rest[0]), rest[1], rest[2].decode()))

    return Operation((invocation("append", keys, *arguments),), parse)


def receive(shard: str, after: bytes, timeout_s: float) -> Operation[list[Inbound]]:
    """Reports behind an entry, waiting for the first one at the server."""
    inbox = shard_keys(shard).inbox
    return Operation((_blocking_read(inbox, after, timeout_s, INBOX_BATCH),), _inbound)


def active(shard: str) -> Operation[list[RunId]]:
    """The shard's runs that are not sealed, in order."""
    return Operation((("SMEMBERS", shard_keys(shard).active),), lambda replies: sorted(RunId.parse(run.decode()) for run in replies[0]))


def server_time() -> Operation[Micros]:
    """The server's clock."""
    return Operation((("TIME",),), lambda replies: Micros(_time_us(replies[0])))


def fsynced(where: str, timeout_s: float, barrier: str) -> Operation[None]:
    """Wait until this connection's writes are on the server's disk (Redis 7.2 and newer, Valkey); `barrier`: a key to write before."""

    def parse(replies: list[type_of_reply]) -> None:
        if replies[-1][0] < 1:
            raise DurabilityLate(where, "fsync", f"its disk did not take the writes within {timeout_s:g} s")

    return Operation((*_barrier(barrier), ("WAITAOF", 1, 0, round(timeout_s * 1_000))), parse)


def fsync_policy() -> Operation[str]:
    """The server's `appendfsync`, or `off` where it keeps no append-only file."""

    def parse(replies: list[type_of_reply]) -> str:
        only, policy = (str(reply[1].decode()) if len(reply) > 1 else "" for reply in replies)
        return policy if only == "yes" else "off"

    return Operation((("CONFIG", "GET", "appendonly"), ("CONFIG", "GET", "appendfsync")), parse)


def knows_waitaof() -> Operation[bool]:
    """Whether the server can be asked to wait for its disk."""
    return Operation((("COMMAND", "INFO", "WAITAOF"),), lambda replies: bool(replies[0] and replies[0][0]))


def eviction_policy() -> Operation[str]:
    """The server's `maxmemory-policy`; an empty string where it does not tell."""

    def parse(replies: list[type_of_reply]) -> str:
        text = replies[0] if isinstance(replies[0], str) else replies[0].decode()
        return next((line.partition(":")[2] for line in text.splitlines() if line.startswith("maxmemory_policy:")), "")

    return Operation((("INFO", "memory"),), parse)


def replicas() -> Operation[int]:
    """How many replicas are connected to the server."""

    def parse(replies: list[type_of_reply]) -> int:
        text = replies[0] if isinstance(replies[0], str) else replies[0].decode()
        found = [line.partition(":")[2] for line in text.splitlines() if line.startswith("connected_slaves:")]
        return int(found[0]) if found else 0

    return Operation((("INFO", "replication"),), parse)


def replicated(where: str, timeout_s: float, barrier: str) -> Operation[None]:
    """Wait until a replica has this connection's writes; `barrier`: a key to write before, or an empty string."""

    def parse(replies: list[type_of_reply]) -> None:
        if replies[-1] < 1:
            raise DurabilityLate(where, "replicated", f"no replica acknowledged the writes within {timeout_s:g} s")

    return Operation((*_barrier(barrier), ("WAIT", 1, round(timeout_s * 1_000))), parse)


# --- reading ---------------------------------------------------------------------------------------------


def head(shard: str, run: RunId) -> Operation[Head]:
    """The end of a run's log."""

    def parse(replies: list[type_of_reply]) -> Head:
        seq, digest, status = replies[0]
        return Head() if seq is None else Head(int(seq), digest, status.decode())

    return Operation((("HMGET", run_keys(shard, run).meta, "seq", "digest", "status"),), parse)


def heads(shard: str, runs: Sequence[RunId]) -> Operation[list[Head]]:
    """The ends of runs' logs, in order."""
    each = [head(shard, run) for run in runs]
    commands = tuple(command for one in each for command in one.commands)
    return Operation(commands, lambda replies: [one.parse([reply]) for one, reply in zip(each, replies, strict=True)])


def read(shard: str, run: RunId, after: int, limit: int) -> Operation[list[StoredEvent]]:
    """Events of a run behind a position."""
    return Operation((_page(shard, run, after, limit),), lambda replies: stored_events(replies[0]))


def following_page(shard: str, run: RunId, limit: int) -> Following:
    """What reads the page behind one that was read, while pages are full."""

    def following(entries: type_of_reply) -> Command | None:
        return _page(shard, run, seq_of(entries[-1][0]), limit) if len(entries) == limit else None

    return following


def follow(shard: str, run: RunId, after: int, timeout_s: float, limit: int) -> Operation[list[StoredEvent]]:
    """Events of a run behind a position, waiting for the first one at the server."""
    stream = run_keys(shard, run).stream

    def parse(replies: list[type_of_reply]) -> list[StoredEvent]:
        return stored_events(replies[0][0][1]) if replies[0] else []

    return Operation((_blocking_read(stream, b"%d-0" % after, timeout_s, limit),), parse)


def stored_events(entries: list[type_of_reply]) -> list[StoredEvent]:
    """A stream's entries as events.

    Ids of a stream only rise; so where the last one is as far from the first as there are entries, all between
    are dense, and no other id is read. This is what makes a replay's reading cheap.
    """
    if not entries:
        return []
    first = seq_of(entries[0][0])
    try:
        if seq_of(entries[-1][0]) - first == len(entries) - 1:
            # As `StoredEvent(…)` does it, without the call of a function in Python for each of a hundred thousand.
            return [_new(StoredEvent, (seq, values[1], values[3])) for seq, (_, values) in enumerate(entries, first)]
        return [StoredEvent(seq_of(entry), values[1], values[3]) for entry, values in entries]
    except IndexError:  # Somebody else wrote there. It is passed on as an event without bytes, so that readers can name it.
        return [StoredEvent(seq_of(entry), *((values[1], values[3]) if len(values) > 3 else (b"", b""))) for entry, values in entries]


# --- everybody's side ------------------------------------------------------------------------------------


def report(shard: str, run: RunId, payload: bytes) -> Operation[bool]:
    """Put a report into a shard's inbox: False where the run is sealed."""
    keys = (shard_keys(shard).inbox, run_keys(shard, run).meta)
    return Operation((invocation("report", keys, str(run), payload),), lambda replies: replies[0] is not None)


def dropped(shard: str, run: RunId) -> Operation[dict[str, int]]:
    """Reason to number of the run's reports that did not become events."""

    def parse(replies: list[type_of_reply]) -> dict[str, int]:
        pairs = iter(replies[0])
        return {
            name.decode().removeprefix(_DROPPED): int(count)
            for name, count in zip(pairs, pairs, strict=True)
            if name.startswith(_DROPPED.encode())
        }

    return Operation((("HGETALL", run_keys(shard, run).meta),), parse)


def lease_owner(shard: str) -> Operation[tuple[str, float] | None]:
    """Who holds a shard's lease and for how many seconds more."""

    def parse(replies: list[type_of_reply]) -> tuple[str, float] | None:
        owner, expires = replies[0]
        left_s = (int(expires or 0) - _time_us(replies[1])) / _MICROS
        return (owner.decode(), left_s) if owner and left_s > 0 else None

    return Operation((("HMGET", shard_keys(shard).lease, "owner", "expires"), ("TIME",)), parse)


def installation(candidate: str) -> Operation[str]:
    """The log's identity: the candidate becomes it where none is set."""
    return Operation((("SETNX", INSTALLATION, candidate), ("GET", INSTALLATION)), lambda replies: str(replies[1].decode()))


def schedulers(name: str = "", ttl_s: float = 0.0) -> Operation[list[str]]:
    """The schedulers that live, after one of them said that it does (for a time), or that it ends (0)."""
    command = invocation("schedulers", (SCHEDULERS,), name, _micros(ttl_s))
    return Operation((command,), lambda replies: [living.decode() for living in replies[0]])


# --- what is published -----------------------------------------------------------------------------------


def publish(event_id: str, body: bytes, keep: Keep) -> Operation[Placed]:
    """Publish an event, unless its id is known."""
    keys = (EVENT_KEYS.log, EVENT_KEYS.meta, EVENT_KEYS.ids)
    return Operation(
        (invocation("publish", keys, event_id, body, keep.time_us, keep.most),), lambda replies: Placed(replies[0][1], replies[0][0] == 1)
    )


def published(after_us: int, limit: int, timeout_s: float = 0.0) -> Operation[list[PublishedEvent]]:
    """Published events after an instant, waiting for the first one at the server."""

    def parse(replies: list[type_of_reply]) -> list[PublishedEvent]:
        entries: list[type_of_reply] = replies[0][0][1] if replies[0] else []
        # What somebody else put there is passed on as an event without id and bytes: readers get past it, and can name it.
        return [
            PublishedEvent(seq_of(entry), values[1].decode(), values[3])
            if values[:3:2] == [b"i", b"e"]
            else PublishedEvent(seq_of(entry), "", b"")
            for entry, values in entries
        ]

    return Operation((_blocking_read(EVENT_KEYS.log, b"%d-0" % after_us, timeout_s, limit),), parse)


def event_bounds() -> Operation[EventBounds]:
    """Where the log of published events begins and ends."""
    command = ("HMGET", EVENT_KEYS.meta, "trimmed", "last")
    return Operation((command,), lambda replies: EventBounds(*(int(reply or 0) for reply in replies[0])))


def looked_at() -> Operation[dict[FlowName, int]]:
    """Up to where what was published has been looked at, for each flow."""

    def parse(replies: list[type_of_reply]) -> dict[FlowName, int]:
        pairs = iter(replies[0])
        return {FlowName(flow.decode()): int(until_us) for flow, until_us in zip(pairs, pairs, strict=True)}

    return Operation((("HGETALL", EVENT_KEYS.looked),), parse)


def look_at(until_us: dict[FlowName, int]) -> Operation[None]:
    """Say up to where what was published has been looked at, for some flows."""
    fields = [part for pair in until_us.items() for part in pair]
    return Operation((("HSET", EVENT_KEYS.looked, *fields),), nothing)


# --- parts -----------------------------------------------------------------------------------------------


def _lease(shard: str, verb: str, owner: str, ttl_us: int, epoch: int = 0, ends: str = "") -> Command:
    keys = shard_keys(shard)
    return invocation("lease", (keys.lease, keys.active, keys.inbox, keys.feed), verb, owner, ttl_us, epoch, ends)


def _page(shard: str, run: RunId, after: int, limit: int) -> Command:
    return ("XRANGE", run_keys(shard, run).stream, after + 1, "+", "COUNT", limit)


def _blocking_read(stream: str, after: bytes, timeout_s: float, limit: int) -> Command:
    # BLOCK 0 would wait for ever.
    block = () if timeout_s <= 0 else ("BLOCK", max(1, round(timeout_s * 1_000)))
    return ("XREAD", "COUNT", limit, *block, "STREAMS", stream, after)


def _barrier(key: str) -> tuple[Command, ...]:
    return (("SET", key, "1", "PX", 1_000),) if key else ()


def _inbound(replies: list[type_of_reply]) -> list[Inbound]:
    if not replies[0]:
        return []
    # What somebody else put there is passed on as an empty report, so that it is consumed and counted as well.
    return [
        Inbound(entry, values[1].decode(errors="replace"), values[3]) if _is_report(values) else Inbound(entry, "", b"")
        for entry, values in replies[0][0][1]
    ]


def _is_report(values: list[bytes]) -> bool:
    return len(values) == 4 and values[0] == b"r" and values[2] == b"p"


def seq_of(entry: bytes) -> int:
    """The position that a stream's id stands for: what is before its dash."""
    return int(entry[: entry.index(b"-")])


def _time_us(reply: list[bytes]) -> int:
    return int(reply[0]) * _MICROS + int(reply[1])


def _micros(seconds: float) -> int:
    return round(seconds * _MICROS)


def nothing(_: list[type_of_reply]) -> None:
    """What replies mean that nobody waits for."""
    return
