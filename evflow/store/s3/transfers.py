"""Large contents to and from S3: in parts, several at once, in bounded memory.

Memory is bounded: an upload has at most `IN_FLIGHT_BYTES` of its content in it, a download hands on what comes.

A content is named by its digest, which is known when all of it was seen. So a large one is written to this machine's disk first, then sent
from there; the file becomes what the machine has of the object (`evflow.store.s3.cache`). Sending it under another name while it is made, and
copying it in the bucket then, would need no disk, but let S3 move every byte twice and leave litter where the writer dies.
"""

import asyncio
import base64
import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

from evflow.store.s3.problems import S3Failed
from evflow.store.s3.requests import Bucket

PART_BYTES: Final = 8 << 20
"""As S3's own clients have it: large enough that a request's latency does not count, small enough to repeat."""
IN_FLIGHT_BYTES: Final = 32 << 20
"""Of an upload, in memory."""
CONNECTIONS_EACH: Final = 8
"""For a download."""
SPAN_BYTES: Final = 64 << 20
"""What one request of a download asks for, at most."""
MOST_PARTS: Final = 10_000
"""What S3 takes of one upload."""
MOST_COPIED_BYTES: Final = 5 << 30
"""What S3 copies in one request."""


class Content(NamedTuple):
    """What was read.

    Attributes:
        size: The whole object's size in bytes.
        answer: What S3 said of it.
    """

    size: int
    answer: dict[str, Any]


