"""`S3Store`: what `evflow.store.protocol.Store` asks for, in a bucket.

A put that returned is durable, as S3 means it: on several devices in several places. Whatever is read whole was checked against its digest.
"""

import asyncio
import hashlib
import mmap
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self
from uuid import uuid4

from evflow.core.ids import Digest, Micros
from evflow.store.disk import STEP_BYTES, Draft, read_file, steps, take, write_digested
from evflow.store.protocol import (
    Buffer,
    NameMissing,
    NameTaken,
    ObjectDamaged,
    ObjectMissing,
    StoreFull,
    StoreUnusable,
    digest_named,
    is_name,
    name_parts,
)
from evflow.store.s3 import loop, removal, transfers
from evflow.store.s3.address import S3Address
from evflow.store.s3.cache import ReadCache
from evflow.store.s3.problems import S3Failed, S3Unusable
from evflow.store.s3.requests import Bucket
from evflow.store.s3.settings import S3Settings

SMALL_BYTES: Final = 1 << 20
"""Up to here content is sent at once, on the condition that it is not there: one request instead of two."""
AT_ONCE: Final = 32
"""Requests about many objects that are under way together."""
UNFINISHED_AFTER: Final = timedelta(days=1)
"""An upload that began so long ago is nobody's any more."""
_WRITER: Final = "writer"


