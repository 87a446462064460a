"""Events from files that arrive in folders.

An event's id follows from the file and the instant of its last change, so a file that is seen twice is one event. How far a folder has been looked
through stands beside the events, and moves after they are durable: whoever goes on after a crash looks at the last files again.

A folder is this machine's, and every scheduler that is told of it watches it.
"""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import anyio.to_thread

from evflow import clock
from evflow.log import sources
from evflow.log.link import Link
from evflow_scheduler.accepting import Acceptance, Offered, digest_of, short_id
from evflow_scheduler.reading import Reading, Source

_PATIENCE_S: Final = 30.0
_SETTLED_NS: Final = 500_000_000
"""A file that was written to so shortly ago may not be whole yet."""
_UNFINISHED: Final = (".tmp", ".part", ".crdownload", "~")


class _File(NamedTuple):
    changed_ns: int
    path: str
    size: int


class FolderReader:
    """Watches one folder.

    Args:
        source: The folder's path, and the name of its events.
        host: This machine.
        acceptance: Where events go.
        reading: Counts.
        link: Where it is kept how far the folder was looked through.
    """

    def __init__(self, source: Source, host: str, acceptance: Acceptance, reading: Reading, link: Link) -> None:
        self._folder = Path(source.place)
        self._event = source.event
        self._name = f"watch:{host}:{self._folder}"
        self._accept = acceptance
        self._reading = reading
        self._link = link

    async def read(self) -> None:
        """Watch until cancelled.

        Raises:
            OSError: There is no such folder.
            LogUnavailable: The server is away.
        """
        import watchfiles

        after_ns = int(await self._begin())
        # Its annotations are incomplete.
        changes: AsyncIterator[object] = cast("Any", watchfiles).awatch(
            self._folder, step=20, debounce=100, rust_timeout=1_000, yield_on_timeout=True
        )
        async for _ in changes:
            self._reading.works()
            found = await anyio.to_thread.run_sync(_arrived, self._folder, after_ns)
            if found:
                for fault in await self._accept.all_of([self._offered(file) for file in found]):
                    await self._accept.refuse(str(self._folder), [fault])
                after_ns = found[-1].changed_ns
                await self._link.repeated(sources.move(self._name, str(after_ns)), _PATIENCE_S)

    async def _begin(self) -> str:
        """Up to when the folder was looked through; what lay there before somebody named it is no event."""
        position = await self._link.do(sources.position(self._name))
        if not position:
            position = str(clock.now_us() * 1_000)
            await self._link.do(sources.move(self._name, position))
        return position

    def _offered(self, file: _File) -> Offered:
        payload = {"path": file.path, "name": Path(file.path).name, "folder": str(self._folder), "size": file.size}
        return Offered(short_id(f"file:{digest_of(file.path)}:{file.changed_ns}"), self._event, payload)


def _arrived(folder: Path, after_ns: int) -> list[_File]:
    """Files that came, or were written to, behind an instant, and are whole by now, in that order; one that is renamed has come then."""
    settled_ns = clock.now_us() * 1_000 - _SETTLED_NS
    return sorted(file for file in _files(folder) if after_ns < file.changed_ns <= settled_ns)


def _files(folder: Path) -> Iterator[_File]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or name.endswith(_UNFINISHED):
                continue
            path = Path(root, name)
            try:
                about = path.stat()
            except FileNotFoundError:  # it is gone again
                continue
            yield _File(about.st_ctime_ns, str(path), about.st_size)
