"""A Redis Cluster as one connection: each command goes to the server that has its key.

It keeps a plain connection to each server that it needs, and knows who has what from CLUSTER SLOTS. There is no redirection: a server
that says that a key is elsewhere (MOVED, ASK, or that it became a replica) ends the whole connection. Its holder connects anew, with a
new map, and compares what the log has with what it wrote, since a fail-over may have lost some. Nothing is ever sent twice here.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from evflow.log.errors import (
    LogConnectionLost,
    LogFailedOver,
    LogIsCluster,
    LogPrimaryDown,
    LogReadOnly,
    LogRefused,
    LogUnavailable,
    LogUnreachable,
)
from evflow.log.slots import WAITS, Node, Topology, Unwaited, least, slots_of
from evflow.log.transport import connect_blocking
from evflow.log.url import Address
from evflow.log.wire import Argument, Command, Following, Transport, one_after_the_other, type_of_reply

MAP: Final = ("CLUSTER", "SLOTS")
_LEAVES: Final = (LogIsCluster, LogReadOnly, LogPrimaryDown, LogFailedOver)


def read_map(reply: type_of_reply, seed: Node, where: str) -> Topology:
    """What a node says of who has which slots.

    Raises:
        LogUnavailable: It is no node of a cluster, or of one that is not up.
    """
    if isinstance(reply, LogRefused):
        raise LogRefused(where, "it is no node of a cluster; a server alone is named with redis://")
    if isinstance(reply, Exception):
        raise reply
    return Topology.read(reply, seed)


def parts_of(commands: Sequence[Command], topology: Topology, where: str) -> dict[Node, list[int]]:
    """Which commands, by their places, go to which server; servers in the order of their first command.

    Raises:
        LogFailedOver: Nobody has a slot at present.
    """
    parts: dict[Node, list[int]] = {}
    for place, slot in enumerate(slots_of(commands)):
        node = topology.of_slot(slot)
        if node is None:
            raise LogFailedOver(where, f"nobody has slot {slot}.")
        parts.setdefault(node, []).append(place)
    return parts


def as_one(replies: Sequence[type_of_reply], where: str) -> tuple[list[type_of_reply], bool]:
    """Replies as those of one log: what says that a key is elsewhere becomes `LogFailedOver`; and whether the connection is to end."""
    found = [_as_one(reply, where) for reply in replies]
    return found, any(isinstance(reply, LogFailedOver) for reply in found)


def _as_one(reply: type_of_reply, where: str) -> type_of_reply:
    if not isinstance(reply, _LEAVES):
        return reply
    return reply if "CROSSSLOT" in reply.message else LogFailedOver(where, reply.message)  # the one is a defect of ours


class ClusterTransport:
    """`evflow.log.wire.Transport` over the servers of a cluster. Not for two threads at once."""

    def __init__(self, address: Address, topology: Topology) -> None:
        self.where = address.shown
        self._address = address
        self._topology = topology
        self._nodes: dict[Node, Transport] = {}
        self._unwaited = Unwaited()
        self._closed = False

    @classmethod
    def connect(cls, address: Address) -> "ClusterTransport":
        """Ask the first of the named nodes that answers for the map.

        Raises:
            LogUnavailable: None answers.
        """
        errors: list[LogUnavailable] = []
        for seed in (Node(*place) for place in address.seeds):
            try:
                asked = connect_blocking(address.at(*seed))
                try:
                    (reply,) = asked.pipeline((MAP,))
                    return cls(address, read_map(reply, seed, asked.where))
                finally:
                    asked.close()
            except LogUnavailable as error:
                errors.append(error)
        raise none_answers(address, errors)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._closed

    @property
    def hung_up(self) -> bool:
        """See `Transport.hung_up`."""
        return self._closed or any(node.hung_up for node in self._nodes.values())

    def primaries(self) -> list[Transport]:
        """A connection to each primary, for those who look at servers and not at keys."""
        return [self._node(node) for node in self._topology.primaries]

    def call(self, *command: Argument) -> type_of_reply:
        """See `Transport.call`."""
        (reply,) = self.pipeline((command,))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Command]) -> list[type_of_reply]:
        """See `Transport.pipeline`; commands to different servers are sent one server after the other."""
        if self._closed:
            raise LogConnectionLost(self.where, "it is closed")
        replies: list[type_of_reply] = [None] * len(commands)
        try:
            for node, places in parts_of(commands, self._topology, self.where).items():
                part = [commands[place] for place in places]
                self._unwaited.note(node, part)
                for place, reply in zip(places, self._node(node).pipeline(part), strict=True):
                    replies[place] = reply
        except BaseException:
            self.close()
            raise
        found, ends = as_one(replies, self.where)
        if ends:
            self.close()
        return found

    def stream(self, first: Command, following: Following) -> Iterator[type_of_reply]:
        """See `Transport.stream`; one after the other."""
        return one_after_the_other(self, first, following)

    def call_blocking(self, wait_s: float, *command: Argument) -> type_of_reply:
        """See `Transport.call_blocking`; WAIT and WAITAOF wait for all servers that were written to."""
        if self._closed:
            raise LogConnectionLost(self.where, "it is closed")
        name = str(command[0]).upper()
        before = self._unwaited.now
        nodes = list(before) if name in WAITS else list(parts_of((command,), self._topology, self.where))
        try:
            for node in nodes:
                self._unwaited.note(node, (command,))
            replies = [self._node(node).call_blocking(wait_s, *command) for node in nodes]
        except LogUnavailable as error:
            self.close()
            raise _as_one(error, self.where) from error
        if name not in WAITS:
            return replies[0]
        return self._waited(before, replies, name)

    def close(self) -> None:
        """See `Transport.close`."""
        self._closed = True
        for node in self._nodes.values():
            node.close()

    def _waited(self, before: Any, replies: list[type_of_reply], name: str) -> type_of_reply:
        found = least(replies, name)
        if (found if name == "WAIT" else found[0]) >= 1:
            self._unwaited.waited(before)
        elif name == "WAIT":  # the server may be cut off from its replicas, and one of them have been promoted
            self.close()
        return found

    def _node(self, node: Node) -> Transport:
        if node not in self._nodes:
            self._nodes[node] = connect_blocking(self._address.at(*node))
        return self._nodes[node]


def none_answers(address: Address, errors: Sequence[LogUnavailable]) -> LogUnavailable:
    """The error when no named node gave the map: what one said, rather than that another one was silent."""
    said = next((error for error in errors if not isinstance(error, LogUnreachable)), None)
    return said or LogUnreachable(address.shown, "; ".join(error.message.rstrip(".") for error in errors))