class S3Store:
    """Objects and named files in a bucket, with what this machine keeps of them. Safe to use from many threads and processes at once."""

    def __init__(self, address: S3Address, settings: S3Settings) -> None:
        self.address = address
        self._bucket = Bucket(address, settings)
        self._cache = ReadCache(Path(settings.cache), settings.cache_bytes)
        self._spool = Path(settings.cache)

    @classmethod
    def from_url(cls, url: str, settings: S3Settings | None = None) -> Self:
        """The store at `s3://bucket/prefix`, reached as is configured. Nothing is asked yet.

        Raises:
            UnknownStore: It is no such URL.
            AwsMissing: The client of AWS is not installed.
        """
        from evflow import aws

        address = S3Address.parse(url)
        aws.installed(f"The store at '{url}'")
        return cls(address, settings or S3Settings.configured())

    def uncached(self) -> Self:
        """The same store, of which this machine keeps nothing."""
        return type(self)(self.address, self._bucket.settings._replace(cache_bytes=0))

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    @property
    def url(self) -> str:
        """`s3://`, the bucket and the prefix."""
        return self.address.url

    # --- objects -----------------------------------------------------------------------------------------

    def put(self, chunks: Iterable[Buffer]) -> Digest:
        """See `ObjectStore.put`. What is larger than a part is written to this machine's disk first."""
        rest = iter(chunks)
        head, complete = take(rest, transfers.PART_BYTES)
        if complete:
            data = b"".join(head)
            digest = Digest(hashlib.sha256(data).digest())
            loop.run(self._put_small(digest, data))
            self._cache.keep(digest, data)
            return digest
        loop.start(self._bucket.prepare())
        with Draft(self._spool, durable=False) as draft:
            digest = write_digested(draft, chain(head, rest))
            loop.run(self._put_file(digest, draft))
            if self._cache.takes(draft.size):
                self._cache.adopt(draft, digest, draft.size)
        return digest

    async def _put_small(self, digest: Digest, data: bytes) -> None:
        key = self.address.object(digest)
        if len(data) > SMALL_BYTES and await self._confirm(digest, len(data)):
            return
        sent: dict[str, Any] = {"ChecksumSHA256": _base64(digest), **self._bucket.settings.written_with}
        try:
            await self._bucket.call("put_object", key=key, body=data, IfNoneMatch="*", **sent)
        except S3Failed as failed:
            if not failed.answer.is_taken:
                raise S3Unusable(self.where(digest), failed.answer) from failed
            if not await self._confirm(digest, len(data)):
                await self._bucket.call("put_object", key=key, body=data, **sent)

    async def _put_file(self, digest: Digest, draft: Draft) -> None:
        if not await self._confirm(digest, draft.size):
            await self._send(self.address.object(digest), draft)

    async def _send(self, key: str, draft: Draft, **condition: Any) -> None:
        try:
            await transfers.send_file(self._bucket, key, str(draft.path), draft.size, **condition)
        except S3Failed as failed:
            if failed.answer.is_taken:
                raise
            raise S3Unusable(self.address.at(key), failed.answer) from failed

    async def _confirm(self, digest: bytes, size: int | None = None) -> bool:
        """Whether the object is there, in that size, and counts as written now (`evflow.store.s3.removal`)."""
        key = self.address.object(digest)
        found = await self._head(key)
        if found is None or size not in {None, found["ContentLength"]}:
            return False
        if removal.server_us(found) - removal.us_of(found["LastModified"]) < removal.TOUCH_AFTER_S * 1_000_000:
            return True
        try:
            await transfers.touch(self._bucket, key, found["ContentLength"])
        except S3Failed as failed:
            if failed.answer.is_missing:
                return False
            raise S3Unusable(self.where(digest), failed.answer) from failed
        await removal.none_removes(self._bucket, digest)
        return await self._head(key) is not None

    def get(self, digest: bytes, offset: int = 0, length: int | None = None) -> memoryview:
        """See `ObjectStore.get`. An object that this machine has is read here; a large one is mapped."""
        if offset or length is not None:
            return self._get_part(digest, offset, length)
        kept = self._cache.get(digest)
        if kept is not None:
            return kept
        return self._fetch(digest)

    def _get_part(self, digest: bytes, offset: int, length: int | None) -> memoryview:
        where = self.where(digest)
        found: bytes | bytearray = b""
        size = None
        if length != 0:
            try:
                end = None if length is None else offset + length
                found, _ = loop.run(self._bucket.read(self.address.object(digest), offset, end))
            except S3Failed as failed:
                if not failed.answer.is_past_the_end:
                    raise self._failed(failed, digest) from failed
        if length is None or len(found) < length or length == 0:
            size = self.size(digest)
            if size is None:
                raise ObjectMissing(digest, where)
            wanted = size - offset if length is None else length
            if wanted < 0 or offset + wanted > size:
                raise ObjectDamaged(where, digest, None, f"it has {size} bytes, and bytes {offset} to {offset + wanted} were asked for")
        return memoryview(bytearray(found) if isinstance(found, bytes) else found)

    def _fetch(self, digest: bytes, *, again: bool = False) -> memoryview:
        """An object from S3. What does not have the digest is fetched once more: the way here may have changed it."""
        landing = _Landing(self._cache, None if again else self._spool)
        with landing:
            try:
                loop.run(transfers.fetch(self._bucket, self.address.object(digest), landing, may_change=False))
            except S3Failed as failed:
                if failed.answer.is_past_the_end and not again:  # another writer mends what was damaged
                    return self._fetch(digest, again=True)
                raise self._failed(failed, digest) from failed
            except (StoreFull, StoreUnusable) as error:
                if again or isinstance(error, S3Unusable):
                    raise
                return self._fetch(digest, again=True)  # the cache's disk is full, say: the caller's memory has room
            found = landing.digest()
            if found == digest:
                return landing.landed(digest)
        if not again:
            return self._fetch(digest, again=True)
        raise ObjectDamaged(self.where(digest), digest, found)

    def _failed(self, failed: S3Failed, digest: bytes) -> Exception:
        if failed.answer.is_missing:
            return ObjectMissing(digest, self.where(digest))
        return S3Unusable(self.where(digest), failed.answer)

    def size(self, digest: bytes) -> int | None:
        """See `ObjectStore.size`."""
        found = loop.run(self._head(self.address.object(digest)))
        return None if found is None else int(found["ContentLength"])

    def exists(self, digest: bytes) -> bool:
        """See `ObjectStore.exists`."""
        return self.size(digest) is not None

    def sizes(self, digests: Iterable[bytes]) -> dict[bytes, int | None]:
        """The sizes of many objects, asked for side by side; None for what is not there."""

        async def asked() -> dict[bytes, int | None]:
            wanted = [*dict.fromkeys(digests)]
            found = await _at_once([partial(self._head, self.address.object(digest)) for digest in wanted])
            return {digest: None if head is None else int(head["ContentLength"]) for digest, head in zip(wanted, found, strict=True)}

        return loop.run(asked())

    async def _head(self, key: str) -> dict[str, Any] | None:
        try:
            return await self._bucket.call("head_object", key=key)
        except S3Failed as failed:
            if failed.answer.is_missing:
                return None
            raise S3Unusable(self.address.at(key), failed.answer) from failed

    def digests(self) -> Iterator[Digest]:
        """See `ObjectStore.digests`."""
        return (digest for digest, _, _ in self.written())

    def confirm(self, digest: bytes) -> bool:
        """See `ObjectStore.confirm`."""
        return loop.run(self._confirm(digest))

    def written(self) -> Iterator[tuple[Digest, Micros, int]]:
        """See `ObjectStore.written`: a request for each thousand."""
        top = self.address.key("objects", "")
        for entry in self._listed(top):
            digest = digest_named(entry["Key"].removeprefix(top).replace("/", ""))
            if digest is not None:
                yield digest, Micros(removal.us_of(entry["LastModified"])), int(entry["Size"])

    def _listed(self, prefix: str, part: str = "Contents", delimiter: str = "") -> Iterator[dict[str, Any]]:
        pages = self._bucket.pages(prefix, delimiter=delimiter)
        while (page := loop.run(_next(pages))) is not None:
            yield from page.get(part, ())

    @property
    def at_once(self) -> int:
        """See `Removable.at_once`."""
        return AT_ONCE

    def remove(self, digest: bytes, written_before_us: int, *, listed: bool = False) -> int:
        """See `ObjectStore.remove`: four requests, five where it was not listed."""
        self._cache.forget(digest)
        with self._said(self.where(digest)):
            return loop.run(removal.remove(self._bucket, digest, written_before_us, listed=listed))

    def settle_trash(self) -> None:
        """See `ObjectStore.settle_trash`."""
        with self._said(self.url):
            loop.run(removal.settle(self._bucket))

    def now_us(self) -> Micros:
        """See `ObjectStore.now_us`: what S3 dates an answer with, whole seconds."""
        with self._said(self.url):
            return Micros(
                removal.server_us(loop.run(self._bucket.call("list_objects_v2", Prefix=self.address.key("named", ""), MaxKeys=1)))
            )

    def where(self, digest: bytes) -> str:
        """The object's address."""
        return self.address.at(self.address.object(digest))

    def sweep(self) -> None:
        """See `Store.sweep`. Uploads that nobody ends cost money; where they may not be listed, a lifecycle rule of the bucket is for them."""
        self._cache.sweep()
        try:
            loop.run(self._end_uploads())
        except S3Unusable as error:
            if error.kind != "AccessDenied":
                raise

    async def _end_uploads(self) -> None:
        told = await self._bucket.call("list_multipart_uploads", Prefix=self.address.key(""))
        for upload in told.get("Uploads", ()):
            if removal.server_us(told) - removal.us_of(upload["Initiated"]) > UNFINISHED_AFTER.total_seconds() * 1e6:
                try:
                    await self._bucket.call("abort_multipart_upload", key=upload["Key"], UploadId=upload["UploadId"])
                except S3Failed:  # somebody else has ended it
                    continue

    # --- named files -------------------------------------------------------------------------------------

    def write_named(self, name: str, chunks: Iterable[Buffer], *, create_only: bool = False) -> int:
        """See `NamedFiles.write_named`."""
        key = self._key(name)
        rest = iter(chunks)
        head, complete = take(rest, transfers.PART_BYTES)
        condition = {"IfNoneMatch": "*"} if create_only else {}
        if complete:
            data = b"".join(head)
            loop.run(self._write_small(name, key, data, condition))
            return len(data)
        with Draft(self._spool, durable=False) as draft:
            for step in steps(chain(head, rest)):
                draft.write(step)
            try:
                loop.run(self._send(key, draft, **condition))
            except S3Failed:
                raise NameTaken(name, self.where_named(name)) from None
            return draft.size

    async def _write_small(self, name: str, key: str, data: bytes, condition: dict[str, str]) -> None:
        """Where the answer of a conditional write is lost, its repeat finds the file there: the mark says whose it is."""
        mark = uuid4().hex
        sent: dict[str, Any] = {"Metadata": {_WRITER: mark}, **condition, **self._bucket.settings.written_with}
        try:
            await self._bucket.call("put_object", key=key, body=data, **sent)
        except S3Failed as failed:
            if not failed.answer.is_taken:
                raise S3Unusable(self.where_named(name), failed.answer) from failed
            found = await self._head(key)
            if found is None or found.get("Metadata", {}).get(_WRITER) != mark:
                raise NameTaken(name, self.where_named(name)) from None

    def read_named(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `NamedFiles.read_named`."""
        if length == 0:
            return b""
        try:
            found, _ = loop.run(self._bucket.read(self._key(name), offset, None if length is None else offset + length))
        except S3Failed as failed:
            if failed.answer.is_past_the_end:
                return b""
            if failed.answer.is_missing:
                raise NameMissing(name, self.where_named(name)) from None
            raise S3Unusable(self.where_named(name), failed.answer) from failed
        return bytes(found)

    def size_named(self, name: str) -> int | None:
        """See `NamedFiles.size_named`."""
        found = loop.run(self._head(self._key(name)))
        return None if found is None else int(found["ContentLength"])

    def list_named(self, prefix: str = "") -> list[str]:
        """See `NamedFiles.list_named`."""
        top = self.address.key("named", "")
        with self._said(self.url):
            found = (entry["Key"].removeprefix(top) for entry in self._listed(self._folder(prefix)))
            return sorted(filter(is_name, found))

    def list_folders(self, prefix: str = "") -> list[str]:
        """See `NamedFiles.list_folders`."""
        top = self._folder(prefix)
        with self._said(self.url):
            return sorted(entry["Prefix"].removeprefix(top).rstrip("/") for entry in self._listed(top, "CommonPrefixes", "/"))

    def written_named(self, name: str) -> Micros | None:
        """See `NamedFiles.written_named`."""
        found = loop.run(self._head(self._key(name)))
        return None if found is None else Micros(removal.us_of(found["LastModified"]))

    def remove_named(self, name: str) -> int:
        """See `NamedFiles.remove_named`."""
        size = self.size_named(name)
        if size is None:
            return 0
        with self._said(self.where_named(name)):
            loop.run(self._bucket.call("delete_object", key=self._key(name)))
        return size

    def where_named(self, name: str) -> str:
        """The file's address."""
        return self.address.at(self._key(name))

    def _key(self, name: str) -> str:
        return self.address.key("named", *name_parts(name))

    def _folder(self, name: str) -> str:
        return self.address.key("named", *(name_parts(name) if name else ()), "")

    @contextmanager
    def _said(self, where: str) -> Generator[None]:
        try:
            yield
        except S3Failed as failed:
            raise S3Unusable(where, failed.answer) from failed


class _Landing:
    """Where a fetched object goes: a small one to memory; a large one to a file, which is mapped; where that is not possible, to memory as well."""

    def __init__(self, cache: ReadCache, spool: Path | None) -> None:
        self._cache = cache
        self._spool = spool
        self._draft: Draft | None = None
        self._memory: memoryview = memoryview(bytearray())
        self._size = 0
        self._sha = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._draft is not None:
            self._draft.__exit__(*error)

    def prepare(self, size: int) -> None:
        """See `Landing`."""
        self._size = size
        if size > transfers.PART_BYTES and self._spool is not None:
            self._draft = Draft(self._spool, durable=False).__enter__()
        else:
            self._memory = memoryview(mmap.mmap(-1, size)) if size > transfers.PART_BYTES else memoryview(bytearray(size))

    def write(self, data: bytes | bytearray, offset: int) -> None:
        """See `Landing`: memory, or the page cache."""
        if self._draft is not None:
            self._draft.write_at(data, offset)
        else:
            self._memory[offset : offset + len(data)] = data

    def complete(self, start: int, end: int) -> None:
        """See `Landing`: the digest is taken while the rest comes."""
        if self._draft is None:
            self._sha.update(self._memory[start:end])
            return
        with self._draft.path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < end and (data := file.read(min(STEP_BYTES, end - start))):
                self._sha.update(data)
                start += len(data)

    def digest(self) -> bytes:
        """The SHA-256 of what came."""
        return self._sha.digest()

    def landed(self, digest: bytes) -> memoryview:
        """The object, which was checked."""
        if self._draft is None:
            self._cache.keep(digest, self._memory)
            return self._memory
        mapped = read_file(self._draft.path, 0, None)  # which outlives the file's name
        if self._cache.takes(self._size):
            self._cache.adopt(self._draft, digest, self._size)
        return mapped


async def _next(pages: AsyncGenerator[dict[str, Any]]) -> dict[str, Any] | None:
    return await anext(pages, None)


async def _at_once(asks: list[Callable[[], Any]]) -> list[Any]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(ask: Callable[[], Any]) -> Any:
        async with room:
            return await ask()

    return await asyncio.gather(*(one(ask) for ask in asks))


def _base64(digest: bytes) -> str:
    import base64

    return base64.b64encode(digest).decode()
