"""What a message of a queue tells of: notifications of S3, in each form in which they come, and any other JSON.

| Form | How it is told apart |
|---|---|
| from S3 itself | `Records`, whose `eventSource` is `aws:s3`; keys are URL-encoded there |
| from S3 by way of EventBridge | `source` is `aws.s3`, `detail` has bucket and object; keys are plain |
| either one by way of SNS | an envelope of `Type`, `TopicArn` and `Message`, which is read in turn |
| S3's own test of a new configuration | `Event` is `s3:TestEvent`: nothing happened |
| anything else | it is its own payload |

The field names are those of the Amazon S3 User Guide, "Event message structure" and "EventBridge event message structure".
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final, Literal, TypeGuard
from urllib.parse import parse_qsl, unquote_plus

from evflow.core.published import MOST_ID_CHARS, foreign_name_fault
from evflow.core.values import value

Change = Literal["created", "removed", "other"]
On = Literal["created", "removed", "any"]
_ON: Final[Mapping[str, On]] = {"created": "created", "removed": "removed", "any": "any"}
_CHANGES: Final[Mapping[str, Change]] = {
    "ObjectCreated": "created",
    "Object Created": "created",
    "ObjectRemoved": "removed",
    "LifecycleExpiration": "removed",
    "Object Deleted": "removed",
}
_MOST_ENVELOPES: Final = 3
"""A topic within a rule within a topic: nobody wraps deeper than that."""
_MOST_EXCERPT: Final = 200


@value
class S3Object:
    """What happened to an object.

    Attributes:
        bucket: Its bucket.
        key: Its key, plain.
        change: What happened.
        id: The event's id: of one change the same, however often it is told.
        payload: What the event says.
    """

    bucket: str
    key: str
    change: Change
    id: str
    payload: Mapping[str, Any]


@value
class Other:
    """A message that is no notification of S3.

    Attributes:
        id: What the sender's service calls it; empty where only the queue has a name for it.
        payload: The message.
    """

    id: str
    payload: Any


@value
class Message:
    """What a message tells of.

    Attributes:
        notices: In its order; none where it is a test.
        faults: What of it cannot be read, as sentences.
    """

    notices: tuple[S3Object | Other, ...] = ()
    faults: tuple[str, ...] = ()


@value
class Rule:
    """Which notices become events of which name.

    Attributes:
        event: The name.
        prefix: What the key begins with.
        suffix: What it ends with.
        on: Which changes count; `any` of them.
    """

    event: str
    prefix: str = ""
    suffix: str = ""
    on: On = "created"

    def takes(self, notice: S3Object | Other) -> bool:
        """Whether the notice becomes an event. What is not of S3 has no key, so a prefix or a suffix keeps it out."""
        if isinstance(notice, Other):
            return not (self.prefix or self.suffix)
        return notice.key.startswith(self.prefix) and notice.key.endswith(self.suffix) and self.on in ("any", notice.change)


def read_message(body: str) -> Message:
    """Read the body of a message. Anything can be in it; nothing is raised."""
    return _read(body, "", _MOST_ENVELOPES)


def _read(body: str, sender_id: str, envelopes: int) -> Message:
    try:
        said: Any = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return Message(faults=(f"It is no JSON: {error}. It begins with {body[:_MOST_EXCERPT]!r}.",))
    told = _mapping(said)
    if told is None:
        return Message((Other(sender_id, said),))
    if told.get("Event") == "s3:TestEvent":
        return Message()
    if isinstance(told.get("TopicArn"), str) and told.get("Type") in ("Notification", "SubscriptionConfirmation"):
        if told["Type"] == "SubscriptionConfirmation":
            return Message(faults=(f"The subscription to {told['TopicArn']} waits to be confirmed, at its SubscribeURL.",))
        inner = told.get("Message")
        if not isinstance(inner, str) or not envelopes:
            return Message(faults=(f"The notification of {told['TopicArn']} has no message that can be read.",))
        return _read(inner, _text(told, "MessageId"), envelopes - 1)
    records = told.get("Records")
    if _is_list(records) and records:
        changes = [one for one in map(_mapping, records) if one is not None and one.get("eventSource") == "aws:s3"]
        if len(changes) == len(records):
            return _all_of([_record(one) for one in changes])
    if told.get("source") == "aws.s3" and isinstance(told.get("detail"), dict):
        return _all_of([_from_bridge(told)])
    if isinstance(told.get("detail-type"), str):
        sender_id = _text(told, "id") or sender_id
    return Message((Other(sender_id, told),))


def _no_number(constant: str) -> object:
    raise ValueError(f"{constant} is no number of JSON")


def _all_of(read: list[S3Object | str]) -> Message:
    return Message(tuple(one for one in read if not isinstance(one, str)), tuple(one for one in read if isinstance(one, str)))


def _record(record: Mapping[str, Any]) -> S3Object | str:
    """A record of a notification from S3 itself, or what is wrong with it."""
    s3 = _part(record, "s3")
    bucket, thing = _text(_part(s3, "bucket"), "name"), _part(s3, "object")
    key = unquote_plus(_text(thing, "key"))
    action = _text(record, "eventName")
    if not (bucket and key and action):
        return f"A record of S3 names no {'bucket' if not bucket else 'key' if not key else 'event'}: {str(record)[:_MOST_EXCERPT]}."
    return s3_object(
        bucket, key, action, thing.get("size"), _text(thing, "eTag"), _text(thing, "versionId"),
        _text(thing, "sequencer") or _text(record, "eventTime"), _text(record, "eventTime"), _text(record, "awsRegion"),
    )  # fmt: skip


def _from_bridge(told: Mapping[str, Any]) -> S3Object | str:
    """An event of S3 that came by way of EventBridge, or what is wrong with it."""
    detail = _part(told, "detail")
    bucket, thing, action = _text(_part(detail, "bucket"), "name"), _part(detail, "object"), _text(told, "detail-type")
    key = _text(thing, "key")
    if not (bucket and key and action):
        return f"An event of S3 names no {'bucket' if not bucket else 'key' if not key else 'kind'}: {str(told)[:_MOST_EXCERPT]}."
    return s3_object(
        bucket, key, action, thing.get("size"), _text(thing, "etag"), _text(thing, "version-id"),
        _text(thing, "sequencer") or _text(told, "id"), _text(told, "time"), _text(told, "region"),
    )  # fmt: skip


def s3_object(bucket: str, key: str, action: str, size: object, etag: str, version: str, turn: str, at: str, region: str = "") -> S3Object:
    """What happened to an object, from what was said of it.

    Args:
        bucket: Its bucket.
        key: Its key, plain.
        action: What happened, as S3 calls it: `ObjectCreated:Put`, `Object Created`.
        size: Its bytes; None where nobody said.
        etag: Its content's tag, with or without quotation marks.
        version: Its version, where the bucket keeps versions.
        turn: What tells this change from others of the same content: S3's sequencer.
        at: When it happened.
        region: Where the bucket is.
    """
    change: Change = _CHANGES.get(action.partition(":")[0]) or "other"
    etag = etag.strip('"')
    payload = {
        "bucket": bucket,
        "key": key,
        "name": key.rstrip("/").rpartition("/")[2],
        "url": f"s3://{bucket}/{key}",
        "size": size if isinstance(size, int) and not isinstance(size, bool) else None,
        "etag": etag or None,
        "version": version or None,
        "change": change,
        "action": action,
        "at": at or None,
        "region": region or None,
    }
    return S3Object(bucket, key, change, _id_of(bucket, key, version or etag, turn), payload)


def _id_of(bucket: str, key: str, content: str, turn: str) -> str:
    """The event's id; by digest where it would be too long, or not printable."""
    whole = f"s3:{bucket}/{key}:{content}:{turn}"
    if len(whole) <= MOST_ID_CHARS and whole.isprintable():
        return whole
    return f"s3:{bucket[:63] if bucket.isprintable() else '?'}:{sha256(whole.encode(errors='surrogatepass')).hexdigest()[:40]}"


