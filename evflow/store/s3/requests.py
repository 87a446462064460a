"""One request to S3, repeated while that helps; nothing here knows what is asked for.

Back-off: AWS Architecture Blog, "Exponential Backoff And Jitter", equal jitter (`evflow.aws.pause_s`). The client's own repeats are off, so that
what was tried is counted once and told.
"""

import asyncio
import io
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from importlib import import_module
from typing import Any, Final, NamedTuple, TypeVar

from evflow import aws
from evflow.clock import monotonic_s
from evflow.store.patience import holds_results
from evflow.store.protocol import Buffer
from evflow.store.s3 import loop
from evflow.store.s3.address import S3Address
from evflow.store.s3.problems import Answer, S3Failed, S3Unusable
from evflow.store.s3.settings import S3Settings

Result = TypeVar("Result")

CONNECTIONS: Final = 32
"""Of a process to a server. S3 serves more requests than this side by side; this machine's processor does not."""
RETRY_FOR_S: Final = 90.0
"""A throttled or restarting server is asked for so long: longer than S3 takes to split a busy prefix."""
UNREACHABLE_FOR_S: Final = 8.0
"""Where nobody answers at all, somebody waits for a word: it is a wrong address more often than a server that restarts. But see `evflow.store.patience`."""
PAUSE_SCALE = 0.2
"""Of `evflow.aws.pause_s`: S3 recovers sooner than the services that it was made for."""
READ_BYTES: Final = 256 << 10


class _Made(NamedTuple):
    """A client, and what closes it."""

    client: Any
    context: Any


_session: tuple[Any, Any] | None = None
_clients: dict[tuple[str | None, str | None], Awaitable[_Made]] = {}


def preload() -> None:
    """Import the client and read its tables, for a process that forks others which will need them. Blocking: up to three seconds.

    It starts no thread and opens no connection.

    Raises:
        AwsMissing: The client is not installed.
    """
    global _session
    if _session is None:
        _session = aws.prepared("s3", CONNECTIONS)
        import_module("aiohttp")


async def _client(settings: S3Settings) -> Any:
    """The process's client for these settings; the first who asks makes it, the others wait."""
    key = (settings.region, settings.endpoint)
    made = _clients.get(key)
    if made is None:
        if not _clients:
            loop.at_close(_close)
        made = _clients[key] = asyncio.ensure_future(_make(settings))
    try:
        return (await asyncio.shield(made)).client
    except BaseException:
        if isinstance(made, asyncio.Future) and made.done() and _clients.get(key) is made:
            del _clients[key]
        raise


async def _make(settings: S3Settings) -> _Made:
    await asyncio.to_thread(preload)
    assert _session is not None
    session, options = _session
    aws.check_profile(session)
    # What is read is checked against its digest: the client's own check of the same bytes would only take time.
    options = options.merge(type(options)(response_checksum_validation="when_required"))
    context = session.client("s3", region_name=settings.region, endpoint_url=settings.endpoint, config=options)
    client = await context.__aenter__()
    client.meta.events.register("before-sign.s3.UploadPart", _sign_without_body)
    return _Made(client, context)


def _sign_without_body(request: Any, **_: object) -> None:
    """Let the signature of a part hold its checksum, not a digest of its body, unless the profile wants `payload_signing_enabled`.

    So does the client by itself over TLS, if it is the one that adds the checksum. The digest would be the third pass over each byte.
    """
    options = request.context["client_config"]
    said: dict[str, Any] = options.s3 or {}
    if not said.get("payload_signing_enabled"):
        request.context["client_config"] = options.merge(type(options)(s3={**said, "payload_signing_enabled": False}))


async def _close() -> None:
    clients = [*_clients.values()]
    _clients.clear()
    for made in clients:
        if isinstance(made, asyncio.Future) and made.done() and not made.cancelled() and made.exception() is None:
            await made.result().context.__aexit__(None, None, None)


def _forget() -> None:
    loop.keep(dict(_clients))
    _clients.clear()


os.register_at_fork(after_in_child=_forget)


