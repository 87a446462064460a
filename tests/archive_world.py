"""Runs that were written into a real log and sealed, and what archives them."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from evflow import config, namespace
from evflow.archives import connect
from evflow.archives.archiving import Archivist, Sealed
from evflow.client import namespaces
from evflow.client.connection import disconnect
from evflow.core.ids import FlowName, RunId
from evflow.log.archived import Archived
from evflow.log.keeper import RedisLogKeeper
from evflow.log.keys import own_shard, run_keys
from evflow.log.protocol import StoredEvent
from evflow.log.wire import Wire
from evflow.store import Store, open_store
from tests.client_world import LINE, ClientWorld, WrittenRun

FLOW = FlowName("Line")


class ArchiveWorld:
    """A log with runs, and an archivist."""

    def __init__(self, runs: ClientWorld) -> None:
        self.runs = runs
        self.url = runs.url
        self.log: RedisLogKeeper = connect(runs.url)
        self.store: Store = open_store(config.get("store"))
        self.archivist = Archivist(self.log, config.get("store"), "user:ada")

    def close(self) -> None:
        self.log.close()

    def sealed(self, values: dict[str, object] | None = None) -> WrittenRun:
        """Answer a run of two steps that has succeeded."""
        run = self.runs.run(LINE, flow=FLOW)
        run.succeed(1, "end", values=values or {"x": run.id.number})
        return run.succeed(2, values=values or {"x": run.id.number}).seal()

    def archive(self, run: RunId) -> tuple[Sealed, Archived]:
        sealed = self.archivist.sealed(run)
        assert sealed is not None
        return sealed, self.archivist.archive(sealed)

    def dropped(self, run: RunId) -> Archived:
        """Archive a run and remove it from the server."""
        sealed, archived = self.archive(run)
        assert self.archivist.drop(sealed, archived, 0.0)
        return archived

    def events(self, run: RunId) -> list[StoredEvent]:
        return self.log.read(own_shard(run), run)

    def path(self, archived: Archived) -> Path:
        return Path(self.store.where_named(archived.name))

    def keys(self) -> set[str]:
        """Answer the names of all keys."""
        wire = Wire.connect(self.url)
        try:
            return {key.decode() for key in wire.call("KEYS", "*")}
        finally:
            wire.close()

    def call(self, *command: str | bytes | int) -> object:
        wire = Wire.connect(self.url)
        try:
            return wire.call(*command)
        finally:
            wire.close()


@contextmanager
def archive_world(home: Path) -> Generator[ArchiveWorld]:
    """Give a world whose client sees all namespaces."""
    runs = ClientWorld(home)
    made = ArchiveWorld(runs)
    namespace(None)
    yield made
    namespaces.forget()
    disconnect()
    made.close()
    runs.close()


def keys_of(run: RunId) -> set[str]:
    """Answer the keys of a run's log."""
    return set(run_keys(own_shard(run), run))
