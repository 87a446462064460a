"""Which server of a cluster has a key: pure.

A key's slot is the checksum (CRC-16, XMODEM) of its hash tag modulo 16,384; https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec
has the rules. All keys of a shard share a tag, and so do all of a flow, so a script's keys are on one server.
"""

from binascii import crc_hqx
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from evflow.log.keys import INSTALLATION
from evflow.log.wire import Argument, Command, type_of_reply

SLOTS: Final = 16_384
_KEYLESS: Final = frozenset({"COMMAND", "CONFIG", "INFO", "PING", "ROLE", "TIME", "WAIT", "WAITAOF"})
_READS: Final = frozenset({
    "EXISTS", "GET", "HGET", "HGETALL", "HLEN", "HMGET", "SMEMBERS", "TYPE", "XLEN", "XRANGE", "XREAD", "XREVRANGE", "ZCARD", "ZRANGE", "ZSCORE",
})  # fmt: skip
WAITS: Final = frozenset({"WAIT", "WAITAOF"})


class Node(NamedTuple):
    """A server of a cluster."""

    host: str
    port: int


class Topology:
    """Who has which slots.

    Args:
        ranges: First and last slot, and the primary that has them.
    """

    def __init__(self, ranges: Sequence[tuple[int, int, Node]]) -> None:
        self._ranges = sorted(ranges)
        self._firsts = [first for first, _, _ in self._ranges]

    @classmethod
    def read(cls, reply: type_of_reply, seed: Node) -> "Topology":
        """What CLUSTER SLOTS says; a server without a name is the one that was asked."""
        return cls([(int(first), int(last), _node(primary, seed)) for first, last, primary, *_ in reply])

    @property
    def primaries(self) -> list[Node]:
        """All primaries."""
        return sorted({node for _, _, node in self._ranges})

    def of_slot(self, slot: int) -> Node | None:
        """The primary of a slot, or None where nobody has it."""
        place = bisect_right(self._firsts, slot) - 1
        if place < 0 or slot > self._ranges[place][1]:
            return None
        return self._ranges[place][2]


def slot_of(key: Argument) -> int:
    """A key's slot."""
    text = key if isinstance(key, bytes) else str(key).encode()
    _, opened, rest = text.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    return crc_hqx(tag if opened and closed and tag else text, 0) % SLOTS


def slots_of(commands: Sequence[Command]) -> list[int]:
    """The slots that commands go to; one without a key goes with the one before it, the first one where `evflow:installation` is."""
    found: list[int] = []
    slot = slot_of(INSTALLATION)
    for command in commands:
        key = key_of(command)
        slot = slot if key is None else slot_of(key)
        found.append(slot)
    return found


def key_of(command: Command) -> Argument | None:
    """A command's first key; the others are in the same slot. None where it has none."""
    name = str(command[0]).upper()
    if name in _KEYLESS:
        return None
    if name in ("EVAL", "EVALSHA"):
        return command[3] if int(command[2]) else None
    if name == "XREAD":
        return command[[str(word).upper() for word in command].index("STREAMS") + 1]
    return command[1]


def writes(command: Command) -> bool:
    """Whether a wait for durability has to wait for what the command did."""
    name = str(command[0]).upper()
    return name not in _READS and name not in _KEYLESS


def least(replies: Sequence[type_of_reply], name: str) -> type_of_reply:
    """Of what several servers say to WAIT or WAITAOF, the least; where nobody was to be waited for, that all is well."""
    if name == "WAIT":
        return min(replies, default=1)
    return [min((reply[place] for reply in replies), default=1) for place in (0, 1)]


class Unwaited:
    """Servers that were written to and not waited for since, as a wait for durability has to know them."""

    def __init__(self) -> None:
        self._counts: dict[Node, int] = {}

    def note(self, node: Node, commands: Sequence[Command]) -> None:
        """These commands are about to be sent."""
        number = sum(map(writes, commands))
        if number:
            self._counts[node] = self._counts.get(node, 0) + number

    @property
    def now(self) -> Mapping[Node, int]:
        """Server to the number of writes; to be given back to `waited` when these are durable."""
        return dict(self._counts)

    def waited(self, before: Mapping[Node, int]) -> None:
        """What was written before is durable; servers that were written to since remain."""
        for node, number in before.items():
            if self._counts.get(node) == number:
                del self._counts[node]


def _node(primary: Any, seed: Node) -> Node:
    host = (primary[0] or b"").decode()
    return Node(seed.host if host in ("", "?") else host, int(primary[1]))
