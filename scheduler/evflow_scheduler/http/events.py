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
from typing import Any, Final

from evflow.client.publishing import EventInvalid, PublishedAs, checked_id, made_of, own_store, send
from evflow.core.values import value
from evflow.errors import EvflowError
from evflow.log.protocol import LogClient

MOST_BODY_BYTES: Final = 16 * 1_000_000
SKEW_S: Final = 300
"""A signature is that old at most, or that far ahead."""
Publish = Callable[[str, Any, str | None], PublishedAs]
"""Publishes an event of a name, a payload and an id, None for a fresh one."""


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


def receive(name: str, headers: Mapping[str, str], body: bytes, *, now_s: float, access: Access, publish: Publish) -> Answer:
    """Answer a request; blocking where `publish` is.

    Args:
        name: The event's name, from the path.
        headers: The request's headers, whatever the case of their names.
        body: Its body, whole.
        now_s: The time, in seconds since 1970.
        access: Who may publish.
        publish: Publishes it.
    """
    said = {header.lower(): text for header, text in headers.items()}
    key = said.get("idempotency-key")
    wrong = _refusal(name, said, key or "", body, now_s, access)
    if wrong is not None:
        return wrong
    if len(body) > MOST_BODY_BYTES:
        return _error(413, "payload-too-large", f"The body has {len(body)} bytes; {MOST_BODY_BYTES} are allowed.")
    try:
        payload = json.loads(body) if body.strip() else None
    except (ValueError, RecursionError) as error:
        return _error(400, "payload-no-json", f"The body is no JSON: {error}.")
    try:
        done = publish(name, payload, key)
    except EventInvalid as error:
        return _error(400, error.code, error.message)
    except EvflowError as error:  # log or store cannot be used: the same request may be sent again
        return _error(503, error.code, error.message)
    return Answer(202 if done.is_new else 200, {"id": done.id, "name": done.name, "at_us": done.at_us, "is_new": done.is_new})


def publish_in(log: LogClient, name: str, payload: Any, key: str | None) -> PublishedAs:
    """Publish an event in a log, for `receive`.

    Raises:
        EventInvalid, LogUnavailable, StoreFull, StoreUnusable: As `evflow.client.publishing`.
    """
    made = made_of(name, payload, source="http", principal="http", store=own_store)
    return send(log, made, checked_id(key))


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
