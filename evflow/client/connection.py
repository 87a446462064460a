"""The client's connection to the log: one for each log in a process, made at its first use, shared by all objects.

The rules:

* Reads are repeated once where the connection broke: an embedded server that died is started again on its data.
* A forked child makes a connection of its own; it never speaks over its parent's.
* Where the log is embedded, this process is one of the server's clients from the first question to `disconnect` or its
  end, so a notebook keeps the server; a home that never had a server gets none: it has no runs.
* Any thread may ask; one at a time does.
"""

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from evflow import config
from evflow.archives import connect
from evflow.core.ids import RunId
from evflow.imports import framework_view
from evflow.log.client import RedisLogClient
from evflow.log.embedded.places import look
from evflow.log.embedded.server import EmbeddedServer
from evflow.log.errors import LogUnavailable
from evflow.log.protocol import LogClient, RunEntry

if TYPE_CHECKING:
    from evflow.client.history import RunHistory

T = TypeVar("T")

KEPT_HISTORIES = 32
"""Runs whose folded state stays in memory when no object refers to them any more; a thousand tasks take 2 MB."""


class SharedLog:
    """A log, as all client objects of this process use it."""

    def __init__(self, url: str | None, home: str) -> None:
        self._url = url
        self._home = home
        self.lock = threading.RLock()
        self._client: RedisLogClient | None = None
        self._server: EmbeddedServer | None = None
        self._histories: OrderedDict[RunId, RunHistory] = OrderedDict()

    @property
    def where(self) -> str:
        """The log's address, for people."""
        return str(config.shown("redis_url", self._url)) if self._url else self._home

    def exists(self) -> bool:
        """False where there cannot be a run: an embedded log whose server was never started."""
        if self._url or self._client is not None:
            return True
        return look(self._home) is not None

    def is_connected(self) -> bool:
        """Whether a question would find a connection that has not been seen to end."""
        with self.lock:
            return self._client is not None and self._client.is_connected()

    def ask(self, question: Callable[[LogClient], T], *, repeat: bool = True) -> T:
        """Put a question to the log.

        Args:
            question: What to ask.
            repeat: It may be asked again where its answer was lost.

        Raises:
            LogUnavailable: The server cannot be used.
        """
        with self.lock, framework_view():
            client = self._connected()
            try:
                return question(client)
            except LogUnavailable as error:
                if not (repeat and error.transient):
                    raise
            if self._server is not None:
                self._server.ensure()
            return question(client)

    def history(self, entry: RunEntry) -> "RunHistory":
        """The history of a run, kept for the next one who asks."""
        from evflow.client.history import RunHistory

        with self.lock:
            found = self._histories.get(entry.run)
            if found is None or found.shard != entry.shard:
                found = self._histories[entry.run] = RunHistory(self, entry)
                if len(self._histories) > KEPT_HISTORIES:
                    self._histories.popitem(last=False)
            self._histories.move_to_end(entry.run)
            return found

    def close(self) -> None:
        """Close the connection and leave the embedded server; the next question makes a new one."""
        with self.lock:
            client, self._client = self._client, None
            server, self._server = self._server, None
            self._histories.clear()
            if client is not None:
                client.close()
            if server is not None:
                server.release()

    def inherited(self) -> None:
        """In a forked child: forget what is the parent's."""
        self.lock = threading.RLock()  # a thread that is not here may have held it
        client, self._client = self._client, None
        self._server = None  # its lock is not inherited; leaving it is the parent's business
        if client is not None and not client.url.startswith("rediss"):
            client.close()  # our copy of the descriptor; the parent's stays
        elif client is not None:
            _not_ours.append(client)  # TLS would say goodbye in the parent's name

    def _connected(self) -> RedisLogClient:
        if self._client is None:
            if self._url:
                self._client = connect(self._url)
            else:
                self._server = EmbeddedServer.begin(self._home)
                try:
                    self._client = connect(self._server.ready())
                except BaseException:
                    self._server.release()
                    self._server = None
                    raise
            _at_exit()
        return self._client


_logs: dict[str, SharedLog] = {}
_looked_at: SharedLog | None = None
_not_ours: list[RedisLogClient] = []
_registered_in = 0


def look_at(log: SharedLog | None) -> SharedLog | None:
    """Let `shared_log` be this one, whatever the settings name; None for theirs. Answers what it was before."""
    global _looked_at
    before, _looked_at = _looked_at, log
    return before


def shared(home: str) -> SharedLog:
    """The embedded log of a home, which is left at the process's end as the others are."""
    return _logs.setdefault(home, SharedLog(None, home))


def shared_log() -> SharedLog:
    """The log that the settings name now, or the one that `look_at` put in its place."""
    if _looked_at is not None:
        return _looked_at
    url: str | None = config.get("redis_url")
    home: str = config.get("home")
    key = url or home
    found = _logs.get(key)
    return found if found is not None else _logs.setdefault(key, SharedLog(url, home))


def disconnect() -> None:
    """Close the client's connections and leave the embedded server, which then ends when its linger is over.

    Nobody needs to: it happens at the process's end. What is asked after it makes a new connection.
    """
    for log in list(_logs.values()):
        log.close()


def _at_exit() -> None:
    global _registered_in
    if _registered_in != os.getpid():
        _registered_in = os.getpid()
        atexit.register(_leave, os.getpid())


def _leave(pid: int) -> None:
    if pid == os.getpid():  # a fork has its parent's callbacks
        disconnect()


def _after_fork() -> None:
    for log in _logs.values():
        log.inherited()


os.register_at_fork(after_in_child=_after_fork)