def _part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _mapping(of.get(name)) or {}


def _mapping(found: Any) -> Mapping[str, Any] | None:
    return found if _is_mapping(found) else None


def _is_mapping(found: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(found, dict)


def _is_list(found: object) -> TypeGuard[list[Any]]:
    return isinstance(found, list)


def _text(of: Mapping[str, Any], name: str) -> str:
    found = of.get(name)
    return found if isinstance(found, str) else ""


# --- what the operator says ------------------------------------------------------------------------------


@value
class Watched:
    """A queue, or a part of a bucket, and what becomes of what it tells.

    Attributes:
        place: The queue's URL, or `s3://bucket/prefix`.
        rule: What becomes an event.
        every_s: For a bucket: how often it is listed, in seconds.
    """

    place: str
    rule: Rule
    every_s: float = 60.0


def place_of(text: str) -> tuple[str, str]:
    """Read `PLACE=EVENT`.

    Raises:
        ValueError: It is not of this form, or no event of others can have this name; the text says why.
    """
    place, equals, event = text.rpartition("=")
    if not (equals and place and event):
        raise ValueError(f"'{text}' is not of the form PLACE=EVENT")
    wrong = foreign_name_fault(event)
    if wrong is not None:
        raise ValueError(wrong)
    return place, event


def queue_of(text: str) -> Watched:
    """Read `URL=EVENT`, of a queue; the URL may end in `?prefix=…&suffix=…&on=created|removed|any`.

    Raises:
        ValueError: It is not of this form; the text says why.
    """
    place, event, options = _split(text, ("prefix", "suffix", "on"))
    if not place.startswith(("https://", "http://")) or place.count("/") < 3:
        raise ValueError(f"'{place}' is no URL of a queue, as https://sqs.REGION.amazonaws.com/ACCOUNT/NAME")
    said = options.get("on", "created")
    on = _ON.get(said)
    if on is None:
        raise ValueError(f"on={said}: it is {', '.join(_ON)}")
    return Watched(place, Rule(event, options.get("prefix", ""), options.get("suffix", ""), on))


def bucket_of(text: str) -> Watched:
    """Read `s3://BUCKET/PREFIX=EVENT`; it may end in `?suffix=…&every=SECONDS` before the `=`.

    Raises:
        ValueError: It is not of this form; the text says why.
    """
    place, event, options = _split(text, ("suffix", "every"))
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    if not (place.startswith("s3://") and bucket):
        raise ValueError(f"'{place}' is not of the form s3://BUCKET/PREFIX")
    try:
        every_s = float(options.get("every", "60"))
    except ValueError:
        every_s = 0.0
    if not 1 <= every_s <= 86_400:
        raise ValueError(f"every={options['every']}: it is a number of seconds from 1 to 86,400")
    return Watched(f"s3://{bucket}/{prefix}", Rule(event, prefix, options.get("suffix", "")), every_s)


def _split(text: str, known: tuple[str, ...]) -> tuple[str, str, dict[str, str]]:
    """Place, event and options of `PLACE?option=value&…=EVENT`."""
    head, event = place_of(text)
    place, _, query = head.partition("?")
    if not place:
        raise ValueError(f"'{text}' is not of the form PLACE=EVENT")
    options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    for unknown in options.keys() - set(known):
        raise ValueError(f"there is no option '{unknown}'; there are {', '.join(known)}")
    return place, event, options


def by_place(watched: Iterator[Watched] | tuple[Watched, ...]) -> dict[str, list[Watched]]:
    """What is watched, by place: a message of a queue goes to one reader, so one reader must know all of its rules."""
    found: dict[str, list[Watched]] = {}
    for one in watched:
        found.setdefault(one.place, []).append(one)
    return found
