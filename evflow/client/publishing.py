"""Publish an event: what deployed flows with `@trigger` listen for.

An event has an id, and of one id one event is published, however often somebody tries: so whoever is unsure whether an event arrived
publishes it again. A payload that is too large for the log goes to the store, and the event names its digest.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from evflow import config
from evflow.client.connection import shared_log
from evflow.core import published
from evflow.core.published import MAX_PAYLOAD_BYTES, Publication, encode, foreign_name_fault, id_fault, plain
from evflow.errors import UsageError
from evflow.log.protocol import Keep, LogClient
from evflow.store import open_store
from evflow.store.protocol import Store

_DAY_US = 86_400_000_000
MOST_PAYLOAD_BYTES = 16 * 1_000_000
"""Of a payload in the store: who listens reads it whole."""


class EventInvalid(UsageError):
    """No such event can be published."""

    code = "event-invalid"

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why, hint or "Nothing was published.")


class PublishedAs(NamedTuple):
    """An event that was published.

    Attributes:
        id: Its id.
        name: Its name.
        at_us: When it was published, by the log's clock, in microseconds since 1970.
        is_new: It was published now; False: one of this id was published before, at that instant.
    """

    id: str
    name: str
    at_us: int
    is_new: bool


def publish_event(name: str, payload: object = None, *, id: str | None = None) -> PublishedAs:  # noqa: A002 - what events call it
    """Publish an event. Deployed flows that listen for it begin, once a scheduler runs.

    Args:
        name: Its name.
        payload: What it says: anything that JSON can hold.
        id: Its id; a fresh one if none is given. Of one id one event is published, however often this is called.

    Raises:
        EventInvalid: Name, payload or id cannot be an event's.
        LogUnavailable: The log's server cannot be used.
        StoreFull, StoreUnusable: A large payload cannot be stored.
    """
    from evflow.flow.current import current

    principal = f"task:{current.pathspec}" if current.is_running_flow else f"user:{config.get('user')}"
    made = made_of(name, payload, source="python", principal=principal, store=own_store)
    event_id = checked_id(id)
    return shared_log().ask(lambda log: send(log, made, event_id))


async def publish_event_async(name: str, payload: object = None, *, id: str | None = None) -> PublishedAs:  # noqa: A002 - as above
    """As `publish_event`, without blocking the event loop."""
    import anyio.to_thread

    return await anyio.to_thread.run_sync(lambda: publish_event(name, payload, id=id))


def made_of(name: str, payload: object, *, source: str, principal: str, store: Callable[[], Store]) -> Publication:
    """An event that can be published; a large payload is stored.

    Raises:
        EventInvalid: It cannot be one.
        StoreFull, StoreUnusable: The payload cannot be stored.
    """
    wrong = foreign_name_fault(name)
    if wrong is not None:
        raise EventInvalid(wrong)
    try:
        held = plain(payload)
    except ValueError as error:
        raise EventInvalid(f"The payload of event '{name}' cannot be written as JSON: {error}.") from None
    made = Publication(name, held, source, principal)
    if len(encode(made)) <= MAX_PAYLOAD_BYTES:
        return made
    data = published.payload_bytes(held)
    if len(data) > MOST_PAYLOAD_BYTES:
        raise EventInvalid(
            f"The payload of event '{name}' has {len(data)} bytes; {MOST_PAYLOAD_BYTES} are allowed.",
            "Put it where the flow can read it, and publish its place. Nothing was published.",
        )
    where = store()
    return Publication(name, None, source, principal, where.put([data]), where.url)


def checked_id(given: str | None) -> str:
    """An event's id, a fresh one if none is given.

    Raises:
        EventInvalid: It cannot be one.
    """
    if given is None:
        return os.urandom(12).hex()
    wrong = id_fault(given)
    if wrong is not None:
        raise EventInvalid(wrong)
    return given


def send(log: LogClient, made: Publication, event_id: str) -> PublishedAs:
    """Publish an event, which may be repeated.

    Raises:
        LogUnavailable: The server cannot be used.
    """
    placed = log.publish(event_id, encode(made), kept())
    return PublishedAs(event_id, made.name, placed.at_us, placed.is_new)


def kept() -> Keep:
    """How much of what is published is kept, as the settings say."""
    return Keep(round(config.get("keep_events_days") * _DAY_US), config.get("keep_events"))


def stored_payload(store: Store, digest: bytes) -> Any:
    """A payload that lies in the store.

    Raises:
        ObjectMissing, ObjectDamaged, StoreUnusable: It cannot be read.
    """
    return published.payload_of(bytes(store.get(digest)))


def own_store() -> Store:
    """The store of the settings."""
    return open_store(config.get("store"))
