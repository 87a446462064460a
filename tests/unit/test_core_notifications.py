"""What messages of queues tell: notifications of S3 in all their forms, and what anybody may send."""

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given, strategies as st

from evflow.core.notifications import Message, Other, Rule, S3Object, bucket_of, queue_of, read_message
from evflow.core.published import id_fault

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=1_000)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["Records", "s3", "bucket", "object", "name", "key", "eventSource", "eventName", "source", "detail", "detail-type", "Type", "TopicArn", "Message"]
    ), inner | st.sampled_from(["aws:s3", "aws.s3", "Notification", "ObjectCreated:Put"]), max_size=6),
    max_leaves=20,
)  # fmt: skip


def record(key: str, **object_fields: Any) -> dict[str, Any]:
    return {
        "eventSource": "aws:s3", "awsRegion": "eu-west-1", "eventTime": "2026-11-27T02:00:00.000Z", "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "data"}, "object": {"key": quote_plus(key), "size": 3, "eTag": "e1", "sequencer": "0A", **object_fields}},
    }  # fmt: skip


def bridge(key: str) -> dict[str, Any]:
    thing = {"key": key, "size": 3, "etag": "e1", "sequencer": "0A"}
    return {
        "id": "b-1", "source": "aws.s3", "detail-type": "Object Created", "time": "2026-11-27T02:00:00Z", "region": "eu-west-1",
        "detail": {"bucket": {"name": "data"}, "object": thing},
    }  # fmt: skip


def topic(inner: object) -> dict[str, Any]:
    return {"Type": "Notification", "MessageId": "t-1", "TopicArn": "arn:aws:sns:eu-west-1:1:t", "Message": json.dumps(inner)}


def only(body: object) -> S3Object | Other:
    told = read_message(json.dumps(body))
    assert told.faults == ()
    [notice] = told.notices
    return notice


@given(TEXTS)
def test_a_key_is_read_in_every_form_as_it_is_and_is_one_event(key: str) -> None:
    forms = [{"Records": [record(key)]}, bridge(key), topic({"Records": [record(key)]}), topic(bridge(key)), topic(topic(bridge(key)))]
    found = [only(form) for form in forms]
    assert {one.key for one in found if isinstance(one, S3Object)} == {key}
    assert len({one.id for one in found}) == 1
    assert id_fault(found[0].id) is None


@given(TEXTS, TEXTS)
def test_changes_of_two_objects_are_two_events(one: str, other: str) -> None:
    assert (only({"Records": [record(one)]}).id == only({"Records": [record(other)]}).id) == (one == other)


def test_a_change_has_what_s3_says_of_it() -> None:
    notice = only({"Records": [record("in/a b.csv", versionId="v7")]})
    assert notice.payload == {
        "bucket": "data", "key": "in/a b.csv", "name": "a b.csv", "url": "s3://data/in/a b.csv", "size": 3, "etag": "e1", "version": "v7",
        "change": "created", "action": "ObjectCreated:Put", "at": "2026-11-27T02:00:00.000Z", "region": "eu-west-1",
    }  # fmt: skip
    assert notice.id == "s3:data/in/a b.csv:v7:0A"


@pytest.mark.parametrize("field", [{"sequencer": "0B"}, {"versionId": "v2"}, {"eTag": "e2"}])
def test_another_version_or_another_writing_is_another_event(field: dict[str, str]) -> None:
    assert only({"Records": [record("a")]}).id != only({"Records": [record("a", **field)]}).id


@given(JSON | st.text().map(lambda text: {"Message": text, "Type": "Notification", "TopicArn": "t"}))
def test_whatever_is_sent_is_read_or_refused(body: object) -> None:
    told = read_message(json.dumps(body))
    assert told.notices or told.faults or (isinstance(body, dict) and body.get("Event") == "s3:TestEvent")


@given(st.text())
def test_no_text_raises(body: str) -> None:
    assert isinstance(read_message(body), Message)


@pytest.mark.parametrize("body", ["", "no JSON", "{", "NaN", '{"a": Infinity}', "[" * 100_000])
def test_what_is_no_json_is_refused_with_the_reason(body: str) -> None:
    told = read_message(body)
    assert told.notices == ()
    assert told.faults[0].startswith("It is no JSON: ")


