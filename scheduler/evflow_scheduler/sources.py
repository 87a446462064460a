"""Events from elsewhere, in a scheduler: streams that others write at the log's server, and files that arrive in folders.

Each becomes a published event whose id follows from where it came from, so that an entry or a file that is read twice, by this scheduler or
by two of them, is one event. How far a source has been read stands beside the events, and moves after they are published: whoever goes on after a
crash reads the last ones again.

A stream is read by the scheduler that owns one certain shard. A folder is this machine's, and every scheduler that is told of it watches it.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import anyio
import anyio.to_thread
import orjson

from evflow import clock, diagnostics
from evflow.client.publishing import kept, made_of, own_store
from evflow.core.published import MOST_ID_CHARS, Publication, encode
from evflow.errors import EvflowError
from evflow.log import commands, sources
from evflow.log.errors import LogUnavailable
from evflow.log.keys import shared_shards
from evflow.log.link import Link

_READER: Final = shared_shards()[0]
_WAIT_S: Final = 5.0
_AGAIN_AFTER_S: Final = 2.0
_PATIENCE_S: Final = 30.0
_BATCH: Final = 100
_SETTLED_NS: Final = 500_000_000
"""A file that was written to so shortly ago may not be whole yet."""
_UNFINISHED: Final = (".tmp", ".part", ".crdownload", "~")


class Source(NamedTuple):
    """Where events come from, and the name that they get."""

    place: str
    event: str


def source_of(text: str) -> Source:
    """Read `PLACE=EVENT`.

    Raises:
        ValueError: It is not of this form.
    """
    place, equals, event = text.rpartition("=")
    if not (equals and place and event):
        raise ValueError(f"'{text}' is not of the form PLACE=EVENT")
    return Source(place, event)


def folder_of(text: str) -> Source:
    """As `source_of`, of a folder: its whole path."""
    place, event = source_of(text)
    return Source(str(Path(place).absolute()), event)


async def follow(
    log_url: str, host: str, owned: Callable[[], frozenset[str]], streams: Sequence[Source], folders: Sequence[Source]
) -> None:
    """Publish what comes from streams and folders, until cancelled.

    Args:
        log_url: The log, at whose server the streams are.
        host: This machine.
        owned: The shards that this process owns now.
        streams: The streams, by their keys.
        folders: The folders.
    """
    link = Link(log_url)
    try:
        async with anyio.create_task_group() as group:
            for stream in streams:
                group.start_soon(_again_and_again, stream, partial(_read_stream, link, owned, stream))
            for folder in folders:
                group.start_soon(_again_and_again, folder, partial(_watch_folder, link, host, Path(folder.place), folder))
    finally:
        with anyio.CancelScope(shield=True):  # within a second
            await link.aclose()


async def _again_and_again(source: Source, read: Callable[[], Any]) -> None:
    """Read a source, and go on after whatever went wrong with it: other sources go on meanwhile."""
    said = ""
    while True:
        try:
            await read()
        except (EvflowError, OSError) as error:
            why = f"{type(error).__name__}: {error}"
            (diagnostics.debug if why == said else diagnostics.warning)("a source of events cannot be read", place=source.place, why=why)
            said = why
        await anyio.sleep(_AGAIN_AFTER_S)


# --- streams ---------------------------------------------------------------------------------------------


async def _read_stream(link: Link, owned: Callable[[], frozenset[str]], source: Source) -> None:
    if _READER not in owned():
        return
    name = f"stream:{source.place}"
    after = await link.do(sources.position(name))
    if not after:  # what was there before somebody named the stream is no event
        after = await link.do(sources.newest(source.place))
        await link.do(sources.move(name, after))
    wait = link.wait()
    try:
        while _READER in owned():
            found = await wait.do(sources.entries(source.place, after, _WAIT_S, _BATCH), _WAIT_S)
            for entry in found:
                await _publish(link, source, f"{name}:{entry.id}", _payload(entry.fields), name)
                after = entry.id
            if found:
                await link.repeated(sources.move(name, after), _PATIENCE_S)
    finally:
        with anyio.CancelScope(shield=True):
            await wait.aclose()


def _payload(fields: Sequence[bytes]) -> object:
    """What an entry says: its fields, or what its only field `payload` holds as JSON."""
    texts = [field.decode(errors="replace") for field in fields]
    if len(texts) == 2 and texts[0] == "payload":
        try:
            return orjson.loads(fields[1])
        except orjson.JSONDecodeError:
            pass  # then it is a text
    return dict(zip(texts[::2], texts[1::2], strict=True))


# --- folders ---------------------------------------------------------------------------------------------


class _File(NamedTuple):
    changed_ns: int
    path: str
    size: int


async def _watch_folder(link: Link, host: str, folder: Path, source: Source) -> None:
    import watchfiles

    name = f"watch:{host}:{folder}"
    position = await link.do(sources.position(name))
    if not position:  # what lay there before somebody named the folder is no event
        position = str(clock.now_us() * 1_000)
        await link.do(sources.move(name, position))
    after_ns = int(position)
    # Its annotations are incomplete.
    changes: AsyncIterator[object] = cast("Any", watchfiles).awatch(
        folder, step=20, debounce=100, rust_timeout=1_000, yield_on_timeout=True
    )
    async for _ in changes:
        found = await anyio.to_thread.run_sync(_arrived, folder, after_ns)
        for file in found:
            payload = {"path": file.path, "name": Path(file.path).name, "folder": str(folder), "size": file.size}
            await _publish(link, source, f"file:{_short(file.path)}:{file.changed_ns}", payload, f"file:{folder}")
            after_ns = file.changed_ns
        if found:
            await link.repeated(sources.move(name, str(after_ns)), _PATIENCE_S)


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


# --- both ------------------------------------------------------------------------------------------------


async def _publish(link: Link, source: Source, event_id: str, payload: object, origin: str) -> None:
    """Publish one event. What cannot be one is told and passed over: it would not be one at the next try, either."""

    def made() -> Publication:
        return made_of(source.event, payload, source=origin, principal="scheduler", store=own_store)

    if len(event_id) > MOST_ID_CHARS:
        event_id = f"{event_id[:20]}:{_short(event_id)}"
    try:
        publication = await anyio.to_thread.run_sync(made)  # a large payload goes to the store
        placed = await link.repeated(commands.publish(event_id, encode(publication), kept()), _PATIENCE_S)
    except LogUnavailable:
        raise
    except EvflowError as error:
        diagnostics.warning("what came is no event", place=source.place, id=event_id, why=str(error))
    else:
        diagnostics.info("event from elsewhere", name=source.event, id=event_id, new=placed.is_new)


def _short(text: str) -> str:
    return sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]
