"""`evflow.S3`: files in S3 from a step or anywhere, as Metaflow's `S3`; the same code as of the store underneath.

    with S3(run=self) as s3:
        url = s3.put("model.json", text)
        rows = s3.get_many(["a.csv", "b.csv"])

What is read goes to files in a temporary folder, which is removed when the `S3` is closed. Many objects are read and written side by side, large
ones in parts; memory stays bounded. Reads and writes are repeated while S3 is busy or the connection is lost (`evflow.store.s3.requests`).
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast
from uuid import uuid4

from evflow import aws, config
from evflow.datatools.objects import RangeInfo, S3GetObject, S3Object, S3PutObject
from evflow.datatools.problems import S3AccessDenied, S3Exception, S3InvalidObject, S3InvalidRange, S3NotFound, S3URLException
from evflow.store.protocol import UnknownStore
from evflow.store.s3 import SCHEME, loop, transfers
from evflow.store.s3.address import S3Address
from evflow.store.s3.problems import S3Failed, S3Unusable
from evflow.store.s3.requests import Bucket
from evflow.store.s3.settings import S3Settings

if TYPE_CHECKING:
    from evflow.client.run import Run
    from evflow.flow.flowspec import FlowSpec

Result = TypeVar("Result")
Key = str | S3GetObject

AT_ONCE: Final = 16
"""Objects that are under way together."""
IN_FLIGHT_BYTES: Final = 8 << 20
CONNECTIONS_EACH: Final = 2
"""For each of them, where they are many."""
_COPY_BYTES: Final = 1 << 20
_NAME_BYTES: Final = 200


class S3:
    """Files in S3, below a place or by their URLs; use it in a `with` block.

    Args:
        tmproot: Folder for what is read; the system's if not given.
        bucket: The bucket, where it is another than the settings'.
        prefix: What keys begin with there.
        run: Below a folder of that run: `self` in a step, or a `Run`.
        s3root: Below that URL. Without `run`, `bucket` and this one, keys are whole URLs.
        encryption: How the server encrypts what is written; the settings' (`s3_sse`) if not given.

    Raises:
        S3URLException: The place is none, or `run` is a flow that does not run.
        AwsMissing: The client of AWS is not installed.
    """

    def __init__(
        self,
        tmproot: str | None = None,
        bucket: str | None = None,
        prefix: str | None = None,
        run: "FlowSpec | Run | None" = None,
        s3root: str | None = None,
        encryption: str | None = None,
    ) -> None:
        aws.installed("evflow.S3")
        self._root = _root(bucket, prefix, run, s3root)
        self._settings = S3Settings.configured()
        if encryption is not None:
            self._settings = self._settings._replace(sse=encryption)
        self._tmproot = tmproot
        self._folder: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the files of what was read."""
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    # --- looking -----------------------------------------------------------------------------------------

    def list_paths(self, keys: Iterable[str] | None = None) -> list[S3Object]:
        """What is right below prefixes: objects, and prefixes of more, whose `exists` is False.

        Args:
            keys: The prefixes; the root if not given.
        """
        return self._listed(keys, "/")

    def list_recursive(self, keys: Iterable[str] | None = None) -> list[S3Object]:
        """All objects below prefixes.

        Args:
            keys: The prefixes; the root if not given.
        """
        return self._listed(keys, "")

    def _listed(self, keys: Iterable[str] | None, delimiter: str) -> list[S3Object]:
        urls = [self._url(key) for key in ([None] if keys is None else _several(keys))]
        found = self._many([partial(self._list, url, delimiter) for url in urls])
        return [one for some in found for one in some]

    async def _list(self, url: str, delimiter: str) -> list[S3Object]:
        bucket, key = self._place(f"{url.rstrip('/')}/")
        top, found = f"{SCHEME}{bucket.address.bucket}/", list[S3Object]()
        async for page in bucket.pages(key, delimiter=delimiter):
            found += [S3Object(url, top + one["Prefix"]) for one in page.get("CommonPrefixes", ())]
            found += [S3Object(url, top + one["Key"], None, one["Size"]) for one in page.get("Contents", ()) if one["Key"] != key]
        return found

    def info(self, key: str | None = None, return_missing: bool = False) -> S3Object:
        """What S3 knows of an object, without its content.

        Args:
            key: Its key or URL; the root itself if not given.
            return_missing: Answer for what is not there, too.

        Raises:
            S3NotFound: There is none.
        """
        with _told(self._url(key)):
            return loop.run(self._info(key, return_missing))

    def info_many(self, keys: Iterable[str], return_missing: bool = False) -> list[S3Object]:
        """The same of many, in their order."""
        return self._many([partial(self._info, key, return_missing) for key in _several(keys)])

    async def _info(self, key: str | None, return_missing: bool) -> S3Object:
        url = self._url(key)
        bucket, name = self._object(url)
        try:
            answer = await bucket.call("head_object", key=name)
        except S3Failed as failed:
            if not failed.answer.is_missing:
                raise
            if not return_missing:
                raise S3NotFound(url) from None
            return S3Object(self._root, url)
        return S3Object(self._root, url, None, answer["ContentLength"], answer=answer)

    # --- reading -----------------------------------------------------------------------------------------

    def get(self, key: Key | None = None, return_missing: bool = False, return_info: bool = True) -> S3Object:
        """Read an object, or a part of one (`S3GetObject`), to a file.

        Args:
            key: Its key or URL; the root itself if not given.
            return_missing: Answer for what is not there, too.
            return_info: Accepted as in Metaflow; what S3 knows of it comes with the content at no cost.

        Raises:
            S3NotFound: There is none.
            S3InvalidRange: It ends before the part begins.
        """
        del return_info
        with _told(self._url(_name(key))):
            return loop.run(self._get(key, return_missing, transfers.CONNECTIONS_EACH))

    def get_many(self, keys: Iterable[Key], return_missing: bool = False, return_info: bool = True) -> list[S3Object]:
        """The same of many, side by side, in their order."""
        del return_info
        return self._many([partial(self._get, key, return_missing, CONNECTIONS_EACH) for key in _several(keys)])

    def get_recursive(self, keys: Iterable[str], return_info: bool = False) -> list[S3Object]:
        """Read all objects below prefixes; the `key` of each is its name below the prefix."""
        del return_info
        found = self.list_recursive(keys)
        return self._many([partial(self._load, one.prefix, one.url, one.url, False, CONNECTIONS_EACH) for one in found])

    def get_all(self, return_info: bool = False) -> list[S3Object]:
        """Read all objects below the root.

        Raises:
            S3URLException: There is no root: keys are whole URLs.
        """
        if self._root is None:
            raise S3URLException("get_all reads what is below a root, and this S3 has none.", "Make it with run=self or s3root=….")
        del return_info
        found = self.list_recursive()
        return self._many([partial(self._load, self._root, one.url, one.url, False, CONNECTIONS_EACH) for one in found])

    async def _get(self, key: Key | None, return_missing: bool, connections: int) -> S3Object:
        return await self._load(self._root, self._url(_name(key)), key, return_missing, connections)

    async def _load(self, prefix: str | None, url: str, asked: Key | None, return_missing: bool, connections: int) -> S3Object:
        bucket, name = self._object(url)
        path = f"{self._temporary()}/{uuid4().hex}-{_file_name(name)}"
        part = asked if isinstance(asked, S3GetObject) else None
        if part is not None and (part.offset < 0 or (part.length is not None and part.length < 1)):
            raise S3InvalidRange(url, part.offset, part.length)
        try:
            if part is not None:
                end = None if part.length is None else part.offset + part.length
                data, answer = await bucket.read(name, part.offset, end)
                await asyncio.to_thread(Path(path).write_bytes, data)
                whole = int(str(answer.get("ContentRange", f"/{len(data)}")).rpartition("/")[2])
                about = RangeInfo(whole, part.offset, part.length)
                return S3Object(prefix, url, path, len(data), answer=answer, range_info=about)
            landing = _Landing(path)
            try:
                found = await transfers.fetch(bucket, name, landing, connections)
            finally:
                landing.close()
            return S3Object(prefix, url, path, found.size, answer=found.answer)
        except S3Failed as failed:
            if failed.answer.is_past_the_end and part is not None:
                raise S3InvalidRange(url, part.offset) from None
            if not failed.answer.is_missing:
                raise
            if not return_missing:
                raise S3NotFound(url) from None
            return S3Object(prefix, url)

    # --- writing -----------------------------------------------------------------------------------------

    def put(
        self, key: str, obj: Any, overwrite: bool = True, content_type: str | None = None, metadata: dict[str, Any] | None = None
    ) -> str:
        """Write an object; its URL.

        Args:
            key: Its key or URL.
            obj: Bytes, a text (as UTF-8), or a file that is open.
            overwrite: Whether to write it where there is one already.
            content_type: Its media type.
            metadata: Values by name, which `info` has again.

        Raises:
            S3InvalidObject: `obj` is none of these.
        """
        self.put_many([S3PutObject(key, obj, content_type=content_type, metadata=metadata)], overwrite)
        return self._url(key)

    def put_many(self, key_objs: Iterable[S3PutObject | tuple[str, Any]], overwrite: bool = True) -> list[tuple[str, str]]:
        """Write many objects, side by side; key and URL of those that were written, in their order."""
        given = [one if isinstance(one, S3PutObject) else S3PutObject(*one) for one in key_objs]
        return self._put([(one, *self._on_disk(one)) for one in given], overwrite)

    def put_files(self, key_paths: Iterable[S3PutObject | tuple[str, str]], overwrite: bool = True) -> list[tuple[str, str]]:
        """Write files of this machine; key and URL of those that were written, in their order.

        Raises:
            S3InvalidObject: A file is not there.
        """
        given = [one if isinstance(one, S3PutObject) else S3PutObject(one[0], path=one[1]) for one in key_paths]
        for one in given:
            if one.path is None or not Path(one.path).is_file():
                raise S3InvalidObject(f"There is no file '{one.path}', which is to be stored as '{one.key}'.")
        return self._put([(one, None, str(one.path)) for one in given], overwrite)

    def _put(self, given: Sequence[tuple[S3PutObject, bytes | None, str | None]], overwrite: bool) -> list[tuple[str, str]]:
        written = self._many([partial(self._store, one, data, path, overwrite) for one, data, path in given])
        return [(one.key, self._url(one.key)) for (one, _, _), done in zip(given, written, strict=True) if done]

    def _on_disk(self, one: S3PutObject) -> tuple[bytes | None, str | None]:
        """What is to be written: as bytes, or, where it comes from an open file, as a file of ours."""
        value = one.value
        if isinstance(value, str):
            return value.encode(), None
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(cast("bytes", value)), None
        if not hasattr(value, "read"):
            raise S3InvalidObject(
                f"'{one.key}' is to be stored as a {type(value).__name__}.",
                "Give bytes, a text or an open file; put_files takes paths.",
            )
        path = f"{self._temporary()}/{uuid4().hex}"
        with Path(path).open("wb") as file:
            while chunk := value.read(_COPY_BYTES):
                file.write(chunk.encode() if isinstance(chunk, str) else chunk)
        return None, path

    async def _store(self, one: S3PutObject, data: bytes | None, path: str | None, overwrite: bool) -> bool:
        bucket, name = self._object(self._url(one.key))
        settings = self._settings if one.encryption is None else self._settings._replace(sse=one.encryption)
        about: dict[str, Any] = dict(settings.written_with)
        if one.content_type is not None:
            about["ContentType"] = one.content_type
        if one.metadata is not None:
            about["Metadata"] = _metadata(one.key, one.metadata)
        condition: dict[str, Any] = {} if overwrite else {"IfNoneMatch": "*"}
        size = 0
        if path is not None:
            size = (await asyncio.to_thread(os.stat, path)).st_size
            if size <= transfers.PART_BYTES:
                data = await asyncio.to_thread(Path(path).read_bytes)
        try:
            if data is not None:
                await bucket.call("put_object", key=name, body=data, **about, **condition)
            else:
                assert path is not None
                await transfers.send_file(bucket, name, path, size, IN_FLIGHT_BYTES, about, **condition)
        except S3Failed as failed:
            if failed.answer.is_taken:
                return False
            raise
        return True

    # --- places ------------------------------------------------------------------------------------------

    def _url(self, key: str | None) -> str:
        if self._root is None:
            if key is None or not key.startswith(SCHEME):
                raise S3URLException(
                    f"'{key}' is no URL like s3://bucket/key, and this S3 has no root that it could lie below.",
                    "Give whole URLs, or make it with run=self or s3root=….",
                )
            return key
        if key is None:
            return self._root
        if key.startswith(SCHEME):
            raise S3URLException(
                f"'{key}' is a whole URL, but this S3 has the root '{self._root}'.", "Give keys below it, or make it without a root."
            )
        return f"{self._root}/{key.lstrip('/')}"

    def _place(self, url: str) -> tuple[Bucket, str]:
        name, _, key = url.removeprefix(SCHEME).partition("/")
        try:
            return Bucket(S3Address.parse(f"{SCHEME}{name}"), self._settings), key
        except UnknownStore:
            raise S3URLException(f"'{url}' names no bucket.", "URLs are like s3://bucket/key.") from None

    def _object(self, url: str) -> tuple[Bucket, str]:
        bucket, key = self._place(url)
        if not key:
            raise S3URLException(f"'{url}' names a bucket, and no object in it.", "URLs of objects are like s3://bucket/key.")
        return bucket, key

    def _temporary(self) -> str:
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="evflow.s3.", dir=self._tmproot)
        return self._folder

    def _many(self, asks: Sequence[Callable[[], Coroutine[Any, Any, Result]]]) -> list[Result]:
        async def all_of_them() -> list[Result]:
            room = asyncio.Semaphore(AT_ONCE)

            async def one(ask: Callable[[], Awaitable[Result]]) -> Result:
                async with room:
                    return await ask()

            tasks = [asyncio.ensure_future(one(ask)) for ask in asks]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

        if asks:
            self._temporary()
        with _told(self._root or "S3"):
            return loop.run(all_of_them())