class Bucket:
    """Requests to one place in a bucket."""

    def __init__(self, address: S3Address, settings: S3Settings) -> None:
        self.address = address
        self.settings = settings

    async def prepare(self) -> None:
        """Make the client that the first request would make."""
        await _client(self.settings)

    async def call(
        self, method: str, *, key: str | None = None, body: Buffer | None = None, once: bool = False, **arguments: Any
    ) -> dict[str, Any]:
        """Ask for something that has no body in its answer.

        Args:
            method: The client's method.
            key: The key that it is about, if it is about one.
            body: What is sent.
            once: It is not repeated: the caller wants to know of each try.
            **arguments: The method's others.

        Raises:
            S3Failed: The answer is one that the caller may have an answer to: nothing there, a condition that does not hold.
            S3Unusable: S3 does not do it, however often it is asked.
        """

        async def ask(client: Any) -> dict[str, Any]:
            given = dict(arguments)
            if key is not None:
                given["Key"] = key
            if body is not None:
                given["Body"] = io.BytesIO(body)
            answer: dict[str, Any] = await getattr(client, method)(Bucket=self.address.bucket, **given)
            return answer

        return await self._repeated(ask, key, once=once, method=method)

    async def read(self, key: str, start: int = 0, end: int | None = None, etag: str | None = None) -> tuple[bytearray, dict[str, Any]]:
        """The bytes of a key from `start` to before `end`, fewer where it ends before; with them what the answer said.

        A transfer that was cut is begun again.

        Raises:
            S3Failed: There is no such key, or it ends before `start`, or it is not what had this ETag any more.
            S3Unusable: It cannot be read.
        """
        arguments: dict[str, Any] = {}
        if start or end is not None:
            arguments["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if etag is not None:
            arguments["IfMatch"] = etag

        async def ask(client: Any) -> tuple[bytearray, dict[str, Any]]:
            answer: dict[str, Any] = await client.get_object(Bucket=self.address.bucket, Key=key, **arguments)
            promised = int(answer["ContentLength"])
            found, at = bytearray(promised), 0
            async with answer["Body"] as body:
                while at < promised and (chunk := await body.content.read(READ_BYTES)):
                    found[at : at + len(chunk)] = chunk
                    at += len(chunk)
            if at != promised:
                raise S3Failed(Answer("Truncated", f"{at} of {promised} bytes came"))
            return found, answer

        return await self._repeated(ask, key)

    async def stream(self, key: str, start: int, end: int, etag: str | None, write: Callable[[bytes, int], None]) -> None:
        """Hand the bytes of a key on as they come, each with its offset; a transfer that was cut goes on where it was.

        Raises:
            S3Failed: There is no such key, or it is not what had this ETag any more, if one is given, or it ends before `start`.
            S3Unusable: It cannot be read.
        """
        at = start
        condition = {} if etag is None else {"IfMatch": etag}

        async def ask(client: Any) -> None:
            nonlocal at
            answer: dict[str, Any] = await client.get_object(
                Bucket=self.address.bucket, Key=key, Range=f"bytes={at}-{end - 1}", **condition
            )
            async with answer["Body"] as body:
                while at < end and (chunk := await body.content.read(min(READ_BYTES, end - at))):
                    write(chunk, at)
                    at += len(chunk)
            if at < end:
                raise S3Failed(Answer("Truncated", f"{end - at} bytes did not come"))

        await self._repeated(ask, key)

    async def pages(self, prefix: str, *, delimiter: str = "") -> AsyncGenerator[dict[str, Any]]:
        """What a listing of keys answers, page by page: a thousand keys each."""
        token: dict[str, Any] = {}
        while True:
            folders: dict[str, Any] = {"Delimiter": delimiter} if delimiter else {}
            page = await self.call("list_objects_v2", Prefix=prefix, **folders, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    async def _repeated(
        self, ask: Callable[[Any], Awaitable[Result]], key: str | None, *, once: bool = False, method: str = "get_object"
    ) -> Result:
        where = self.address.at(key) if key is not None else self.address.url
        began_s, tries = monotonic_s(), 0
        while True:
            tries += 1
            try:
                return await ask(await _client(self.settings))
            except Exception as error:
                answer = answer_of(error)
                if answer is None:
                    raise
                if answer.is_missing or answer.is_taken or answer.is_past_the_end:
                    raise S3Failed(answer) from error
                limit_s = UNREACHABLE_FOR_S if answer.is_unreachable and not holds_results() else RETRY_FOR_S
                pause_s = aws.pause_s(tries) * PAUSE_SCALE
                if not answer.is_transient or monotonic_s() - began_s + pause_s > limit_s:
                    raise S3Unusable(where, answer, tries, method=method, root=self.address.url) from error
                if once:
                    raise S3Failed(answer) from error
                await asyncio.sleep(pause_s)


def answer_of(error: Exception) -> Answer | None:
    """What an error of the client says; None where it is none of it."""
    if isinstance(error, S3Failed):
        return error.answer
    known, aiohttp = import_module("botocore.exceptions"), import_module("aiohttp")
    if isinstance(error, known.ClientError):
        told: Any = getattr(error, "response", {})
        about, reply = told.get("Error", {}), told.get("ResponseMetadata", {})
        kind = str(about.get("Code") or "unknown")
        region = about.get("Region") or reply.get("HTTPHeaders", {}).get("x-amz-bucket-region") or ""
        return Answer(kind, str(about.get("Message") or kind), int(reply.get("HTTPStatusCode") or 0), str(region))
    if isinstance(error, known.IncompleteReadError | known.ResponseStreamingError | aiohttp.ClientPayloadError):
        return Answer("Truncated", str(error))
    if isinstance(error, known.SSLError):
        return Answer("SSLError", str(error))
    if isinstance(error, known.EndpointConnectionError | known.ConnectTimeoutError | known.ProxyConnectionError):
        return Answer("EndpointConnectionError", str(error))
    if isinstance(error, known.HTTPClientError) and aws.lacks_certificates(error):
        return Answer(aws.CERTIFICATES_UNREADABLE, str(error))
    if isinstance(error, known.HTTPClientError | aiohttp.ClientError | TimeoutError | ConnectionError):
        return Answer("Lost", str(error) or type(error).__name__)
    if isinstance(error, known.BotoCoreError):
        return Answer(type(error).__name__, str(error))
    return None
