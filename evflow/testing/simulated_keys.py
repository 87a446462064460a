"""Redis's keys in memory, as far as the message queue of a pool needs them: streams with consumer groups, hashes, sorted sets, sets.

Exact for these commands and these options, replies included (RESP2's): compared act by act with real servers by
`tests/contract/test_pool_queue_model.py`. Time comes in with each command, so that a journal of commands can be played again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

EntryId = tuple[int, int]
_FIRST: Final[EntryId] = (0, 0)
_LAST: Final[EntryId] = (2**63, 0)


class RefusedByServer(Exception):
    """An error reply, as the server words it."""


@dataclass(slots=True)
class Group:
    """A consumer group: up to where it was read, and what was read by whom and not acknowledged."""

    delivered: EntryId = _FIRST
    pending: dict[EntryId, bytes] = field(default_factory=dict[EntryId, bytes])


@dataclass(slots=True)
class Stream:
    """A stream's entries, in order."""

    entries: dict[EntryId, list[bytes]] = field(default_factory=dict[EntryId, list[bytes]])
    last: EntryId = _FIRST
    groups: dict[bytes, Group] = field(default_factory=dict[bytes, Group])


@dataclass(slots=True)
class Keys:
    """All keys, by kind."""

    streams: dict[bytes, Stream] = field(default_factory=dict[bytes, Stream])
    hashes: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict[bytes, dict[bytes, bytes]])
    scores: dict[bytes, dict[bytes, int]] = field(default_factory=dict[bytes, dict[bytes, int]])
    members: dict[bytes, set[bytes]] = field(default_factory=dict[bytes, set[bytes]])

    def call(self, now_us: int, name: str, *arguments: bytes) -> Any:
        """Carry a command out.

        Args:
            now_us: The server's clock.
            name: The command, in capitals.
            arguments: What follows it.

        Raises:
            RefusedByServer: A group that does not exist is read.
            KeyError: No such command is simulated.
        """
        return _COMMANDS[name](self, now_us, *arguments)

    def time(self, now_us: int) -> list[bytes]:
        """TIME."""
        seconds, micros = divmod(now_us, 1_000_000)
        return [b"%d" % seconds, b"%d" % micros]

    def flush(self, _now_us: int) -> bytes:
        """FLUSHALL."""
        for kept in (self.streams, self.hashes, self.scores, self.members):
            kept.clear()
        return b"OK"

    def delete(self, _now_us: int, *keys: bytes) -> int:
        """DEL."""
        gone = 0
        for key in keys:
            found = [kept.pop(key, None) for kept in (self.streams, self.hashes, self.scores, self.members)]
            gone += any(one is not None for one in found)
        return gone

    def exists(self, _now_us: int, key: bytes) -> int:
        """EXISTS of one key: what is empty is none, except for a stream."""
        return int(key in self.streams or any(kept.get(key) for kept in (self.hashes, self.scores, self.members)))

    def expire(self, _now_us: int, key: bytes, _seconds: bytes) -> int:
        """EXPIRE; what is meant for a live view is kept here for as long as the simulation lasts."""
        return int(key in self.streams)

    # --- sets, hashes, sorted sets -----------------------------------------------------------------------

    def sadd(self, _now_us: int, key: bytes, *members: bytes) -> int:
        """SADD."""
        held = self.members.setdefault(key, set())
        before = len(held)
        held.update(members)
        return len(held) - before

    def smembers(self, _now_us: int, key: bytes) -> list[bytes]:
        """SMEMBERS."""
        return sorted(self.members.get(key, ()))

    def hget(self, _now_us: int, key: bytes, name: bytes) -> bytes | None:
        """HGET."""
        return self.hashes.get(key, {}).get(name)

    def hset(self, _now_us: int, key: bytes, name: bytes, value: bytes) -> int:
        """HSET of one field."""
        held = self.hashes.setdefault(key, {})
        new = name not in held
        held[name] = value
        return int(new)

    def hdel(self, _now_us: int, key: bytes, *names: bytes) -> int:
        """HDEL."""
        held = self.hashes.get(key, {})
        return sum(held.pop(name, None) is not None for name in names)

    def hincrby(self, _now_us: int, key: bytes, name: bytes, by: bytes) -> int:
        """HINCRBY."""
        held = self.hashes.setdefault(key, {})
        held[name] = b"%d" % (int(held.get(name, b"0")) + int(by))
        return int(held[name])

    def hexists(self, _now_us: int, key: bytes, name: bytes) -> int:
        """HEXISTS."""
        return int(name in self.hashes.get(key, {}))

    def hlen(self, _now_us: int, key: bytes) -> int:
        """HLEN."""
        return len(self.hashes.get(key, {}))

    def hgetall(self, _now_us: int, key: bytes) -> list[bytes]:
        """HGETALL."""
        return [part for pair in self.hashes.get(key, {}).items() for part in pair]

    def zadd(self, _now_us: int, key: bytes, score: bytes, member: bytes) -> int:
        """ZADD of one member with a whole score."""
        held = self.scores.setdefault(key, {})
        new = member not in held
        held[member] = int(score)
        return int(new)

    def zrem(self, _now_us: int, key: bytes, member: bytes) -> int:
        """ZREM of one member."""
        return int(self.scores.get(key, {}).pop(member, None) is not None)

    def zscore(self, _now_us: int, key: bytes, member: bytes) -> bytes | None:
        """ZSCORE."""
        score = self.scores.get(key, {}).get(member)
        return None if score is None else b"%d" % score

    def zcard(self, _now_us: int, key: bytes) -> int:
        """ZCARD."""
        return len(self.scores.get(key, {}))

    def zrange(self, _now_us: int, key: bytes, _first: bytes, last: bytes, *with_scores: bytes) -> list[bytes]:
        """ZRANGE from 0."""
        ranked = self._ranked(key)
        found = ranked if last == b"-1" else ranked[: int(last) + 1]
        return [part for score, member in found for part in ((member, b"%d" % score) if with_scores else (member,))]

    def zrangebyscore(self, _now_us: int, key: bytes, _least: bytes, most: bytes) -> list[bytes]:
        """ZRANGEBYSCORE from -inf."""
        return [member for score, member in self._ranked(key) if score <= int(most)]

    def _ranked(self, key: bytes) -> list[tuple[int, bytes]]:
        return sorted((score, member) for member, score in self.scores.get(key, {}).items())

    # --- streams -----------------------------------------------------------------------------------------

    def xadd(self, now_us: int, key: bytes, *words: bytes) -> bytes:
        """XADD with an id of the server's; MAXLEN is not reached by any simulation."""
        values = list(words[words.index(b"*") + 1 :])
        stream = self.streams.setdefault(key, Stream())
        now_ms = now_us // 1_000
        stream.last = (now_ms, 0) if now_ms > stream.last[0] else (stream.last[0], stream.last[1] + 1)
        stream.entries[stream.last] = values
        return shown(stream.last)

    def xdel(self, _now_us: int, key: bytes, *entries: bytes) -> int:
        """XDEL."""
        held = self.streams.get(key, Stream()).entries
        return sum(held.pop(read_id(entry), None) is not None for entry in entries)

    def xlen(self, _now_us: int, key: bytes) -> int:
        """XLEN."""
        return len(self.streams.get(key, Stream()).entries)

    def xrange(self, _now_us: int, key: bytes, first: bytes, last: bytes, *count: bytes) -> list[Any]:
        """XRANGE, with COUNT or without."""
        least, most = _FIRST if first == b"-" else read_id(first), _LAST if last == b"+" else read_id(last)
        found = [(entry, values) for entry, values in self.streams.get(key, Stream()).entries.items() if least <= entry <= most]
        return _listed(found[: int(count[1])] if count else found)

    def xread(self, _now_us: int, *words: bytes) -> list[Any] | None:
        """XREAD of one stream, as it is now: waiting is the connection's matter."""
        key, after = words[-2:]
        held = self.streams.get(key, Stream()).entries
        found = [(entry, values) for entry, values in held.items() if entry > read_id(after)][: _count(words)]
        return [[key, _listed(found)]] if found else None

    def xreadgroup(self, _now_us: int, _group: bytes, group: bytes, consumer: bytes, *words: bytes) -> list[Any] | None:
        """XREADGROUP of one stream's new entries, as it is now."""
        key = words[-2]
        held = self._group(key, group)
        stream = self.streams[key]
        found = [(entry, values) for entry, values in stream.entries.items() if entry > held.delivered][: _count(words)]
        for entry, _ in found:
            held.delivered = entry
            held.pending[entry] = consumer
        return [[key, _listed(found)]] if found else None

    def xack(self, _now_us: int, key: bytes, group: bytes, *entries: bytes) -> int:
        """XACK."""
        held = self.streams.get(key, Stream()).groups.get(group, Group())
        return sum(held.pending.pop(read_id(entry), None) is not None for entry in entries)

    def xpending(self, _now_us: int, key: bytes, group: bytes, *words: bytes) -> list[Any]:
        """XPENDING: the summary, or a consumer's entries."""
        pending = sorted(self._group(key, group).pending.items())
        if words:
            _, _, count, consumer = words
            mine = [entry for entry, owner in pending if owner == consumer]
            return [[shown(entry), consumer, 0, 1] for entry in mine[: int(count)]]
        if not pending:
            return [0, None, None, None]
        owners = sorted({owner for _, owner in pending})
        each = [[owner, b"%d" % sum(one == owner for _, one in pending)] for owner in owners]
        return [len(pending), shown(pending[0][0]), shown(pending[-1][0]), each]

    def xgroup(self, _now_us: int, verb: bytes, key: bytes, group: bytes, *words: bytes) -> Any:
        """XGROUP CREATE from the stream's beginning, and DELCONSUMER."""
        if verb == b"CREATE":
            groups = self.streams.setdefault(key, Stream()).groups
            if group in groups:
                raise RefusedByServer("BUSYGROUP Consumer Group name already exists")
            groups[group] = Group()
            return b"OK"
        held = self._group(key, group)
        mine = [entry for entry, owner in held.pending.items() if owner == words[0]]
        for entry in mine:
            del held.pending[entry]
        return len(mine)

    def _group(self, key: bytes, group: bytes) -> Group:
        stream = self.streams.get(key)
        if stream is None or group not in stream.groups:
            raise RefusedByServer(f"NOGROUP No such key '{key.decode()}' or consumer group '{group.decode()}'")
        return stream.groups[group]


