"""Whether a server can make events as durable as a run asks: looked at before the run begins, not found out in its middle."""

from typing import Final

from evflow.log import commands
from evflow.log.errors import LogAccessDenied, LogUnavailable, NotDurable
from evflow.log.protocol import Durability
from evflow.log.transport import connect_blocking, perform, servers_of
from evflow.log.url import parse
from evflow.log.wire import Transport

_PROBLEMS: Final = {
    "off": "it keeps no append-only file",
    "no": "it leaves syncing to the operating system (`appendfsync no`)",
    "unknown": "it has no WAITAOF, and answers before it syncs",
}


def why_not_fsynced(policy: str) -> str:
    """What is wrong with a server's policy of syncing, or an empty string.

    Args:
        policy: `appendfsync`; `off` without an append-only file, `unknown` where the server cannot be asked to wait.
    """
    return _PROBLEMS.get(policy, "")


def check(url: str, level: Durability) -> None:
    """See that the server at a URL can give a level.

    Raises:
        NotDurable: It cannot.
        LogUnavailable: It cannot be used.
    """
    if level == "everysec":
        return
    transport = connect_blocking(parse(url))
    try:
        for server in servers_of(transport):
            why = _why_not_fsynced(server) if level == "fsync" else _why_not_replicated(server)
            if why:
                raise NotDurable(server.where, level, why)
    except LogAccessDenied:
        return  # what may not be looked at shows itself in the first wait
    finally:
        transport.close()


def evicting(url: str) -> str:
    """What to say of a server at a URL that removes keys when its memory is full; an empty string where none does, or it does not tell."""
    try:
        transport = connect_blocking(parse(url))
        try:
            found = [(server.where, perform(server, commands.eviction_policy())) for server in servers_of(transport)]
        finally:
            transport.close()
    except LogUnavailable:
        return ""  # whoever uses it next says so
    where, policy = next(((where, policy) for where, policy in found if policy not in ("", "noeviction")), ("", ""))
    if not policy:
        return ""
    return f"The log's server {where} has maxmemory-policy {policy}: it may delete parts of runs. Set `maxmemory-policy noeviction`."


def _why_not_fsynced(transport: Transport) -> str:
    policy = perform(transport, commands.fsync_policy())
    if policy == "everysec" and not perform(transport, commands.knows_waitaof()):
        policy = "unknown"
    return why_not_fsynced(policy)


def _why_not_replicated(transport: Transport) -> str:
    return "" if perform(transport, commands.replicas()) else "no replica is connected to it"
