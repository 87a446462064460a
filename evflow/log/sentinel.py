"""A server that fails over, found by Sentinels: connected to as what it is now, and left when it is no longer that.

Each connection asks the Sentinels anew, in their order, and believes an answer when the server says itself that it is the primary, and
no Sentinel knows of a later one: a Sentinel that was cut off, or hears of the fail-over last, names the old one, which may be back, empty,
and still take itself for the primary. A server that says it is a replica, or that it has lost its own, ends the connection; the next one
goes where the Sentinels say then. No command is ever repeated here.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from evflow.core.values import value
from evflow.log.errors import LogFailedOver, LogPrimaryDown, LogReadOnly, LogUnavailable, LogUnreachable
from evflow.log.transport import connect_blocking
from evflow.log.url import Address
from evflow.log.wire import Argument, Command, Following, Transport, type_of_reply

LEAVES: Final = (LogReadOnly, LogPrimaryDown, LogFailedOver)
"""Replies after which the server is not the right one any more."""
OTHERS_S: Final = 0.5
"""How long each Sentinel may take to say whom it takes for the primary, once one has named a server; silent ones are passed over."""


@value
class View:
    """Whom a Sentinel takes for the primary.

    Attributes:
        server: The one that it names.
        epoch: Of the fail-over that made it the primary; the higher the later, the same with all Sentinels.
    """

    server: Address
    epoch: int


def question(address: Address) -> Command:
    """What a Sentinel is asked."""
    return ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)


def sentinels(address: Address) -> list[Address]:
    """Where the Sentinels are, and how to enter them: with a user of their own, if there is one."""
    username, password = address.options.get("sentinel_username"), address.options.get("sentinel_password")
    return [address.at(host, port)._replace(username=username, password=password, db=0) for host, port in address.seeds]


def questions(address: Address) -> tuple[Command, Command]:
    """What a Sentinel is asked for its `View`."""
    return question(address), ("SENTINEL", "MASTER", address.service)


def view_of(address: Address, replies: Sequence[type_of_reply]) -> View:
    """A Sentinel's answers. One that does not let us know more than a name knows of no fail-over.

    Raises:
        LogUnavailable: It knows no such service, or may not be asked.
    """
    named, told = replies
    if isinstance(named, Exception):
        raise named
    if not named:
        raise LogUnreachable(address.shown, f"a Sentinel knows no '{address.service}'")
    epoch = "0" if isinstance(told, Exception) else pairs(told).get("config-epoch", "0")
    return View(address.at(named[0].decode(), int(named[1])), int(epoch))


def pairs(reply: Sequence[bytes]) -> dict[str, str]:
    """A reply of names and values in turn."""
    words = [word.decode(errors="replace") for word in reply]
    return dict(zip(words[::2], words[1::2], strict=False))


def check_role(where: str, reply: type_of_reply) -> None:
    """See that a server is a primary, by its own word.

    Raises:
        LogPrimaryDown: It is a replica: the fail-over is not finished, or the Sentinel does not know of it.
    """
    if reply[0] != b"master":
        raise LogPrimaryDown(where, f"the server that a Sentinel names is a {reply[0].decode(errors='replace')}.")


def check_is_latest(where: str, view: View, others: Iterable[View]) -> None:
    """See that no Sentinel has heard of a fail-over that the one which named the server has not; asked when the server is connected to.

    Raises:
        LogPrimaryDown: One has.
    """
    latest = max(others, key=lambda other: other.epoch, default=view)
    if latest.epoch > view.epoch and latest.server != view.server:
        raise LogPrimaryDown(where, f"it was replaced by {latest.server.shown}, of which not all Sentinels have heard.")


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
        view = _asked(address, sentinel)
        transport = connect_blocking(view.server)
        where = f"{view.server.shown} ('{address.service}')"
        try:
            check_role(where, transport.call("ROLE"))
            check_is_latest(where, view, _views(address))
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


def _asked(address: Address, sentinel: Address, timeout_s: float | None = None) -> View:
    transport = connect_blocking(sentinel, timeout_s=timeout_s)
    try:
        return view_of(address, transport.pipeline(questions(address)))
    finally:
        transport.close()


def _views(address: Address) -> Iterator[View]:
    for sentinel in sentinels(address):
        with suppress(LogUnavailable):
            yield _asked(address, sentinel, OTHERS_S)
