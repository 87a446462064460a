"""Binds an address and serves routes on it, in the task group of whoever calls.

uvicorn is used without what it does for a process of its own: it installs no handler of signals, writes no lines of its own form, and
does not wake ten times a second to see whether it should end.
"""

import logging
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

import anyio
import uvicorn
from anyio import CancelScope
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from evflow import diagnostics
from evflow.errors import EnvironmentProblem

END_WITHIN_S: Final = 2.0
"""How long answers that are under way may take when the server ends."""
_CONNECTIONS: Final = 1_000
"""More are answered with 503, probes too; each costs a descriptor."""
_IDLE_S: Final = 65
"""A kept connection outlives Prometheus' interval between two scrapes."""
_BACKLOG: Final = 128


class HttpUnusable(EnvironmentProblem):
    """The address cannot be listened on."""

    code = "http-unusable"

    def __init__(self, address: str, why: str) -> None:
        super().__init__(
            f"HTTP cannot be served on {address}: {why}.",
            "Name another address with --http HOST:PORT (EVFLOW_HTTP), or end what listens there.",
        )


def listen(address: str) -> socket.socket:
    """A socket that listens at `HOST:PORT`; port 0 is any that is free.

    Raises:
        HttpUnusable: The port is in use or may not be used, or the host is not this machine.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise HttpUnusable(address, error.strerror or str(error)) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """`host:port` of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(listener: socket.socket, routes: Sequence[BaseRoute]) -> None:
    """Serve until cancelled; the socket is closed then."""
    with listener:
        config = uvicorn.Config(
            Starlette(routes=routes), http="h11", ws="none", lifespan="off", interface="asgi3", log_config=None, access_log=False,
            server_header=False, date_header=False, limit_concurrency=_CONNECTIONS, timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=round(END_WITHIN_S),
        )  # fmt: skip
        server = _Server(config)
        with _uvicorn_s_words():
            diagnostics.info("HTTP is served", address=address_of(listener))
            await server.serve_until_cancelled(listener)


class _Server(uvicorn.Server):
    """uvicorn's server as a task among others."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ends = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the scheduler."""
        yield

    async def main_loop(self) -> None:
        """Wait for the end, without looking for it."""
        await self._ends.wait()

    async def serve_until_cancelled(self, listener: socket.socket) -> None:
        """Serve until cancelled; then answers under way may end."""
        async with anyio.create_task_group() as group:
            with CancelScope(shield=True) as serving:
                group.start_soon(self._end_when_cancelled, serving)
                await self.serve([listener])
            group.cancel_scope.cancel()

    async def _end_when_cancelled(self, serving: CancelScope) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self._ends.set()
            serving.deadline = anyio.current_time() + 2 * END_WITHIN_S


@contextmanager
def _uvicorn_s_words() -> Generator[None]:
    """What uvicorn has to say goes where everything else goes, as far as it is a warning."""
    logger = logging.getLogger("uvicorn")
    handler = _Words(logging.WARNING)
    before = logger.propagate
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


class _Words(logging.Handler):
    """Lines of the standard library's logging as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on."""
        error = record.exc_info[1] if record.exc_info else None
        diagnostics.warning("HTTP", said=record.getMessage().strip(), **({"why": f"{type(error).__name__}: {error}"} if error else {}))