def _root(bucket: str | None, prefix: str | None, run: "FlowSpec | Run | None", s3root: str | None) -> str | None:
    if run is not None:
        address = S3Address.parse(_configured()) if bucket is None else S3Address(bucket, "")
        top = address.prefix if prefix is None else prefix.strip("/")
        return S3Address(address.bucket, "/".join(part for part in (top, _of_run(run)) if part)).url
    if s3root is not None:
        try:
            return S3Address.parse(s3root).url
        except UnknownStore:
            raise S3URLException(f"'{s3root}' is no root in S3.", "Give one like s3://bucket/prefix.") from None
    if bucket is not None:
        return S3Address(bucket, (prefix or "").strip("/")).url
    if prefix is not None:
        raise S3URLException("A prefix alone is no place in S3.", "Give bucket= with it, or s3root=….")
    return None


def _configured() -> str:
    root: str | None = config.get("s3_root")
    store: str = config.get("store")
    if root is None and store.startswith(SCHEME):
        root = f"{store.rstrip('/')}/data"
    if root is None:
        raise S3URLException(
            "S3(run=…) has no place in S3 to put the run's files below.",
            "Set EVFLOW_S3_ROOT to a URL like s3://bucket/prefix, or give bucket= as well.",
        )
    return root


def _of_run(run: Any) -> str:
    from evflow.flow.flowspec import FlowSpec

    if not isinstance(run, FlowSpec):
        return str(run.pathspec)
    from evflow.flow.current import current

    if not current.is_running_flow:
        raise S3URLException("S3(run=self) is for a step that runs: this flow does not.", "Give a Run of the client, or s3root=….")
    return f"{current.flow_name}/{current.run_id}"


