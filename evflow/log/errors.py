"""What can be wrong with the log's server, one class per condition, each with what to do about it.

Imports nothing but `evflow.errors`: the thin client, which every task's process loads, raises these.
`transient` says whether waiting and trying again can help without anybody's doing: the owner of a shard
rides those out, up to its deadline.
"""

from typing import ClassVar

from evflow.errors import EnvironmentProblem, InternalError, UsageError


class LogUnavailable(EnvironmentProblem):
    """The server of the log cannot be used: down, refusing writes, out of memory, too old."""

    code = "log-unavailable"
    transient: ClassVar[bool] = False


class LogUrlInvalid(UsageError):
    """The text does not name a server."""

    code = "log-url-invalid"

    def __init__(self, shown: str, why: str) -> None:
        super().__init__(
            f"'{shown}' does not name a log: {why}.",
            "Write redis://[user:password@]host[:port][/db], rediss://... for TLS, unix:///path/to/socket[?db=N], "
            "redis+sentinel://host[:port],host[:port]/service, or redis+cluster://host[:port],host[:port].",
        )


class LogUnreachable(LogUnavailable):
    """Nobody listens there: the server is down, or the address is wrong."""

    code = "log-unreachable"
    transient = True

    def __init__(self, where: str, why: str) -> None:
        super().__init__(
            f"The log at {where} cannot be reached: {why}.",
            "Start the server, or correct EVFLOW_REDIS_URL; `evflow doctor` checks it.",
        )


class LogConnectionLost(LogUnavailable):
    """The connection ended before the reply: whether the command was carried out is not known."""

    code = "log-connection-lost"
    transient = True

    def __init__(self, where: str, why: str = "the server closed the connection") -> None:
        super().__init__(f"The connection to the log at {where} was lost: {why}.", "See whether the server still runs: `evflow doctor`.")


class LogTimeout(LogUnavailable):
    """No reply in time: whether the command was carried out is not known."""

    code = "log-timeout"
    transient = True

    def __init__(self, where: str, command: str, timeout_s: float) -> None:
        super().__init__(
            f"The log at {where} did not answer {command} within {timeout_s:g} s.",
            "The server is overloaded, suspended or behind a broken network: see its own log.",
        )


class LogAccessDenied(LogUnavailable):
    """The user or the password is wrong, or may not do this."""

    code = "log-access-denied"

    def __init__(self, where: str, said: str) -> None:
        super().__init__(
            f"The log at {where} refuses this user: {said}",
            "Put the right user and password into EVFLOW_REDIS_URL (redis://user:password@host); "
            "the user needs the commands and keys that `evflow doctor` lists.",
        )


class LogOutOfMemory(LogUnavailable):
    """The server is at its memory limit and takes no writes; nothing was written."""

    code = "log-out-of-memory"
    transient = True

    def __init__(self, where: str, said: str) -> None:
        super().__init__(
            f"The log at {where} is out of memory and takes no writes: {said}",
            "Raise the server's `maxmemory` (`CONFIG SET maxmemory …` takes effect at once): evflow deletes no run by itself. "
            "What was acknowledged is safe, and a live run goes on as soon as there is room.",
        )


class LogReadOnly(LogUnavailable):
    """The server is a replica: writes go elsewhere."""

    code = "log-read-only"
    transient = True

    def __init__(self, where: str, said: str) -> None:
        super().__init__(f"The log at {where} is a read-only replica: {said}", "Point EVFLOW_REDIS_URL at the primary server.")


class LogDiskFailed(LogUnavailable):
    """The server cannot write its files, so that it takes no writes; nothing was written."""

    code = "log-disk-failed"
    transient = True

    def __init__(self, where: str, said: str) -> None:
        super().__init__(
            f"The log at {where} cannot write to its disk and takes no writes: {said}",
            "Free space on the server's disk, or correct the permissions of its folder. What was acknowledged is safe.",
        )


class LogStarting(LogUnavailable):
    """The server is still reading its files."""

    code = "log-starting"
    transient = True

    def __init__(self, where: str, said: str) -> None:
        super().__init__(f"The log at {where} is still starting: {said}", "Wait until it has read its files, then try again.")


class LogPrimaryDown(LogUnavailable):
    """The server is a replica that has lost its primary, or a primary that lacks its replicas."""

    code = "log-primary-down"
    transient = True

    def __init__(self, where: str, said: str) -> None:
        super().__init__(
            f"The log at {where} has lost the servers it replicates with: {said}", "Restore the primary or finish the fail-over."
        )


