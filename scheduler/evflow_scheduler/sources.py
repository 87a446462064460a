"""Events from elsewhere, in a scheduler: streams, folders, queues and parts of buckets, each read by a task of its own.

Imported only where the operator names some. Nothing that a source does ends another one, or the scheduler. How each of them goes stands in the log beside
the events, for `evflow scheduler status`.
"""

import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import orjson

from evflow import aws, clock, config, diagnostics
from evflow.core.notifications import Watched, bucket_of, by_place, queue_of
from evflow.errors import EvflowError
from evflow.log import open_event_log, sources
from evflow.log.errors import LogUnavailable
from evflow.log.link import Link
from evflow.log.protocol import Durability
from evflow_scheduler.accepting import Acceptance
from evflow_scheduler.reading import Reading, Seen, Source, plain, source_of

if TYPE_CHECKING:
    from evflow.log.event_log import RedisEventLog
    from evflow_scheduler.daemon import Duty
    from evflow_scheduler.tenancy import Premises

_SAY_EVERY_S: Final = 2.0
_SAY_AGAIN_S: Final = 30.0
_AGAIN_AFTER_S: Final = 2.0
_AFTER_A_DEFECT_S: Final = 30.0
_LEAVE_S: Final = 1.0


class Sources:
    """What a scheduler reads events from.

    Args:
        premises: The log, and this machine.
        duty: What the operator names.
        name: This scheduler's, as others see it.
        owned: The shards that this process owns now.
    """

    def __init__(self, premises: "Premises", duty: "Duty", name: str, owned: Callable[[], frozenset[str]]) -> None:
        self._log_url = premises.log_url
        self._host = premises.host
        self._level: Durability = duty.durability
        self._name = name
        self._owned = owned
        self._streams = {source.place: source for source in map(source_of, duty.streams)}
        folders = (Source(str(Path(place).absolute()), event) for place, event in map(source_of, duty.folders))
        self._folders = {source.place: source for source in folders}
        self._queues = by_place(tuple(map(queue_of, duty.queues)))
        self._buckets = by_place(tuple(map(bucket_of, duty.buckets)))
        places = (*self._streams, *self._folders, *self._queues, *self._buckets)
        self._readings = {place: Reading(place) for place in places}
        self._region: str | None = config.get("aws_region")
        self._endpoint: str | None = config.get("aws_endpoint")

    @property
    def now(self) -> tuple[Seen, ...]:
        """How each source goes."""
        return tuple(reading.now for reading in self._readings.values())

    async def follow(self) -> None:
        """Read all of them until cancelled."""
        link = Link(self._log_url)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._say, link)
                for place, stream in self._streams.items():
                    group.start_soon(self._again_and_again, self._readings[place], partial(self._read_stream, link, stream))
                for place, folder in self._folders.items():
                    group.start_soon(self._again_and_again, self._readings[place], partial(self._watch_folder, link, folder))
                for url, watched in self._queues.items():
                    group.start_soon(self._again_and_again, self._readings[url], partial(self._read_queue, url, watched))
                for place, watched in self._buckets.items():
                    group.start_soon(self._again_and_again, self._readings[place], partial(self._read_bucket, link, place, watched))
        finally:
            with anyio.move_on_after(_LEAVE_S, shield=True):
                try:
                    await link.do(sources.unsay(self._name))
                except LogUnavailable as error:  # whoever reads it sees that this scheduler is gone
                    diagnostics.debug("what was said of sources stays", why=str(error))
                await link.aclose()

    # --- each of its kind, its reader imported where one is named ---------------------------------------------

    async def _read_stream(self, link: Link, source: Source, log: "RedisEventLog") -> None:
        from evflow_scheduler.streams import StreamReader

        reading = self._readings[source.place]
        acceptance = Acceptance(log, self._level, reading, f"stream:{source.place}")
        await StreamReader(source, acceptance, reading, link, self._owned).read()

    async def _watch_folder(self, link: Link, source: Source, log: "RedisEventLog") -> None:
        from evflow_scheduler.folders import FolderReader

        reading = self._readings[source.place]
        acceptance = Acceptance(log, self._level, reading, f"file:{source.place}")
        await FolderReader(source, self._host, acceptance, reading, link).read()

    async def _read_queue(self, url: str, watched: Sequence[Watched], log: "RedisEventLog") -> None:
        from evflow_scheduler.queues import QueueReader

        region = aws.region_of(url) or self._region
        async with aws.client("sqs", region=region, endpoint=self._endpoint or aws.origin_of(url)) as sqs:
            reading = self._readings[url]
            acceptance = Acceptance(log, self._level, reading, f"queue:{url.rpartition('/')[2]}")
            await QueueReader(sqs, url, [one.rule for one in watched], acceptance, reading).read()

    async def _read_bucket(self, link: Link, place: str, watched: Sequence[Watched], log: "RedisEventLog") -> None:
        from evflow_scheduler.buckets import BucketReader

        async with aws.client("s3", region=self._region, endpoint=self._endpoint) as s3:
            reading = self._readings[place]
            acceptance = Acceptance(log, self._level, reading, place)
            every_s = min(one.every_s for one in watched)
            await BucketReader(s3, place, [one.rule for one in watched], every_s, acceptance, reading, link, self._owned).read()

    # --- all of them -------------------------------------------------------------------------------------------

    async def _again_and_again(self, reading: Reading, read: "Callable[[RedisEventLog], Awaitable[None]]") -> None:
        """Read a source, and go on after whatever went wrong with it."""
        while True:
            try:
                await self._with_log(read)
            except (EvflowError, OSError) as error:  # no client can be made, there is no such folder, or the log is away
                await anyio.sleep(max(_AGAIN_AFTER_S, aws.pause_s(reading.fails(str(error)))))
            except Exception as error:  # noqa: BLE001 - what a client of others raises must not end the scheduler; it is told
                diagnostics.warning("a source of events is left for a while", place=reading.place, traceback=traceback.format_exc())
                reading.fails(f"{type(error).__name__}: {error}")
                await anyio.sleep(_AFTER_A_DEFECT_S)

    async def _with_log(self, read: "Callable[[RedisEventLog], Awaitable[None]]") -> None:
        log = await open_event_log(self._log_url)
        try:
            await read(log)
        finally:
            with anyio.CancelScope(shield=True):  # within a second
                await log.aclose()

    async def _say(self, link: Link) -> None:
        """Say in the log how the sources go, when it changes, and now and then that it is still so."""
        said: tuple[Seen, ...] = ()
        said_s = -_SAY_AGAIN_S
        await self._forget_the_dead(link)
        while True:
            now = self.now
            if now != said or anyio.current_time() - said_s >= _SAY_AGAIN_S:
                try:
                    body = orjson.dumps({"at_us": clock.now_us(), "sources": [plain(one) for one in now]})
                    await link.do(sources.say(self._name, body))
                    said, said_s = now, anyio.current_time()
                except LogUnavailable as error:
                    diagnostics.debug("how sources go is not said", why=str(error))
            await anyio.sleep(_SAY_EVERY_S)

    async def _forget_the_dead(self, link: Link) -> None:
        """Remove what schedulers said that were killed long ago."""
        try:
            for name in sources.silent(await link.do(sources.said()), clock.now_us()):
                await link.do(sources.unsay(name))
        except LogUnavailable as error:
            diagnostics.debug("what dead schedulers said of sources stays", why=str(error))
