"""The log that this process works on: the one that is configured, or the embedded one, which comes back when killed."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from evflow import config

if TYPE_CHECKING:
    from evflow.log.embedded import EmbeddedServer
    from evflow.log.protocol import Durability


class Connection:
    """Where the log is. `begin` starts the embedded server early, so that its start overlaps with imports."""

    def __init__(self) -> None:
        self.home = Path(config.get("home"))
        self._configured: str | None = config.get("redis_url")
        self._server: EmbeddedServer | None = None
        self._url = self._configured or ""

    @classmethod
    def begin(cls) -> "Connection":
        """Join or start the embedded server unless a URL is configured; returns before it answers."""
        connection = cls()
        if connection._configured is None:
            from evflow.log.embedded import EmbeddedServer

            connection._server = EmbeddedServer.begin(connection.home)
        return connection

    def ready(self) -> str:
        """The log's URL, once the embedded server answers.

        Raises:
            EnvironmentProblem: It cannot be started.
        """
        if not self._url:
            assert self._server is not None
            self._url = self._server.ready()
        return self._url

    def require(self, level: "Durability") -> str:
        """The log's URL, as `ready`, of a server that makes events as durable as asked; an embedded one is told to.

        Raises:
            NotDurable: It cannot.
            EnvironmentProblem: It cannot be started.
        """
        if level == "everysec":
            return self.ready()
        if self._server is not None:
            self._server.durability = level
            self._url = ""
        from evflow.log.durability import check

        check(self.ready(), level)
        return self._url

    def evicting(self) -> str:
        """What to say where the log's server removes keys when its memory is full; of one that is not ours that is asked, in one request."""
        if self._configured is None:
            return ""
        from evflow.log.durability import evicting

        return evicting(self.ready())

    @property
    def restart(self) -> Callable[[], Awaitable[None]] | None:
        """Brings a killed embedded server back; None for a server that is not ours."""
        server = self._server
        if server is None:
            return None

        async def ensure() -> None:
            from anyio import to_thread

            await to_thread.run_sync(server.ensure)

        return ensure

    def release(self) -> None:
        """Stop using the server; the last user's leave ends it after its linger."""
        if self._server is not None:
            self._server.release()
