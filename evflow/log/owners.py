"""Who owns a shard, and whether that process still lives.

A lease says who the owner is, and goes on saying so for some seconds after its death. On the owner's own machine nobody has
to wait for that: its name carries its process. Containers that share the machine's name have numbers of their own for processes,
so the name carries the PID namespace as well.
"""

import os
from functools import cache
from pathlib import Path
from typing import Final

from evflow import clock
from evflow.log.protocol import LogClient

_PARTS: Final = 4
"""Of an owner's name: host, process, when it was named, chance and PID namespace."""


def owner_name() -> str:
    """A name for an owner in this process that no other one ever has: host and process for people, and chance."""
    # As `secrets.token_hex` does it, which is imported with `random`, `hmac` and `base64`.
    return f"{os.uname().nodename}:{os.getpid()}:{clock.now_us()}:{os.urandom(8).hex()}{_namespace()}"


@cache
def _namespace() -> str:
    """The PID namespace of this process, `-4026531836`; empty where the system has none."""
    try:
        return f"-{Path('/proc/self/ns/pid').readlink().name.removeprefix('pid:[').removesuffix(']')}"
    except OSError:
        return ""


def host_of(owner: str) -> str:
    """The machine of an owner, as its name says it."""
    return owner.partition(":")[0]


def living_owner(client: LogClient, shard: str) -> tuple[str, float] | None:
    """The shard's owner and the seconds that its lease still holds; None where nobody owns it.

    The lease of a process of this machine that is dead is ended first.
    """
    held = client.owner(shard)
    if held is None or _is_alive(held[0]):
        return held
    client.bury(shard, held[0])
    return None


def seen_owner(client: LogClient, shard: str) -> str | None:
    """Who owns the shard and lives, as far as that can be known; unlike `living_owner` it changes nothing.

    For those who only look: a lease is ended by those who act on the run.
    """
    held = client.owner(shard)
    return held[0] if held is not None and _is_alive(held[0]) else None


def lives(scheduler: str) -> bool:
    """Whether a scheduler lives, as far as that can be known; its name may end with the shards that it may own."""
    return _is_alive(":".join(scheduler.split(":")[:_PARTS]))


def is_owned(client: LogClient, shard: str) -> bool:
    """Whether somebody owns the shard and lives; see `seen_owner`."""
    return seen_owner(client, shard) is not None


def _is_alive(owner: str) -> bool:
    """Whether an owner's process lives, where that can be known: on this host and in this PID namespace, by its number and the time it was named."""
    import psutil  # 40 ms, needed only where there is a lease

    host, *process_of = owner.split(":")
    if host != os.uname().nodename or len(process_of) != _PARTS - 1:
        return True
    pid, named_us, chance = process_of
    _, dash, namespace = chance.partition("-")
    if dash and dash + namespace != _namespace():
        return True
    try:
        process = psutil.Process(int(pid))
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() * 1e6 <= int(named_us)
    except psutil.NoSuchProcess:
        return False
