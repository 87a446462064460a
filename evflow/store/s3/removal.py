"""Removing objects that nobody refers to, beside writers who are about to refer to one.

S3 has no renaming, so nothing can be put aside, looked at once more and put back. Instead whoever removes an object says so first:

    remover                                        writer who finds the object there
      create `removing/<digest>`, or leave           touch the object, unless it is young anyway
      is the object young? then leave it             wait until there is no `removing/<digest>`
      delete the object                              is the object there? else write it again
      delete `removing/<digest>`

A touch that comes before the remover's look is seen by it. One that comes after it finds the note, or finds it gone and the object with it:
S3's reads see every write that was answered. The note is created conditionally (`If-None-Match: *`), so an object has one remover at a time,
and whoever finds the object missing and writes it has no remover who could still delete it.

A remover that died leaves its note. One does not delete when its note is older than `REMOVE_WITHIN_S`; so a note older than
`ABANDONED_AFTER_S`, by S3's clock, is nobody's.

Touching is a copy that S3 makes, so a writer does it only to what was not written for `TOUCH_AFTER_S`; a remover spares what is younger than
the cut by so much.
"""

import asyncio
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from evflow.clock import monotonic_s
from evflow.store.s3.problems import S3Failed
from evflow.store.s3.requests import Bucket

TOUCH_AFTER_S: Final = 600
REMOVE_WITHIN_S: Final = 60
ABANDONED_AFTER_S: Final = 300
LOOK_EVERY_S: Final = 0.2
CLOCK_STEP_US: Final = 1_000_000
"""S3's times are whole seconds: what was written in one may have been written at its end."""


def us_of(moment: datetime) -> int:
    """An instant in microseconds."""
    return round(moment.timestamp() * 1e6)


def server_us(answer: dict[str, Any]) -> int:
    """When S3 gave an answer, by its clock."""
    return us_of(parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]))


def note_key(bucket: Bucket, digest: bytes) -> str:
    """The key of the note that an object is being removed."""
    return bucket.address.key("removing", digest.hex())


async def remove(bucket: Bucket, digest: bytes, written_before_us: int, *, listed: bool = False) -> int:
    """Remove an object, unless it counts as written at that time or later; the bytes that became free."""
    key, note = bucket.address.object(digest), note_key(bucket, digest)
    if not listed and not await _is_old(bucket, key, written_before_us):  # what is young needs no note
        return 0
    began_s = monotonic_s()
    try:
        await bucket.call("put_object", key=note, body=b"", IfNoneMatch="*")
    except S3Failed as failed:
        if failed.answer.is_taken:  # somebody else removes it, or died at it
            return 0
        raise
    size = await _is_old(bucket, key, written_before_us)
    if size and monotonic_s() - began_s < REMOVE_WITHIN_S:
        # Not repeated here: a second delete could come after a writer's. If the answer is lost, the note stays until it is abandoned.
        await bucket.call("delete_object", key=key, once=True)
    await bucket.call("delete_object", key=note)
    return size - 1 if size else 0


async def _is_old(bucket: Bucket, key: str, written_before_us: int) -> int:
    """One more than the size of an object that may go; 0 where there is none, or it is young."""
    try:
        answer = await bucket.call("head_object", key=key)
    except S3Failed as failed:
        if failed.answer.is_missing:
            return 0
        raise
    counts_us = us_of(answer["LastModified"]) + CLOCK_STEP_US + TOUCH_AFTER_S * 1_000_000
    return 0 if counts_us >= written_before_us else int(answer["ContentLength"]) + 1


async def none_removes(bucket: Bucket, digest: bytes) -> None:
    """Wait until nobody is removing an object."""
    note = note_key(bucket, digest)
    while True:
        try:
            answer = await bucket.call("head_object", key=note)
        except S3Failed as failed:
            if failed.answer.is_missing:
                return
            raise
        if server_us(answer) - us_of(answer["LastModified"]) > ABANDONED_AFTER_S * 1_000_000:
            return
        await asyncio.sleep(LOOK_EVERY_S)


async def settle(bucket: Bucket) -> None:
    """Take away the notes of removers that died."""
    async for page in bucket.pages(bucket.address.key("removing", "")):
        for entry in page.get("Contents", ()):
            if server_us(page) - us_of(entry["LastModified"]) > ABANDONED_AFTER_S * 1_000_000:
                await bucket.call("delete_object", key=entry["Key"])
