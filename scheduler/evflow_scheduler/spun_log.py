"""Where a spin that was asked to be kept is written down: a home of its own, with a log and a store that no run uses.

It is an EVFLOW_HOME like any other, so whatever reads runs reads spins: the client (`evflow.inspect_spin`), `evflow show`, `dump`, `logs`,
`card`. The store has what the task left, what that is made of, and its code; what the tasks before it left is in the store of
the run that was spun.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import anyio

from evflow.archives import connect
from evflow.archives.users import sign
from evflow.core import flow_events
from evflow.core.cards import recorded
from evflow.core.ids import RunId
from evflow.core.state import Task
from evflow.core.summary import summary
from evflow.deployments.beginning import take_number
from evflow.log import open_event_log
from evflow.log.embedded import EmbeddedServer
from evflow.log.keys import own_shard
from evflow.log.owners import owner_name
from evflow.log.protocol import RunEntry
from evflow.store import ObjectStore, Store, open_store
from evflow.store.artifacts import manifest_objects

if TYPE_CHECKING:
    from evflow_scheduler.run import OwnedRun

_LEASE_S: Final = 60.0


class SpinHome:
    """A home for spins, in use until `release`.

    Attributes:
        store: Its store.
    """

    def __init__(self, server: EmbeddedServer, store: Store) -> None:
        self._server = server
        self.store = store
        self._installation = ""

    @classmethod
    def begin(cls, folder: Path) -> Self:
        """Make the home, where it is not there, and start its log.

        Raises:
            EnvironmentProblem: The folder cannot be used, or the server not be started.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
            file.write("*\n")
        return cls(EmbeddedServer.begin(folder), open_store(str(folder / "store")))

    @property
    def installation(self) -> str:
        """The identity of its log; known once a spin was requested."""
        return self._installation

    def request(self, origin: RunId, user: str) -> RunId:
        """Take the number of a spin."""
        client = connect(self._server.ready())
        try:
            self._installation = client.installation()
            return take_number(client, origin.flow, flow_events.RunRequested(0, user, str(origin)), store=self.store.url)
        finally:
            client.close()

    def keep(self, run: "OwnedRun", task: Task, source: ObjectStore) -> None:
        """Write the spin's log down, and copy what its task left."""
        for digest in _left(run, task, source):
            if not self.store.exists(digest):
                self.store.put([source.get(digest)])
        anyio.run(self._append, run)

    async def _append(self, run: "OwnedRun") -> None:
        shard = own_shard(run.id)
        log = await open_event_log(self._server.ready())
        try:
            lease = await log.take(shard, owner_name(), _LEASE_S)
            for call in run.pending((), {}):
                await log.append(lease, call)
            await log.index_run(RunEntry(run.id, shard, summary(run.state)))
            await log.release(lease)
        finally:
            await log.aclose()
        sign(self.store, self._installation, self._server.url, run.state.header["host"])

    def release(self) -> None:
        """Use it no longer."""
        self._server.release()


def _left(run: "OwnedRun", task: Task, source: ObjectStore) -> Iterator[bytes]:
    """The objects that somebody needs who looks at the task."""
    header = run.state.header
    yield from manifest_objects(source, header["parameters"])
    if header["code"].get("package") is not None:
        yield header["code"]["package"]
    yield from (entry["lock"] for entry in header["options"].get("environments", ()) if entry.get("lock"))
    if task.manifest is not None:
        yield from manifest_objects(source, task.manifest)
    if task.items is not None:
        yield task.items
    for attempt in task.attempts:
        yield from (digest for card in recorded(attempt.cards) for digest in (card.page, card.raw) if digest)
        if attempt.detail is not None:
            yield attempt.detail
