"""Where the embedded server's files are: in `EVFLOW_HOME/server`, or where sockets and locks work.

A unix socket's path must fit 103 bytes (macOS; 107 on Linux), and some file systems (network mounts, containers'
shares) have no sockets or no locks. Then the socket, and there the locks too, are in the user's runtime folder, keyed
by a digest of EVFLOW_HOME. The choice is written into the file `place`, once: every client has to come to the same
one, and a cron job does not have the XDG_RUNTIME_DIR of a terminal.
"""

import os
import stat
from pathlib import Path

from evflow.core.values import value
from evflow.log.embedded.problems import HomeUnusable, SocketPathTooLong

SOCKET_PATH_LIMIT_BYTES = 103
_PLACE = "place"


@value
class Places:
    """The files of one embedded server.

    Attributes:
        home: EVFLOW_HOME, absolute.
        data: `server/` in it: append-only files, configuration, logs.
        sockets: The folder of the socket.
        locks: The folder of the two lock files.
    """

    home: Path
    data: Path
    sockets: Path
    locks: Path

    @property
    def socket(self) -> Path:
        """The server's socket."""
        return self.sockets / "socket"

    @property
    def url(self) -> str:
        """The server's URL, as EVFLOW_REDIS_URL would have it."""
        return f"unix://{_escaped(str(self.socket))}"

    @property
    def clients_lock(self) -> Path:
        """Shared by all clients; exclusive for the guard that stops the server."""
        return self.locks / "clients.lock"

    @property
    def guard_lock(self) -> Path:
        """Held by whoever is responsible for the server; its text names the guard, the server and the host."""
        return self.locks / "guard.lock"

    @property
    def append_only(self) -> Path:
        """The folder of the append-only files."""
        return self.data / "appendonlydir"

    @property
    def config(self) -> Path:
        """The server's configuration, written at each start."""
        return self.data / "server.conf"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.data / "server.log"

    @property
    def errors(self) -> Path:
        """What the server says before it has a log, and what the guard says."""
        return self.data / "start.log"

    @property
    def binary_record(self) -> Path:
        """Which program wrote the data last."""
        return self.data / "binary"


def find(home: Path | str) -> Places:
    """The places of a home; its folders are made where they are missing, for the user alone.

    Raises:
        HomeUnusable: A folder cannot be made or is not the user's.
        SocketPathTooLong: No short enough path was found.
    """
    home = Path(os.path.abspath(home))  # noqa: PTH100 - Path.resolve asks the disk for each part
    data = home / "server"
    _private_folder(home, narrow=False)
    _private_folder(data)
    written = _written(data)
    if written is not None:
        sockets, locks = written
        for folder in {sockets, locks} - {data}:
            _private_folder(folder)
        return Places(home, data, sockets, locks)
    places = Places(home, data, data, data)
    return places if _fits(places.socket) else elsewhere(places, locks=False)


def look(home: Path | str) -> Places | None:
    """The places of a home as they are; None where it never had a server. Makes nothing.

    Raises:
        HomeUnusable: There is something else in the home's place, or it may not be looked into.
    """
    home = Path(os.path.abspath(home))  # noqa: PTH100 - as above
    data = home / "server"
    try:
        if not stat.S_ISDIR(home.stat().st_mode):
            raise HomeUnusable(home, "it is no folder")
        if not data.is_dir():
            return None
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise HomeUnusable(home, "a part of its path is no folder") from None
    except OSError as error:
        raise HomeUnusable(home, error.strerror or str(error)) from error
    sockets, locks = _written(data) or (data, data)
    return Places(home, data, sockets, locks)


def elsewhere(places: Places, *, locks: bool) -> Places:
    """Move the socket, or the socket and the locks, into the user's runtime folder, for all clients of this home.

    Raises:
        HomeUnusable: The folder there is not the user's, or the choice cannot be written.
        SocketPathTooLong: No short enough path was found.
    """
    folder = _runtime_folder(places.home)
    chosen = f"{folder}\n{folder if locks else places.locks}\n"
    path = places.data / _PLACE
    # Complete under its name or not there, and the first one wins.
    draft = path.with_name(f"{_PLACE}.{os.getpid()}")
    try:
        draft.write_text(chosen)
        if locks:
            draft.replace(path)
        else:
            try:
                path.hardlink_to(draft)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                draft.replace(path)
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise HomeUnusable(places.data, error.strerror or str(error)) from error
    return find(places.home)


def _written(data: Path) -> tuple[Path, Path] | None:
    try:
        lines = (data / _PLACE).read_text().splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HomeUnusable(data / _PLACE, error.strerror or str(error)) from error
    return (Path(lines[0]), Path(lines[1])) if len(lines) >= 2 else None


def _runtime_folder(home: Path) -> Path:
    """A private folder with a short path, of this user and this home.

    Raises:
        HomeUnusable: What is there is not the user's.
        SocketPathTooLong: None of the candidates is short enough.
    """
    from hashlib import sha256

    name = sha256(os.fsencode(home)).hexdigest()[:16]
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = [Path(given)] if given and os.access(given, os.W_OK | os.X_OK) else []
    bases += [Path(os.environ.get("TMPDIR") or "/tmp"), Path("/tmp")]  # noqa: S108 - the folder in it is made private and its owner checked
    for base in bases:
        folder = base / f"evflow-{os.getuid()}" / name
        if _fits(folder / "socket"):
            _private_folder(folder.parent)
            _private_folder(folder)
            return folder
    raise SocketPathTooLong(home / "server" / "socket", SOCKET_PATH_LIMIT_BYTES)


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_LIMIT_BYTES


def _private_folder(path: Path, *, narrow: bool = True) -> None:
    """Make sure of a folder that is the user's; `narrow`: and nobody else's.

    Raises:
        HomeUnusable: It cannot be made, is no folder, or belongs to somebody else.
    """
    try:
        try:
            found = path.stat()
        except FileNotFoundError:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.stat()
    except FileExistsError:
        raise HomeUnusable(path, "there is something that is no folder") from None
    except NotADirectoryError:
        raise HomeUnusable(path, "a part of its path is no folder") from None
    except OSError as error:
        raise HomeUnusable(path, error.strerror or str(error)) from error
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir would do; this one is a call less
        raise HomeUnusable(path, "it is no folder")
    if found.st_uid != os.geteuid():
        raise HomeUnusable(path, f"it belongs to user {found.st_uid}, and this is user {os.geteuid()}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
        raise HomeUnusable(path, "its file system is read-only" if read_only else "it may not be read and written")
    if narrow and found.st_mode & 0o077:
        try:
            path.chmod(0o700)
        except OSError as error:
            raise HomeUnusable(path, f"others may enter it, and that cannot be changed ({error.strerror})") from error


def _escaped(path: str) -> str:
    """As a URL has it: the characters that would end or change the path."""
    for character in ("%", "?", "#", "@", " "):
        path = path.replace(character, f"%{ord(character):02X}")
    return path