def read_id(entry: bytes) -> EntryId:
    """A stream's id as what it compares as."""
    time_ms, _, number = entry.partition(b"-")
    return int(time_ms), int(number or 0)


def shown(entry: EntryId) -> bytes:
    """An id as the server writes it."""
    return b"%d-%d" % entry


def _listed(found: Sequence[tuple[EntryId, list[bytes]]]) -> list[Any]:
    return [[shown(entry), list(values)] for entry, values in found]


def _count(words: Sequence[bytes]) -> int:
    return int(words[words.index(b"COUNT") + 1])


_COMMANDS: Final[dict[str, Callable[..., Any]]] = {
    "TIME": Keys.time,
    "FLUSHALL": Keys.flush,
    "DEL": Keys.delete,
    "EXISTS": Keys.exists,
    "EXPIRE": Keys.expire,
    "SADD": Keys.sadd,
    "SMEMBERS": Keys.smembers,
    "HGET": Keys.hget,
    "HSET": Keys.hset,
    "HDEL": Keys.hdel,
    "HINCRBY": Keys.hincrby,
    "HEXISTS": Keys.hexists,
    "HLEN": Keys.hlen,
    "HGETALL": Keys.hgetall,
    "ZADD": Keys.zadd,
    "ZREM": Keys.zrem,
    "ZSCORE": Keys.zscore,
    "ZCARD": Keys.zcard,
    "ZRANGE": Keys.zrange,
    "ZRANGEBYSCORE": Keys.zrangebyscore,
    "XADD": Keys.xadd,
    "XDEL": Keys.xdel,
    "XLEN": Keys.xlen,
    "XRANGE": Keys.xrange,
    "XREAD": Keys.xread,
    "XREADGROUP": Keys.xreadgroup,
    "XACK": Keys.xack,
    "XPENDING": Keys.xpending,
    "XGROUP": Keys.xgroup,
}