def part_bytes(size: int) -> int:
    """How large the parts of a content of that size are."""
    return max(PART_BYTES, -(-size // MOST_PARTS))


async def send_file(
    bucket: Bucket,
    key: str,
    path: str,
    size: int,
    in_flight_bytes: int = IN_FLIGHT_BYTES,
    about: dict[str, Any] | None = None,
    **arguments: Any,
) -> None:
    """Upload a file in parts.

    Args:
        bucket: Where to.
        key: Under which key.
        path: The file, which does not change.
        size: Its size in bytes, more than a part.
        in_flight_bytes: How much of it may be in memory.
        about: What the new object is to be: arguments of `create_multipart_upload`; encrypted as is configured if not given.
        **arguments: Of `complete_multipart_upload`, such as a condition.

    Raises:
        S3Failed: The condition does not hold.
        S3Unusable: It cannot be written. Nothing of it is left in the bucket.
    """
    begun = await bucket.call(
        "create_multipart_upload", key=key, ChecksumAlgorithm="CRC32", **(bucket.settings.written_with if about is None else about)
    )
    upload: str = begun["UploadId"]
    length = part_bytes(size)
    room = asyncio.Semaphore(max(1, in_flight_bytes // length))
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    async def send(number: int) -> dict[str, Any]:
        async with room:
            data, checksum = await asyncio.to_thread(_part, file, (number - 1) * length, min(length, size - (number - 1) * length))
            told = await bucket.call("upload_part", key=key, body=data, UploadId=upload, PartNumber=number, ChecksumCRC32=checksum)
            return {"PartNumber": number, "ETag": told["ETag"], "ChecksumCRC32": checksum}

    try:
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(send(number)) for number in range(1, -(-size // length) + 1)]
        listed = [part.result() for part in parts]
        try:
            await bucket.call("complete_multipart_upload", key=key, UploadId=upload, MultipartUpload={"Parts": listed}, **arguments)
        except S3Failed:
            if not await _is_there(bucket, key, size, listed):
                raise
    except BaseException as error:
        await asyncio.shield(_abort(bucket, key, upload))
        if isinstance(error, BaseExceptionGroup):
            raise cast("BaseExceptionGroup[BaseException]", error).exceptions[0] from None
        raise
    finally:
        os.close(file)


async def _is_there(bucket: Bucket, key: str, size: int, parts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a key has what was made of these parts: an upload was ended already whose end is asked for again, the first answer being lost.

    AWS answers the repeat as it did at first; others say that there is no such upload, or that the key is taken. A server that keeps no checksums has an ETag
    to compare; of what it encrypts with a key of its own that is the digest of nothing that is known here.
    """
    try:
        found = await bucket.call("head_object", key=key, ChecksumMode="ENABLED")
    except S3Failed:
        return False
    is_same = found["ETag"].strip('"') == _etag(parts) or str(found.get("ChecksumCRC32", "")).partition("-")[0] == _checksum(parts)
    return is_same and found["ContentLength"] == size


def _etag(parts: Sequence[Mapping[str, Any]]) -> str:
    """The ETag of what is joined of parts: the MD5 of theirs, where those are digests."""
    try:
        tags = bytes.fromhex("".join(part["ETag"].strip('"') for part in parts))
    except ValueError:
        return ""
    return f"{hashlib.md5(tags, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _checksum(parts: Sequence[Mapping[str, Any]]) -> str:
    """The CRC-32 that S3 gives to it, without the number of parts: that of theirs ("composite")."""
    return _crc32(b"".join(base64.b64decode(part["ChecksumCRC32"]) for part in parts))


def _crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


async def _abort(bucket: Bucket, key: str, upload: str) -> None:
    try:
        await bucket.call("abort_multipart_upload", key=key, UploadId=upload)
    except S3Failed:  # it is gone
        return


def _part(file: int, offset: int, length: int) -> tuple[bytes, str]:
    data = os.pread(file, length, offset)
    if len(data) != length:
        raise OSError(f"it ends after {offset + len(data)} bytes: somebody cut it while it was sent")
    return data, _crc32(data)


class Landing(Protocol):
    """Where a fetched object goes."""

    def prepare(self, size: int) -> None:
        """Make room; called once, with the object's size in bytes, from a thread."""
        ...

    def write(self, data: bytes | bytearray, offset: int) -> None:
        """Take some bytes, in no order; in the loop, so only to where that takes no time."""
        ...

    def complete(self, start: int, end: int) -> None:
        """All from `start` to before `end` was written; in order, without gaps, from a thread."""
        ...


async def fetch(bucket: Bucket, key: str, landing: Landing, connections: int = CONNECTIONS_EACH, *, may_change: bool = True) -> Content:
    """Read a whole object, a large one by several connections.

    Each of them hands on what comes at once, so the memory that this takes does not grow with the object; few and long requests cost
    less than many.

    Args:
        bucket: Where from.
        key: Its key.
        landing: Takes what comes.
        connections: How many requests may be under way.
        may_change: The key may be written anew with another content, whose parts do not go with those of the first. Without that it may only be written
            anew as it was (`touch`), or be damaged, and the caller compares its digest.

    Raises:
        S3Failed: There is no such key, or it changed meanwhile.
        S3Unusable: It cannot be read.
    """
    try:
        first, answer = await bucket.read(key, 0, PART_BYTES)
    except S3Failed as failed:
        if not failed.answer.is_past_the_end:
            raise
        await asyncio.to_thread(landing.prepare, 0)
        return Content(0, await bucket.call("head_object", key=key))
    size = int(str(answer.get("ContentRange", f"/{len(first)}")).rpartition("/")[2])
    await asyncio.to_thread(landing.prepare, size)
    landing.write(first, 0)
    await asyncio.to_thread(landing.complete, 0, len(first))
    length = min(SPAN_BYTES, max(PART_BYTES, -(-size // connections)))
    room = asyncio.Semaphore(connections)
    etag: str | None = answer["ETag"] if may_change else None

    async def span(start: int, end: int) -> None:
        async with room:
            await bucket.stream(key, start, end, etag, landing.write)

    spans = [(start, min(start + length, size)) for start in range(len(first), size, length)]
    tasks = [asyncio.create_task(span(*one)) for one in spans]
    try:
        for one, task in zip(spans, tasks, strict=True):
            await task
            await asyncio.to_thread(landing.complete, *one)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Content(size, answer)


async def touch(bucket: Bucket, key: str, size: int) -> None:
    """Let a key count as written now: S3 has no other way than to copy it onto itself, which it does by itself.

    Raises:
        S3Failed: There is no such key any more.
        S3Unusable: It cannot be written.
    """
    source = {"Bucket": bucket.address.bucket, "Key": key}
    written = bucket.settings.written_with
    if size <= MOST_COPIED_BYTES:
        await bucket.call("copy_object", key=key, CopySource=source, MetadataDirective="REPLACE", **written)
        return
    upload: str = (await bucket.call("create_multipart_upload", key=key, **written))["UploadId"]
    length = max(MOST_COPIED_BYTES // 5, part_bytes(size))
    try:
        parts: list[dict[str, Any]] = []
        for number, at in enumerate(range(0, size, length), 1):
            span = f"bytes={at}-{min(at + length, size) - 1}"
            told = await bucket.call(
                "upload_part_copy", key=key, UploadId=upload, PartNumber=number, CopySource=source, CopySourceRange=span
            )
            parts.append({"PartNumber": number, "ETag": told["CopyPartResult"]["ETag"]})
        await bucket.call("complete_multipart_upload", key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    except BaseException:
        await asyncio.shield(_abort(bucket, key, upload))
        raise