def test_what_is_right_beside_what_is_wrong_is_told() -> None:
    told = read_message(json.dumps({"Records": [record("a"), {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {}}]}))
    assert [notice.key for notice in told.notices if isinstance(notice, S3Object)] == ["a"]
    assert "names no bucket" in told.faults[0]


def test_the_test_of_a_new_configuration_is_nothing() -> None:
    assert read_message('{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "data"}') == Message()
    assert read_message(json.dumps(topic({"Event": "s3:TestEvent"}))) == Message()


def test_other_messages_are_their_own_payload_under_the_name_that_their_sender_gave() -> None:
    assert only([1, 2]) == Other("", [1, 2])
    assert only({"day": "monday"}) == Other("", {"day": "monday"})
    assert only(topic({"day": "monday"})) == Other("t-1", {"day": "monday"})
    assert only({"id": "b-2", "detail-type": "Day", "source": "mine"}).id == "b-2"
    assert only({"Records": [{"eventSource": "aws:ses"}]}) == Other("", {"Records": [{"eventSource": "aws:ses"}]})


def test_a_subscription_that_waits_is_told() -> None:
    told = read_message(json.dumps({"Type": "SubscriptionConfirmation", "TopicArn": "arn:t", "SubscribeURL": "https://x"}))
    assert "waits to be confirmed" in told.faults[0]


def test_rules_take_what_they_say() -> None:
    made, gone = only({"Records": [record("in/a.csv")]}), only({"Records": [{**record("in/a.csv"), "eventName": "ObjectRemoved:Delete"}]})
    restored = only({"Records": [{**record("in/a.csv"), "eventName": "ObjectRestore:Completed"}]})
    other = Other("", {})
    assert [Rule("e").takes(one) for one in (made, gone, restored, other)] == [True, False, False, True]
    assert [Rule("e", on="removed").takes(one) for one in (made, gone, restored)] == [False, True, False]
    assert [Rule("e", on="any").takes(one) for one in (made, gone, restored)] == [True, True, True]
    assert [Rule("e", prefix, suffix).takes(made) for prefix, suffix in (("in/", ".csv"), ("out/", ""), ("", ".txt"))] == [
        True,
        False,
        False,
    ]
    assert not Rule("e", "in/").takes(other)


def test_settings_are_read() -> None:
    queue = queue_of("https://sqs.eu-west-1.amazonaws.com/1/q?prefix=in/&suffix=.csv&on=any=arrived")
    assert (queue.place, queue.rule) == ("https://sqs.eu-west-1.amazonaws.com/1/q", Rule("arrived", "in/", ".csv", "any"))
    bucket = bucket_of("s3://data/in/?suffix=.csv&every=5=arrived")
    assert (bucket.place, bucket.rule, bucket.every_s) == ("s3://data/in/", Rule("arrived", "in/", ".csv"), 5.0)
    assert bucket_of("s3://data=arrived").place == "s3://data/"
    assert queue_of("http://h:1/0/q?prefix=a%2Cb=e").rule.prefix == "a,b"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("q", "PLACE=EVENT"), ("=e", "PLACE=EVENT"), ("https://h/1/q=", "PLACE=EVENT"), ("q=e", "no URL of a queue"), ("https://h=e", "no URL"),
        ("https://h/1/q=evflow.e", "published by evflow alone"), ("https://h/1/q=a b", "no spaces"), ("?on=any=e", "PLACE=EVENT"),
        ("https://h/1/q?wrong=1=e", "no option 'wrong'; there are prefix, suffix, on"), ("https://h/1/q?on=never=e", "on=never"),
    ],
)  # fmt: skip
def test_a_queue_that_cannot_be_is_told(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        queue_of(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("data=e", "s3://BUCKET/PREFIX"), ("s3:///in=e", "s3://BUCKET"), ("s3://d?every=0=e", "every=0"), ("s3://d?every=x=e", "every=x"),
        ("s3://d=evflow.e", "published by evflow alone"),
    ],
)  # fmt: skip
def test_a_bucket_that_cannot_be_is_told(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        bucket_of(text)
