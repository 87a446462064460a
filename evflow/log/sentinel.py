"""A server that fails over, found by Sentinels: connected to as what it is now, and left when it is no longer that.

Each connection asks the Sentinels anew, in their order, and believes an answer when the server says itself that it is the primary: a
Sentinel that was cut off names the old one. A server that says it is a replica, or that it has lost its own, ends the connection; the
next one goes where the Sentinels say then. No command is ever repeated here.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from evflow.log.errors import LogFailedOver, LogPrimaryDown, LogReadOnly, LogUnavailable, LogUnreachable
from evflow.log.transport import connect_blocking
from evflow.log.url import Address
from evflow.log.wire import Argument, Command, Following, Transport, type_of_reply

LEAVES: Final = (LogReadOnly, LogPrimaryDown, LogFailedOver)
"""Replies after which the server is not the right one any more."""


def question(address: Address) -> Command:
    """What a Sentinel is asked."""
    return ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)


def sentinels(address: Address) -> list[Address]:
    """Where the Sentinels are, and how to enter them: with a user of their own, if there is one."""
    username, password = address.options.get("sentinel_username"), address.options.get("sentinel_password")
    return [address.at(host, port)._replace(username=username, password=password, db=0) for host, port in address.seeds]


def named_by(address: Address, reply: type_of_reply) -> Address:
    """The server that a Sentinel names.

    Raises:
        LogUnreachable: It knows no such service.
    """
    if not reply:
        raise LogUnreachable(address.shown, f"a Sentinel knows no '{address.service}'")
    return address.at(reply[0].decode(), int(reply[1]))


def check_role(where: str, reply: type_of_reply) -> None:
    """See that a server is a primary, by its own word.

    Raises:
        LogPrimaryDown: It is a replica: the fail-over is not finished, or the Sentinel does not know of it.
    """
    if reply[0] != b"master":
        raise LogPrimaryDown(where, f"the server that a Sentinel names is a {reply[0].decode(errors='replace')}.")


def none_answers(address: Address, errors: Sequence[LogUnavailable]) -> LogUnavailable:
    """The error when no Sentinel led to a primary: what a server said, rather than that another one was silent."""
    said = next((error for error in errors if not isinstance(error, LogUnreachable)), None)
    return said or LogUnreachable(address.shown, "; ".join(error.message.rstrip(".") for error in errors))


def was_in_vain(command: Command, reply: type_of_reply) -> bool:
    """Whether no replica followed in time: the server may be cut off from its own, and another one have been promoted."""
    return str(command[0]).upper() == "WAIT" and reply < int(command[1])


class SentinelTransport:
    """`evflow.log.wire.Transport` to the primary of a service. Not for two threads at once."""

    def __init__(self, transport: Transport, where: str) -> None:
        self.where = where
        self._transport = transport

    @classmethod
    def connect(cls, address: Address) -> "SentinelTransport":
        """Ask the Sentinels, and connect to whom they name.

        Raises:
            LogUnavailable: None of them answers, or the server that they name is no primary.
        """
        errors: list[LogUnavailable] = []
        for sentinel in sentinels(address):
            try:
                return cls._by(address, sentinel)
            except LogUnavailable as error:
                errors.append(error)
        raise none_answers(address, errors)

    @classmethod
    def _by(cls, address: Address, sentinel: Address) -> "SentinelTransport":
        asked = connect_blocking(sentinel)
        try:
            server = named_by(address, asked.call(*question(address)))
        finally:
            asked.close()
        transport = connect_blocking(server)
        where = f"{server.shown} ('{address.service}')"
        try:
            check_role(where, transport.call("ROLE"))
        except LogUnavailable:
            transport.close()
            raise
        return cls(transport, where)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._transport.closed

    @property
    def hung_up(self) -> bool:
        """See `Transport.hung_up`."""
        return self._transport.hung_up

    def call(self, *command: Argument) -> type_of_reply:
        """See `Transport.call`."""
        (reply,) = self.pipeline((command,))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Command]) -> list[type_of_reply]:
        """See `Transport.pipeline`."""
        replies = self._transport.pipeline(commands)
        if any(isinstance(reply, LEAVES) for reply in replies):
            self.close()
        return replies

    def stream(self, first: Command, following: Following) -> Iterator[type_of_reply]:
        """See `Transport.stream`."""
        return self._transport.stream(first, following)

    def call_blocking(self, wait_s: float, *command: Argument) -> type_of_reply:
        """See `Transport.call_blocking`."""
        try:
            reply = self._transport.call_blocking(wait_s, *command)
        except LEAVES:
            self.close()
            raise
        if was_in_vain(command, reply):
            self.close()
        return reply

    def close(self) -> None:
        """See `Transport.close`."""
        self._transport.close()
