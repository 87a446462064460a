"""Starting a server and its guard: the configuration, the shell line, what a child inherits.

One `posix_spawn` starts a shell, which forks another and ends: nothing of this stays a child of ours. The other one starts
the server in the background and becomes the guard, so that the server is the guard's child and on its way 2 ms after the
call. All of it is in a session of its own, in `/`, with no descriptor of ours but the lock that passes to the guard: a
pipe of the user's terminal ends when the user's command does.
"""

import os
import signal
import sys
from pathlib import Path

from evflow.log.embedded.binaries import Binary
from evflow.log.embedded.places import Places
from evflow.log.embedded.problems import HomeUnusable

LOG_LIMIT_BYTES = 1_000_000
REWRITE_FROM_MB = 16
"""From this size on the server compacts its log: reading it back costs the next start 13 ms a megabyte, compacted 4."""

_GUARD_LOCK = 3
_FIRST_OWN_DESCRIPTOR = 3
_SHELL = """\
umask 077; trap '' HUP INT QUIT; cd /
{
    "$1" "$2" 3>&- &
    shift 2; python=$1; code=$2; shift 2
    exec "$python" -I -S -c "$code" "$!" child "$@"
} &
"""
_ADOPT = """\
umask 077; trap '' HUP INT QUIT; cd /
"$@" &
"""
_GUARD = "'guard of an embedded evflow server'; import sys; sys.path.append({folder!r}); import guard; guard.main(sys.argv[1:])"
# For the dynamic linker, messages and temporary files. The rest is the user's, and may be secret: the server lives on.
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def launch(places: Places, binary: Binary, linger_s: float, lock_fd: int) -> int:
    """Start the server and its guard, which inherits the lock; returns the shell's pid at once.

    Raises:
        HomeUnusable: A file of the server cannot be written.
    """
    try:
        _write_config(places)
        _clear(places)
    except OSError as error:
        raise HomeUnusable(places.data, error.strerror or str(error), _full_disk(error)) from error
    return _spawn(
        places, [_SHELL, "evflow-server", binary.path, str(places.config), *_guard_command(), *_guarded(places, linger_s)], lock_fd
    )


def adopt(places: Places, server: int, linger_s: float, lock_fd: int) -> int:
    """Start a guard for a server that runs and has lost its own."""
    python, code = _guard_command()
    command = [_ADOPT, "evflow-guard", python, "-I", "-S", "-c", code, str(server), "adopted", *_guarded(places, linger_s)]
    return _spawn(places, command, lock_fd)


def config_text(places: Places) -> str:
    """The server's configuration.

    `appendfsync no`, because `everysec` acknowledges writes that it holds back in its own memory while a sync is under way
    (up to 2 s; a killed server loses them); the guard does the sync each second instead.
    """
    lines = (
        "port 0",
        "protected-mode yes",
        f"unixsocket {_quoted(places.socket)}",
        "unixsocketperm 700",
        "daemonize no",
        "supervised no",
        f"dir {_quoted(places.data)}",
        f"logfile {_quoted(places.log)}",
        "databases 1",
        'save ""',
        "appendonly yes",
        # Known from 7.0 on: an older server refuses the configuration before it touches a file.
        f'appenddirname "{places.append_only.name}"',
        "appendfsync no",
        "aof-load-truncated yes",
        "aof-use-rdb-preamble yes",
        "auto-aof-rewrite-percentage 100",
        f"auto-aof-rewrite-min-size {REWRITE_FROM_MB}mb",
        "maxmemory 0",
        "maxmemory-policy noeviction",
        "crash-memcheck-enabled no",
    )
    return "\n".join(lines) + "\n"


def _write_config(places: Places) -> None:
    text = config_text(places)
    try:
        if places.config.read_text() == text:
            return
    except FileNotFoundError:
        pass
    draft = places.config.with_name(f"{places.config.name}.{os.getpid()}")
    try:
        draft.write_text(text)
        draft.replace(places.config)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _clear(places: Places) -> None:
    """Make room: a long log moves aside, and what a rewrite left half-written when its server was killed goes."""
    for name in os.listdir(places.data):  # noqa: PTH208 - names are enough
        if name.startswith("temp-"):
            (places.data / name).unlink(missing_ok=True)
    try:
        if places.log.stat().st_size > LOG_LIMIT_BYTES:
            places.log.replace(places.log.with_name(f"{places.log.name}.1"))
    except FileNotFoundError:
        pass


def _guard_command() -> tuple[str, str]:
    return sys.executable, _GUARD.format(folder=str(Path(__file__).parent))


def _guarded(places: Places, linger_s: float) -> tuple[str, str, str, str]:
    return str(places.clients_lock), str(places.append_only), str(places.socket), str(linger_s)


def _spawn(places: Places, arguments: list[str], lock_fd: int) -> int:
    os.ftruncate(lock_fd, 0)  # what the guard before wrote there; the new one writes its own
    # Where the lock already has the number, there is nothing to copy, only to let through.
    copied = [(os.POSIX_SPAWN_DUP2, lock_fd, _GUARD_LOCK)] if lock_fd != _GUARD_LOCK else []
    if not copied:
        os.set_inheritable(lock_fd, True)
    actions = [
        *copied,
        *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable() if fd != _GUARD_LOCK),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(places.errors), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or (name.startswith("EVFLOW_") and name != "EVFLOW_REDIS_URL")
    }
    try:
        return os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", *arguments],
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            # What is ignored stays ignored in a new program: Python ignores SIGPIPE, a `nohup` SIGHUP.
            setsigdef=(signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM, signal.SIGALRM),
        )
    except OSError as error:
        raise HomeUnusable(places.errors, error.strerror or str(error), _full_disk(error)) from error


def _inheritable() -> list[int]:
    """Our descriptors that a new program would get, beside the standard ones."""
    found: list[int] = []
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - names are enough
        fd = int(name)
        try:
            if fd >= _FIRST_OWN_DESCRIPTOR and os.get_inheritable(fd):
                found.append(fd)
        except OSError:  # the one that listed the folder
            continue
    return found


def _quoted(path: Path) -> str:
    """A path as the server's configuration has it: in double quotes, with its escapes."""
    text = "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in os.fsencode(path))
    return f'"{text}"'


def _full_disk(error: OSError) -> str:
    import errno

    return "Free some space on its disk." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
