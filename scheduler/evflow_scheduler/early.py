"""What a run waits for and what takes time of its own, begun before this process imports what it needs itself.

The fork server is forked before the command line is imported: it imports what attempts need on another core meanwhile, and
is small, which every later fork gains from. The embedded server, which needs 10 to 40 ms to answer, is started as soon as
the command line is known to be right, before the scheduler is imported.

Nothing here decides anything: what was begun for a command that does not want it is let go, and what could not be begun is
tried again by the command, whose errors are shown.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from evflow import config
from evflow.errors import EvflowError
from evflow.worker.forkserver import ForkServer
from evflow_scheduler.connection import Connection

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec

_connection: Connection | None = None
_fork_server: ForkServer | None = None


def fork(flow: "type[FlowSpec]", start_method: str) -> None:
    """Fork the fork server. From the main thread, before any thread or loop; never raises."""
    global _fork_server
    if start_method == "auto":
        with suppress(EvflowError):
            _fork_server = ForkServer.fork_here(flow, home=str(config.get("home")))


def connect() -> None:
    """Join or start the embedded server; never raises."""
    global _connection
    with suppress(EvflowError):
        _connection = Connection.begin()


def take_connection() -> Connection:
    """The connection that was begun, or one begun now.

    Raises:
        EnvironmentProblem: The embedded server cannot be started.
    """
    global _connection
    begun, _connection = _connection, None
    return begun if begun is not None else Connection.begin()


def take_fork_server(flow: "type[FlowSpec]", start_method: str, connection: Connection) -> ForkServer:
    """The fork server that was forked early, if that is what is asked for, or one forked now."""
    global _fork_server
    if start_method == "auto" and _fork_server is not None:
        begun, _fork_server = _fork_server, None
        return begun
    return ForkServer.fork_here(flow, asked=start_method, home=str(connection.home))


def let_go() -> None:
    """End what nobody took."""
    global _connection, _fork_server
    begun, _fork_server = _fork_server, None
    if begun is not None:
        begun.stop()
    if _connection is not None:
        _connection.release()
        _connection = None