class LogBusy(LogUnavailable):
    """The server is held up by a script of somebody else."""

    code = "log-busy"
    transient = True

    def __init__(self, where: str, said: str) -> None:
        super().__init__(f"The log at {where} is busy: {said}", "A long script runs on the server: end it with SCRIPT KILL.")


class LogIsCluster(LogUnavailable):
    """The server is a node of a cluster, which a plain URL cannot speak to."""

    code = "log-is-cluster"

    def __init__(self, where: str, said: str) -> None:
        super().__init__(f"The log at {where} is a node of a Redis Cluster: {said}", "Name it with redis+cluster://host:port.")


class LogFailedOver(LogUnavailable):
    """The server that has the keys is another one now, or about to be: connect anew, and compare what it has."""

    code = "log-failed-over"
    transient = True

    def __init__(self, where: str, said: str) -> None:
        super().__init__(
            f"The log at {where} has moved to another server, or is about to: {said}", "It comes back when the fail-over is finished."
        )


class LogTooOld(LogUnavailable):
    """The server lacks what evflow needs."""

    code = "log-too-old"

    def __init__(self, where: str, said: str) -> None:
        super().__init__(
            f"The server of the log at {where} is too old or lacks a command: {said}",
            "Redis 7.0 or newer, or any Valkey, is needed.",
        )


class LogForeign(LogUnavailable):
    """What listens there does not speak Redis's protocol."""

    code = "log-foreign"

    def __init__(self, where: str, said: str) -> None:
        super().__init__(
            f"What listens at {where} does not answer as a Redis server does: {said}.",
            "Correct EVFLOW_REDIS_URL; a server behind TLS is named with rediss://.",
        )


class LogRefused(LogUnavailable):
    """The server refused a command for a reason that evflow has no name for."""

    code = "log-refused"

    def __init__(self, where: str, said: str) -> None:
        super().__init__(f"The log at {where} refused a command: {said}", "`evflow doctor` checks the server's settings.")


class NotDurable(LogUnavailable):
    """The server has the writes, but could not make them as durable as asked."""

    code = "log-not-durable"

    def __init__(self, where: str, level: str, why: str) -> None:
        hints = {
            "fsync": "Set `appendonly yes` on the server; before Redis 7.2 also `appendfsync always`.",
            "replicated": "Connect a replica to the server (the embedded one has none; EVFLOW_REDIS_URL names another), "
            "or choose `--durability fsync`.",
        }
        super().__init__(f"The log at {where} cannot give the durability '{level}': {why}.", hints.get(level, ""))


class DurabilityLate(NotDurable):
    """The disk or the replica did not follow in time; it may yet."""

    transient = True


class ScriptMissing(Exception):
    """The server does not hold the script (it restarted): send its source."""


class AppendTooLarge(InternalError):
    """A call over the log's limits: its writer should have split it at a turn's boundary."""

    code = "append-too-large"

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"An append call has {size} {what}; the limit is {limit}.")


_BY_PREFIX: dict[str, type[LogUnavailable]] = {
    "NOAUTH": LogAccessDenied,
    "WRONGPASS": LogAccessDenied,
    "NOPERM": LogAccessDenied,
    "OOM": LogOutOfMemory,
    "READONLY": LogReadOnly,
    "MISCONF": LogDiskFailed,
    "LOADING": LogStarting,
    "MASTERDOWN": LogPrimaryDown,
    "NOREPLICAS": LogPrimaryDown,
    "BUSY": LogBusy,
    "UNBLOCKED": LogFailedOver,
    "MOVED": LogIsCluster,
    "ASK": LogIsCluster,
    "CLUSTERDOWN": LogIsCluster,
    "TRYAGAIN": LogIsCluster,
    "CROSSSLOT": LogIsCluster,
}


# Without a word of their own: a script's refusals by Redis 7.0 and by others, and AUTH where no password is set.
_DENIALS = ("no permissions", "user executing the script can", "invalid password", "invalid username")


def error_of(where: str, said: str) -> Exception:
    """The exception for an error reply of the server."""
    prefix = said.partition(" ")[0]
    if prefix == "NOSCRIPT":
        return ScriptMissing()
    known = _BY_PREFIX.get(prefix)
    if known is not None:
        return known(where, said)
    lowered = said.lower()
    if "unknown command" in lowered or "compiling script" in lowered:
        return LogTooOld(where, said)
    if "AUTH" in said or any(denial in lowered for denial in _DENIALS):
        return LogAccessDenied(where, said)
    return LogRefused(where, said)