def _several(keys: Iterable[Any]) -> list[Any]:
    if isinstance(keys, str | S3GetObject):
        raise S3URLException(f"Several keys are asked for, and '{keys}' is one.", "Give a list.")
    return [*keys]


def _name(key: Key | None) -> str | None:
    return key.key if isinstance(key, S3GetObject) else key


def _file_name(key: str) -> str:
    """The end of a key as the end of a file's name, whose bound is in bytes."""
    return os.path.basename(key).encode()[-_NAME_BYTES:].decode(errors="ignore")  # noqa: PTH119 - a key is no path


def _metadata(key: str, given: dict[str, Any]) -> dict[str, str]:
    told = {str(name): str(value) for name, value in given.items()}
    for name, value in told.items():
        if not (name + value).isascii():
            raise S3InvalidObject(
                f"The metadata of '{key}' has {value!a} as {name!a}, and S3 keeps ASCII alone.",
                "Encode it, as `json.dumps` and `urllib.parse.quote` do.",
            )
    return told


class _Landing:
    """A file that an object is fetched to."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = -1

    def prepare(self, size: int) -> None:
        """See `transfers.Landing`."""
        del size
        self._file = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes | bytearray, offset: int) -> None:
        """See `transfers.Landing`."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, offset)
            offset += written
            view = view[written:]

    def complete(self, start: int, end: int) -> None:
        """Nothing: the file is whole when all of it was written."""

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._file >= 0:
            os.close(self._file)


@contextmanager
def _told(where: str) -> Generator[None]:
    try:
        yield
    except S3Failed as failed:
        error = S3Unusable(where, failed.answer)
        raise S3Exception(f"'{where}' cannot be used: {error.reason}.", error.hint) from failed
    except S3Unusable as error:
        kind = S3AccessDenied if error.kind == "AccessDenied" else S3Exception
        raise kind(f"'{error.where}' cannot be used: {error.reason}.", error.hint) from error
