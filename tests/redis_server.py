"""The machine's own `redis-server` for tests: Debian 12 has 7.0, the oldest server that we support."""

import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hiredis

from tests.waiting import wait_until

OLDEST = (7, 0)
OUR_KEYS = re.compile(rb"\{evflow:[^}]+\}:.+|evflow:.+")


@dataclass(frozen=True, slots=True)
class DebianRedis:
    """A running server: unix socket only, nothing on disk unless a test asks for it by CONFIG SET."""

    socket_path: Path
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        """Answer what EVFLOW_REDIS_URL takes."""
        return f"unix://{self.socket_path}"

    @staticmethod
    def why_missing() -> str | None:
        """Answer why no server can be started, or None."""
        binary = shutil.which("redis-server")
        if binary is None:
            return "no redis-server on PATH (Debian: apt install redis-server)"
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"v=(\d+)\.(\d+)", text)
        if found is None or (int(found[1]), int(found[2])) < OLDEST:
            return f"redis-server on PATH is too old: {text.strip()}"
        return None

    @classmethod
    @contextmanager
    def started(cls) -> Generator["DebianRedis"]:
        """Start a server of its own; kill it at the end."""
        folder = Path(tempfile.mkdtemp(prefix="ev-redis-", dir="/tmp"))
        path = folder / "s"
        options = {"port": "0", "unixsocket": str(path), "unixsocketperm": "700", "save": "", "appendonly": "no", "dir": str(folder)}
        options["repl-diskless-sync-delay"] = "0"  # seconds, five by default, in which a primary hopes for further replicas
        command = ["redis-server", *(word for key, value in options.items() for word in (f"--{key}", value))]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        server = cls(path, process)
        try:
            wait_until(server.answers, "redis-server answers PING")
            yield server
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)

    def answers(self) -> bool:
        """Tell whether the server takes commands."""
        try:
            return self.call("PING") == b"PONG"
        except OSError:
            return False

    @contextmanager
    def out_of_reach(self) -> Generator[None]:
        """Cut all clients off within the block: their connections end, and nobody finds the server."""
        away = self.socket_path.with_suffix(".away")
        self.socket_path.rename(away)
        try:
            DebianRedis(away, self.process).call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            yield
        finally:
            away.rename(self.socket_path)

    def info(self, section: str) -> str:
        """Answer what the server says of itself."""
        said = self.call("INFO", section)
        assert isinstance(said, bytes)
        return said.decode()

    def call(self, *words: str | bytes) -> object:
        """Send one command on a connection of its own and answer the reply."""
        reader = hiredis.Reader()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.socket_path))
            # hiredis's own annotation allows one word only.
            connection.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            while True:
                reply = reader.gets()
                if reply is not False:
                    break
                data = connection.recv(65536)
                if not data:
                    raise ConnectionError("the server closed the connection")
                reader.feed(data)
        if isinstance(reply, Exception):
            raise reply
        return reply


def foreign_keys(server: DebianRedis) -> list[str]:
    """Answer the keys that are not of our documented key space."""
    keys = server.call("KEYS", "*")
    assert isinstance(keys, list)
    return sorted(key.decode(errors="replace") for key in keys if isinstance(key, bytes) and not OUR_KEYS.fullmatch(key))
