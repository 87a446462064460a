"""`POST /events/{name}`: publish an event over HTTP.

The function here takes what a request is made of and gives what the answer is made of, so it belongs to no framework. Who may publish is
settled by one of

* `Authorization: Bearer TOKEN`, compared in constant time;
* `X-Evflow-Timestamp: SECONDS` and `X-Evflow-Signature: sha256=HEX`, the HMAC-SHA256 of `TIMESTAMP.NAME.ID.BODY` under the secret, where ID is the idempotency
  key or empty: a request that is recorded and sent again is refused after five minutes, and published once within them where it has a key.

The header `Idempotency-Key` becomes the event's id: whoever is unsure sends the request again. The body is the payload, as JSON; none is none.
"""

import hmac
import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from evflow.client.publishing import EventInvalid, checked_id, kept, made_of, own_store
from evflow.core.published import MAX_PAYLOAD_BYTES, Publication, encode
from evflow.core.values import value
from evflow.errors import EvflowError
from evflow.log.commands import Operation, publish
from evflow.log.errors import LogUnavailable
from evflow.log.protocol import Placed
from evflow.store.protocol import Store

MOST_BODY_BYTES: Final = 16 * 1_000_000
SMALL_BODY_BYTES: Final = MAX_PAYLOAD_BYTES // 10
"""Up to here a payload goes into the log, whatever is in it: reading it needs no store, and is a matter of microseconds."""
SKEW_S: Final = 300
"""A signature is that old at most, or that far ahead."""
PATIENCE_S: Final = 2.0
"""How long a server that went away is waited for: of one id one event is published, so trying again changes nothing."""
T = TypeVar("T")


class Log(Protocol):
    """What is needed of the log: see `evflow.log.link.Link`."""

    async def repeated(self, operation: Operation[T], patience_s: float) -> T:
        """Carry out what may be repeated."""
        ...


class Event(NamedTuple):
    """An event that may be published."""

    id: str
    made: Publication


@value
class Access:
    """Who may publish; without token and secret nobody may.

    Attributes:
        token: The bearer token, or empty.
        secret: The secret of signatures, or empty.
    """

    token: str = ""
    secret: str = ""


@value
class Answer:
    """What a request is answered with.

    Attributes:
        status: The HTTP status.
        body: The body, as JSON has it.
    """

    status: int
    body: dict[str, Any]


def read(
    name: str, headers: Mapping[str, str], body: bytes, *, now_s: float, access: Access, store: Callable[[], Store] = own_store
) -> Event | Answer:
    """The event that a request publishes, or why it publishes none. Blocking where the body is large: its payload is stored.

    Args:
        name: The event's name, from the path.
        headers: The request's headers, whatever the case of their names.
        body: Its body, whole.
        now_s: The time, in seconds since 1970.
        access: Who may publish.
        store: Where large payloads go.
    """
    said = {header.lower(): text for header, text in headers.items()}
    key = said.get("idempotency-key")
    wrong = _refusal(name, said, key or "", body, now_s, access)
    if wrong is not None:
        return wrong
    if len(body) > MOST_BODY_BYTES:
        return _error(413, "payload-too-large", f"The body has {len(body)} bytes; {MOST_BODY_BYTES} are allowed.")
    try:
        payload: Any = json.loads(body) if body.strip() else None
    except (ValueError, RecursionError) as error:
        return _error(400, "payload-no-json", f"The body is no JSON: {error}.")
    try:
        return Event(checked_id(key), made_of(name, payload, source="http", principal="http", store=store))
    except EventInvalid as error:
        return _error(400, error.code, error.message)
    except EvflowError as error:  # the store cannot be used: the same request may be sent again
        return _error(503, error.code, error.message)


async def publish_in(log: Log, event: Event) -> Answer:
    """Publish an event in the log, and say how that went; a log that is away is waited for a while."""
    try:
        placed: Placed = await log.repeated(publish(event.id, encode(event.made), kept()), PATIENCE_S)
    except LogUnavailable as error:  # the same request may be sent again
        return _error(503, error.code, error.message)
    return Answer(202 if placed.is_new else 200, {"id": event.id, "name": event.made.name, "at_us": placed.at_us, "is_new": placed.is_new})


def signature(secret: str, timestamp: str, name: str, key: str, body: bytes) -> str:
    """What `X-Evflow-Signature` has to be."""
    signed = b".".join((timestamp.encode(), name.encode(), key.encode(), body))
    return f"sha256={hmac.new(secret.encode(), signed, sha256).hexdigest()}"


def _refusal(name: str, said: Mapping[str, str], key: str, body: bytes, now_s: float, access: Access) -> Answer | None:
    """Why the request is refused, or None."""
    if not (access.token or access.secret):
        return _error(403, "publishing-is-closed", "This scheduler takes no events over HTTP: it has neither a token nor a secret for it.")
    kind, _, token = said.get("authorization", "").partition(" ")
    if access.token and kind.lower() == "bearer":
        return None if _same(token.strip(), access.token) else _error(401, "token-wrong", "The bearer token is not the right one.")
    given, timestamp = said.get("x-evflow-signature"), said.get("x-evflow-timestamp", "")
    if not access.secret or given is None:
        ways = [
            way for way, there in (("a bearer token", access.token), ("X-Evflow-Signature and X-Evflow-Timestamp", access.secret)) if there
        ]
        return _error(401, "not-authenticated", f"The request has to have {' or '.join(ways)}.")
    if not _same(given, signature(access.secret, timestamp, name, key, body)):
        return _error(401, "signature-wrong", "X-Evflow-Signature is not that of this request.")
    if not (timestamp.isascii() and timestamp.isdecimal()) or abs(int(timestamp[:15]) - now_s) > SKEW_S:
        return _error(401, "signature-expired", f"X-Evflow-Timestamp is more than {SKEW_S} s away from this machine's clock.")
    return None


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode())


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": code, "message": message})
