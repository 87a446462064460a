"""Events from parts of buckets that are listed every so often, where S3 cannot notify.

What was there before somebody named the place is no event. From then on a listing looks at what was written since the listing before, and a day before
that: a large object has the instant at which its upload began, and appears when it ends. What is found again has the id that it had, and is
no second event; the newest ids are remembered besides, so that the log is not asked about each object at each listing.

One scheduler lists: the owner of one certain shard. Memory is that of a page of a thousand objects, and of the ids.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import anyio

from evflow import aws, clock
from evflow.core.notifications import Rule, S3Object, s3_object
from evflow.log import sources
from evflow.log.keys import shared_shards
from evflow.log.link import Link
from evflow_scheduler.accepting import Acceptance, Offered
from evflow_scheduler.reading import Reading

_LISTER: Final = shared_shards()[0]
_NOT_OURS_S: Final = 1.0
_LATE_US: Final = 86_400_000_000
"""How long an upload may take."""
_REMEMBERED: Final = 100_000
_PATIENCE_S: Final = 30.0


class BucketReader:
    """Lists a part of a bucket.

    Args:
        s3: A client of S3.
        place: `s3://bucket/prefix`.
        rules: What becomes an event; the first one that takes an object gives the name.
        every_s: Seconds from the end of a listing to the next.
        acceptance: Where events go.
        reading: Counts.
        link: Where it is kept how far the bucket has been listed.
        owned: The shards that this process owns now.
    """

    def __init__(
        self, s3: Any, place: str, rules: Sequence[Rule], every_s: float, acceptance: Acceptance, reading: Reading, link: Link,
        owned: Callable[[], frozenset[str]],
    ) -> None:  # fmt: skip
        self._s3 = s3
        self._bucket, _, self._prefix = place.removeprefix("s3://").partition("/")
        self._place = place
        self._rules = rules
        self._every_s = every_s
        self._accept = acceptance
        self._reading = reading
        self._link = link
        self._owned = owned
        self._known: dict[bytes, None] = {}

    async def read(self) -> None:
        """List until cancelled, whenever it is ours to do."""
        while True:
            if _LISTER not in self._owned():
                await anyio.sleep(_NOT_OURS_S)
                continue
            await self._accept.log_answers()
            try:
                await self.look()
                self._reading.works()
            except aws.AwsProblem as problem:
                await anyio.sleep(aws.pause_s(self._reading.fails(str(problem))))
            else:
                await anyio.sleep(self._every_s)

    async def look(self) -> None:
        """List once, and publish what came.

        Raises:
            AwsProblem: S3 does not answer; what was found before is published.
            LogUnavailable: It cannot be noted how far the bucket has been listed.
        """
        name = f"list:{self._place}"
        began_us = clock.now_us()
        since_us, listed_us = _position(await self._link.do(sources.position(name)))
        if not since_us:
            since_us = listed_us = began_us
            await self._link.repeated(sources.move(name, f"{since_us} {listed_us}"), _PATIENCE_S)
        # S3 tells whole seconds.
        after = datetime.fromtimestamp(max(since_us, listed_us - _LATE_US) // 1_000_000, UTC)
        async for page in self._pages():
            await self._publish([one for one in page if one["LastModified"] >= after])
        await self._link.repeated(sources.move(name, f"{since_us} {began_us}"), _PATIENCE_S)

    async def _pages(self) -> AsyncGenerator[list[Any]]:
        more: dict[str, str] = {}
        while True:
            with aws.explained(f"list {self._place}"):
                answer = await self._s3.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, **more)
            yield answer.get("Contents", [])
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    async def _publish(self, page: Sequence[Any]) -> None:
        offered: list[Offered] = []
        marks: list[bytes] = []
        for one in page:
            found = self._object(one)
            mark = sha256(found.id.encode(errors="surrogatepass")).digest()[:12]
            if mark in self._known:
                continue
            marks.append(mark)
            rule = next((rule for rule in self._rules if rule.takes(found)), None)
            if rule is None:
                self._reading.count("passed")
            else:
                offered.append(Offered(found.id, rule.event, found.payload))
        for fault in await self._accept.all_of(offered):
            await self._accept.refuse(self._place, [fault])
        self._known.update(dict.fromkeys(marks))
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]

    def _object(self, one: Any) -> S3Object:
        at = one["LastModified"].astimezone(UTC).isoformat().replace("+00:00", "Z")
        return s3_object(self._bucket, one["Key"], "ObjectCreated:Listed", one.get("Size"), one.get("ETag", ""), "", at, at)


def _position(text: str) -> tuple[int, int]:
    """Since when the place is watched, and up to when it was listed, in microseconds; zeros where it never was."""
    since, _, listed = text.partition(" ")
    return (int(since), int(listed)) if since.isdecimal() and listed.isdecimal() else (0, 0)
