"""What could keep evflow from working on this machine with this server, each with what to change: `evflow doctor`.

Every check is one function that answers one or more findings and raises nothing: a doctor that dies of the illness
helps nobody. What a check cannot see (a server that hides CONFIG, say) it says as a warning.
"""

import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evflow import clock
from evflow.errors import EvflowError
from evflow.log.client import RedisLogClient
from evflow.log.errors import LogConnectionLost, LogTimeout, LogUnavailable, ScriptMissing
from evflow.log.transport import connect_blocking, servers_of
from evflow.log.url import Address, parse
from evflow.log.wire import Argument, Transport

Level = Literal["ok", "warning", "error"]

OLDEST_REDIS = (7, 0)
CLOCK_WARNING_S = 2.0
"""Times in a log are the writer's clock set to the server's; past this, what people compare with other logs misleads."""
CLOCK_ERROR_S = 300.0
MEMORY_WARNING = 0.8
MEMORY_ERROR = 0.95
FREE_WARNING_BYTES = 1_000_000_000
FREE_ERROR_BYTES = 50_000_000
FILES_WARNING = 1_024
"""A run holds about 10 descriptors, and 4 more for each attempt that runs at once."""
FILES_ERROR = 256
OLDEST_PYTHON = (3, 11)
NEWEST_RUNS = 100
"""So many of each flow are looked at: their lines in the index are one request."""
PACKAGES = ("anyio", "click", "hiredis", "msgpack", "orjson", "redis", "rich", "structlog")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        name: What was looked at; stable, for `--json`.
        level: `ok`, `warning` (it works, with a loss) or `error` (it does not work).
        seen: What was found.
        advice: What to change; empty where nothing needs to be.
    """

    name: str
    level: Level
    seen: str
    advice: str = ""


def diagnose(url: str | None, home: Path | str, store_url: str) -> list[Finding]:
    """Check the machine, the home, the store and the log's server. Raises nothing; takes well under a second.

    Args:
        url: The log's server; None: the embedded one, which is started if need be.
        home: EVFLOW_HOME.
        store_url: The object store: `file://...` or a path; others are not looked at here, `evflow.store.probing` tries them out.
    """
    findings = [*check_python(), *check_files_limit(), *check_folder("home", Path(home)), *check_store(store_url)]
    if url is not None:
        return findings + check_server(url)
    from evflow.log.embedded import EmbeddedServer

    try:
        with EmbeddedServer.begin(home) as server:
            return findings + check_server(server.ready(), embedded=True)
    except EvflowError as error:
        return [*findings, Finding("server", "error", error.message, error.hint)]


# ---------------------------------------------------------------- the machine


def check_python() -> Iterator[Finding]:
    """The interpreter, and the packages that evflow needs."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Finding("python", "error", version, "Use Python 3.11 or newer.")
    else:
        yield Finding("python", "ok", f"{version} ({sys.executable})")
    from importlib.metadata import PackageNotFoundError, version as version_of

    seen: list[str] = []
    missing: list[str] = []
    for name in ("evflow", *PACKAGES):
        try:
            seen.append(f"{name} {version_of(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding("packages", "error", f"missing: {', '.join(missing)}", "Install evflow anew: `pip install --force-reinstall evflow`.")
    else:
        yield Finding("packages", "ok", ", ".join(seen))


def check_files_limit() -> Iterator[Finding]:
    """How many files a process may hold open."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    level: Level = "ok" if unlimited or soft >= FILES_WARNING else "error" if soft < FILES_ERROR else "warning"
    seen = "no limit on open files" if unlimited else f"{soft} open files a process (up to {hard} may be asked for)"
    yield Finding(
        "open-files", level, seen, "" if level == "ok" else f"Raise it before a run with many workers: `ulimit -n {4 * FILES_WARNING}`."
    )


def check_store(url: str) -> Iterator[Finding]:
    """The folder of the object store; nothing where it is none."""
    if "://" in url and not url.startswith("file://"):
        return
    yield from check_folder("store", Path(url.removeprefix("file://")), private=False)


def check_folder(name: str, folder: Path, *, private: bool = True) -> Iterator[Finding]:
    """A folder of ours: whose it is, what its file system can do, its free space."""
    # Path.exists raises where it may not look; the folder that it may not look into is the one to name.
    existing = next((part for part in (folder, *folder.parents) if os.path.exists(part)), Path("/"))  # noqa: PTH110
    mine = f"Set {'EVFLOW_HOME' if name == 'home' else 'EVFLOW_STORE'} to a folder of yours on a local disk, or correct its owner and mode."
    if not existing.is_dir():
        yield Finding(f"{name}-folder", "error", f"'{existing}' is no folder", mine)
        return
    if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(f"{name}-folder", "error", f"'{existing}' may not be read and written by user {os.geteuid()}", mine)
        return
    found = existing.stat()
    shown = f"'{folder}'" if existing == folder else f"'{folder}' (not made yet; '{existing}' is there)"
    if existing == folder and found.st_uid != os.geteuid():
        yield Finding(f"{name}-folder", "error" if private else "warning", f"{shown} belongs to user {found.st_uid}", mine)
    elif private and existing == folder and found.st_mode & 0o022:
        yield Finding(
            f"{name}-folder", "warning", f"{shown} may be written by others (mode {found.st_mode & 0o777:o})", f"chmod 700 '{folder}'"
        )
    else:
        yield Finding(f"{name}-folder", "ok", shown)
    yield from _check_free_space(name, existing)
    yield from _check_file_system(name, existing, sockets=private)


def _check_free_space(name: str, folder: Path) -> Iterator[Finding]:
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    level: Level = "error" if free < FREE_ERROR_BYTES else "warning" if free < FREE_WARNING_BYTES else "ok"
    yield Finding(
        f"{name}-space",
        level,
        f"{_bytes(free)} free",
        "" if level == "ok" else "Free some space, or name another folder with EVFLOW_HOME or EVFLOW_STORE.",
    )


def _check_file_system(name: str, folder: Path, *, sockets: bool) -> Iterator[Finding]:
    """Try in a folder, on files of our own, what we need there: writing through to the disk, locks, sockets."""
    trial = folder / f".evflow-doctor-{uuid.uuid4().hex[:8]}"
    failed: list[str] = []
    try:
        _attempt(failed, "writing through to the disk", lambda: _try_write(trial))
        if sockets and not failed:
            _attempt(failed, "locks", lambda: _try_locks(trial))
            _attempt(failed, "unix sockets", lambda: _try_socket(trial.with_suffix(".s")))
    finally:
        for path in (trial, trial.with_suffix(".s")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    if not failed:
        yield Finding(f"{name}-file-system", "ok", "files, locks and sockets work" if sockets else "files can be written")
    elif failed[0].startswith("writing"):
        yield Finding(f"{name}-file-system", "error", "; ".join(failed), "Use a folder on a local disk that is not full or read-only.")
    else:
        advice = "evflow keeps them in the user's runtime folder instead. Do not share this folder between hosts, or use a local disk."
        yield Finding(f"{name}-file-system", "warning", "; ".join(failed), advice)


def _attempt(failed: list[str], what: str, act: Callable[[], None]) -> None:
    try:
        act()
    except OSError as error:
        failed.append(f"{what}: {error.strerror or error}")


def _try_write(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"evflow")
        file.flush()
        os.fsync(file.fileno())


def _try_locks(path: Path) -> None:
    import fcntl

    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _try_socket(path: Path) -> None:
    import socket

    from evflow.log.embedded.places import SOCKET_PATH_LIMIT_BYTES

    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT_BYTES:
        raise OSError(f"the path has more than {SOCKET_PATH_LIMIT_BYTES} bytes")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


# ---------------------------------------------------------------- the server


def check_server(url: str, *, embedded: bool = False) -> list[Finding]:
    """The log's server: reachable, new enough, durable, not evicting, writable, and letting us do what we need."""
    try:
        address = parse(url)
        wire = connect_blocking(address)
    except EvflowError as error:
        return [Finding("server", "error", error.message, error.hint)]
    try:
        if address.seeds:
            return _check_group(address, wire, url)
        server = Server(wire, embedded)
        findings = list(check_version(server))
        if any(finding.level == "error" for finding in findings):
            return findings
        for check in (check_role, check_persistence, check_memory, check_clock, check_permissions):
            findings += check(server)
        findings += check_data(url)
    except EvflowError as error:
        return [Finding("server", "error", error.message, error.hint)]
    finally:
        wire.close()
    return findings


def _check_group(address: Address, wire: Transport, url: str) -> list[Finding]:
    """Servers behind Sentinels, or of a cluster: each primary, then what is asked of all as one."""
    from evflow.log.diagnose_groups import check_cluster, check_sentinels, check_servers

    servers = servers_of(wire)
    checks = (check_version, check_role, check_persistence, check_memory, check_clock)
    findings = list(check_cluster(address, len(servers)) if address.is_cluster else check_sentinels(address))
    if address.is_cluster:
        findings += check_servers(servers, checks)
    else:
        findings += [finding for check in checks for finding in check(Server(wire))]
    return [*findings, *check_permissions(Server(wire)), *check_data(url)]


def check_data(url: str) -> Iterator[Finding]:
    """Runs that the log names and whose artifacts and output lie on the disk of another machine."""
    here = os.uname().nodename
    elsewhere: dict[tuple[str, str], int] = {}
    try:
        with contextlib.closing(RedisLogClient(url)) as client:
            newest = [entry.summary for flow in client.flows() for entry in client.runs(flow, NEWEST_RUNS)]
    except LogUnavailable as error:
        yield Finding("data", "warning", f"cannot be seen: {error.message}", error.hint)
        return
    for summary in newest:
        host, store = str(summary.get("host", "")), str(summary.get("store", ""))
        is_folder = store.startswith("file://") or "://" not in store
        if host not in ("", here) and is_folder and not Path(store.removeprefix("file://")).is_dir():
            elsewhere[host, store] = elsewhere.get((host, store), 0) + 1
    for (host, store), runs in elsewhere.items():
        seen = f"the data of {runs} of the newest {len(newest)} runs lie on the host '{host}', in {store}"
        yield Finding("data", "warning", seen, "Read them there, or let both machines use one store (EVFLOW_STORE) from the next run on.")
    if not elsewhere:
        yield Finding("data", "ok", f"that of the newest {len(newest)} runs can be read here" if newest else "no runs yet")


class Server:
    """What the checks ask a server, each question once."""

    def __init__(self, wire: Transport, embedded: bool = False, *, in_cluster: bool = False) -> None:
        self.wire = wire
        self.embedded = embedded
        self.in_cluster = in_cluster
        self.info = self._info()

    @property
    def version(self) -> tuple[int, ...]:
        """The version of Redis that the server is, or says it is compatible with."""
        return tuple(int(part) for part in self.info.get("redis_version", "0").split(".") if part.isdecimal())

    @property
    def has_waitaof(self) -> bool:
        """Whether a client can wait for the disk."""
        return self.version >= (7, 2)

    def config(self, name: str) -> str | None:
        """A setting of the server; None where it does not tell."""
        try:
            reply = self.wire.call("CONFIG", "GET", name)
        except LogUnavailable:  # managed servers have no CONFIG
            return None
        return reply[1].decode() if len(reply) > 1 else None

    def number(self, name: str) -> int:
        """A number of INFO; 0 where it is not told."""
        text = self.info.get(name, "0")
        return int(text) if text.lstrip("-").isdecimal() else 0

    def _info(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for section in ("server", "memory", "persistence", "replication"):
            text: str = self.wire.call("INFO", section).decode(errors="replace")
            found |= dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return found


def check_version(server: Server) -> Iterator[Finding]:
    """Redis 7.0 or newer, or a Valkey; not a cluster's node."""
    valkey, redis = server.info.get("valkey_version"), server.info.get("redis_version")
    where = f"{'embedded' if server.embedded else 'at'} {server.wire.where}"
    if valkey:
        yield Finding("version", "ok", f"Valkey {valkey}, {where}")
    elif redis is None:
        yield Finding("version", "error", f"{where} is neither Redis nor Valkey", "Use Redis 7.0 or newer, or Valkey.")
    elif server.version < OLDEST_REDIS:
        yield Finding(
            "version", "error", f"Redis {redis}, {where}", "Use Redis 7.0 or newer, or Valkey: older ones lack what the scripts need."
        )
    else:
        yield Finding("version", "ok", f"Redis {redis}, {where}")
    if server.info.get("redis_mode") == "cluster" and not server.in_cluster:
        yield Finding("cluster", "error", "the server is a node of a cluster", "Name it with redis+cluster://host:port.")


def check_role(server: Server) -> Iterator[Finding]:
    """A primary that takes writes."""
    if server.info.get("role") not in ("slave", "replica"):
        replicas = server.number("connected_slaves")
        yield Finding("role", "ok", f"primary with {replicas} replica{'' if replicas == 1 else 's'}")
    elif server.info.get("slave_read_only") == "1":
        yield Finding(
            "role", "error", "a read-only replica", f"Use its primary: {server.info.get('master_host')}:{server.info.get('master_port')}."
        )
    else:
        yield Finding("role", "error", "a writable replica, whose writes its primary throws away", "Use its primary.")


def check_persistence(server: Server) -> Iterator[Finding]:
    """An append-only file that is written and synced."""
    if server.info.get("aof_enabled") != "1":
        advice = "Set `appendonly yes` and `appendfsync everysec`: without them a restart of the server loses runs."
        yield Finding("persistence", "error", "the server keeps no append-only file", advice)
        return
    if server.info.get("aof_last_write_status", "ok") != "ok":
        yield Finding(
            "persistence", "error", "the last write of the append-only file failed", "Free space on the server's disk; see its log."
        )
        return
    if server.info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Finding(
            "rewrite", "warning", "the last rewrite of the append-only file failed", "See the server's log: memory or disk was short."
        )
    policy = server.config("appendfsync")
    if server.embedded or policy in ("everysec", "always"):
        yield Finding(
            "persistence", "ok", f"append-only file, {'synced each second by its guard' if policy == 'no' else f'appendfsync {policy}'}"
        )
    elif policy is None:
        yield Finding(
            "persistence",
            "warning",
            "append-only file; the server does not tell when it is synced",
            "See that `appendfsync` is everysec or always.",
        )
    else:
        yield Finding(
            "persistence", "warning", f"append-only file, appendfsync {policy}: a power cut loses up to 30 s", "Set `appendfsync everysec`."
        )


def check_memory(server: Server) -> Iterator[Finding]:
    """No eviction, and room."""
    policy = server.info.get("maxmemory_policy") or server.config("maxmemory-policy")
    if policy is None:
        yield Finding("eviction", "warning", "the server does not tell its maxmemory-policy", "See that it is noeviction.")
    elif policy != "noeviction":
        yield Finding(
            "eviction", "error", f"maxmemory-policy {policy}: the server may delete parts of runs", "Set `maxmemory-policy noeviction`."
        )
    else:
        yield Finding("eviction", "ok", "maxmemory-policy noeviction")
    used, limit, machine = server.number("used_memory"), server.number("maxmemory"), server.number("total_system_memory")
    room = limit or machine
    share = used / room if room else 0.0
    level: Level = "error" if share >= MEMORY_ERROR else "warning" if share >= MEMORY_WARNING else "ok"
    seen = (
        f"{_bytes(used)} used of {_bytes(room)} ({'maxmemory' if limit else 'the machine, without a limit'})"
        if room
        else f"{_bytes(used)} used"
    )
    advice = "Raise `maxmemory`, or give the machine more memory: the log keeps every run."
    yield Finding("memory", level, seen, "" if level == "ok" else advice)


def check_clock(server: Server) -> Iterator[Finding]:
    """The server's clock beside this machine's, as well as a round trip allows."""
    before = clock.now_us()
    seconds, micros = server.wire.call("TIME")
    after = clock.now_us()
    theirs = int(seconds) * 1_000_000 + int(micros)
    # The server answered at some moment between the two readings.
    difference_s = max(before - theirs, theirs - after, 0) / 1e6
    level: Level = "error" if difference_s >= CLOCK_ERROR_S else "warning" if difference_s >= CLOCK_WARNING_S else "ok"
    advice = "Set both clocks by NTP (`timedatectl set-ntp true`)."
    yield Finding("clock", level, f"differs by {difference_s:.1f} s from the server's", "" if level == "ok" else advice)


_SCRIPT = """#!lua
redis.call('XADD', KEYS[1], '1-0', 'e', ARGV[1])
redis.call('HSET', KEYS[2], 'seq', '1')
return redis.call('XLEN', KEYS[1])
"""


def check_permissions(server: Server) -> Iterator[Finding]:
    """Every kind of command that evflow uses, tried on keys of its own, which go away again."""
    tag = f"{{evflow:doctor:{uuid.uuid4().hex[:12]}}}"
    stream, table, names, ranked = f"{tag}:stream", f"{tag}:hash", f"{tag}:set", f"{tag}:zset"
    trials = _trials(stream, table, names, ranked)
    if server.has_waitaof:
        trials = (*trials, ("WAITAOF", 0, 0, 1))
    try:
        refused = [(command[0], error) for command in trials if (error := _refusal(server, command)) is not None]
    finally:
        with contextlib.suppress(LogUnavailable):
            server.wire.call("DEL", stream, table, names, ranked)
    unwell = next((error for _, error in refused if error.transient), None)
    if unwell is not None:  # a replica, no memory, a full disk: it says nothing about rights
        yield Finding("writes", "error", unwell.message, unwell.hint)
    elif refused and (part := _part_of(server, tag)) is not None:
        yield Finding("permissions", "warning", *part)
    elif refused:
        advice = (
            "Give the user `~evflow:* ~{evflow:* +@read +@write +@stream +@scripting +@connection +time +info +wait +waitaof +config|get`."
        )
        yield Finding("permissions", "error", "; ".join(f"{name!s}: {error.message}" for name, error in refused), advice)
    else:
        yield Finding("permissions", "ok", "all commands that evflow needs are allowed")
    if not server.has_waitaof and not server.embedded:
        advice = "For `--durability fsync` set `appendfsync always`, or use Redis 7.2 or newer, or Valkey."
        yield Finding("waitaof", "warning", "the server has no WAITAOF", advice)


def _part_of(server: Server, tag: str) -> tuple[str, str] | None:
    """What a user that may not do everything is good for, and what to know of that: the other users of `ops/redis`. None: for nothing."""
    inbox, live = f"{tag}:inbox", f"{tag}:live"
    script, *_ = _trials(inbox, live, "", "")
    looks = (("XRANGE", inbox, "-", "+", "COUNT", 1), ("HGETALL", live), ("SMEMBERS", "evflow:flows"), ("TIME",))
    if any(_refusal(server, command) is not None for command in looks):
        return None
    if _refusal(server, _add(f"{tag}:stream")) is None:  # one that may write runs, and lacks something
        _refusal(server, ("DEL", f"{tag}:stream"))
        return None
    if _refusal(server, _add(inbox)) is not None:
        return "this user reads and writes nothing", "That is enough to look. Whoever does more needs another user: ops/redis."
    reports = all(_refusal(server, command) is None for command in (("DEL", inbox, live), script))
    _refusal(server, ("DEL", inbox, live))
    if not reports:
        return None
    advice = "That is enough for `evflow worker`. Whoever runs, deploys or schedules needs the user of a scheduler: ops/redis."
    return "this user reads, works for pools and reports, and does nothing else", advice


def _add(stream: str) -> tuple[Argument, ...]:
    return ("XADD", stream, "2-0", "e", "x")


def _trials(stream: str, table: str, names: str, ranked: str) -> Sequence[tuple[Argument, ...]]:
    from hashlib import sha1

    digest = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
    return (
        ("EVALSHA", digest, 2, stream, table, "x"),
        ("XREAD", "COUNT", 1, "STREAMS", stream, "0"),
        ("XRANGE", stream, "-", "+", "COUNT", 1),
        ("XDEL", stream, "1-0"),
        ("HGETALL", table),
        ("HSETNX", table, "a", "b"),
        ("SADD", names, "x"),
        ("SMEMBERS", names),
        ("ZADD", ranked, 1, "x"),
        ("ZREM", ranked, "x"),
        ("TIME",),
        ("WAIT", 0, 1),
    )


def _refusal(server: Server, command: tuple[Argument, ...]) -> LogUnavailable | None:
    """Why the server does not carry the command out; None where it does."""
    try:
        try:
            server.wire.call(*command)
        except ScriptMissing:
            server.wire.call("EVAL", _SCRIPT, *command[2:])
    except (LogConnectionLost, LogTimeout):
        raise  # nothing more can be asked
    except LogUnavailable as error:
        return error
    return None


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1_000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1_000
    return f"{count:.1f} TB"
