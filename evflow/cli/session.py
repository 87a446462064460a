"""The log and the store that a command looks at, as the settings say."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from evflow import config
from evflow.core.ids import RunId
from evflow.errors import UsageError

if TYPE_CHECKING:
    from evflow.core.state import RunState
    from evflow.log.keeper import RedisLogKeeper
    from evflow.log.protocol import LogClient, RunEntry
    from evflow.store.protocol import Store


class NoRunsYet(UsageError):
    """Nothing ever ran here."""

    code = "no-runs-yet"

    def __init__(self) -> None:
        super().__init__(
            f"There are no runs in {config.get('home')} yet.",
            "Start one with `python flow.py run`, or set EVFLOW_HOME or EVFLOW_REDIS_URL to where your runs are.",
        )

    def as_list(self, *, as_json: bool) -> None:
        """What a command prints that lists all runs: to it, nothing is wrong."""
        click.echo("[]" if as_json else f"{self.message}\n{self.hint}", err=not as_json)


@contextmanager
def log() -> Generator["RedisLogKeeper"]:
    """The log, connected; an embedded server is joined, or started where its data is there.

    Raises:
        NoRunsYet: The embedded log has never been used.
        LogUnavailable: The server cannot be used.
    """
    if not config.get("redis_url"):
        from evflow.log.embedded.places import look

        if look(config.home()) is None:
            raise NoRunsYet
    with own_log() as client:
        yield client


@contextmanager
def own_log() -> Generator["RedisLogKeeper"]:
    """The log, connected, as `log`; an embedded one is made where there is none yet.

    Raises:
        LogUnavailable: The server cannot be used.
    """
    from evflow.archives import connect

    with own_url() as url:
        client = connect(url)
        try:
            yield client
        finally:
            client.close()


@contextmanager
def own_url() -> Generator[str]:
    """Where the log is, as `own_log`, for whoever needs more than one connection.

    Raises:
        LogUnavailable: The embedded server cannot be started.
    """
    url, server = config.get("redis_url"), None
    if not url:
        from evflow.log.embedded import EmbeddedServer

        server = EmbeddedServer.begin(config.home())
    try:
        yield server.ready() if server is not None else url
    finally:
        if server is not None:
            server.release()


def store(url: str = "") -> "Store":
    """The object store of a run (its `RunStarted` names it), or the one of the settings."""
    from evflow.store import open_store

    return open_store(url or config.get("store"))


def folded_or_new(client: "LogClient", run: RunId) -> tuple["RunEntry", "RunState"]:
    """A run's line in the index and its state, which is `new` where no scheduler has begun it.

    Raises:
        RunNotFound: There is no such run.
    """
    from evflow.core.state import RunState
    from evflow.replay.load import RunWaits

    try:
        return folded(client, run)
    except RunWaits:
        entry = client.run(run)
        assert entry is not None  # whoever raised the error had it
        return entry, RunState()


def folded(client: "LogClient", run: RunId) -> tuple["RunEntry", "RunState"]:
    """A run's line in the index and the state that its log folds to: see `evflow.replay.load.folded`.

    Raises:
        RunNotFound: There is no such run.
    """
    from evflow.replay import load

    return load.folded(client, run)
