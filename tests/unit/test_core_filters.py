"""Filters of payloads."""

from typing import Any

import pytest

from evflow.core.codec import UnreadableEvent
from evflow.core.filters import fault, mismatch
from evflow.core.published import Publication, decode, encode, finished, id_fault, name_fault, plain

PAYLOAD = {"size": 5, "kind": "new", "deep": {"er": [1]}, "a.b": 1, "yes": True, "none": None, "items": [{"name": "a"}, {"name": "b"}]}


@pytest.mark.parametrize(
    "wanted",
    [
        {}, {"size": 5}, {"size": 5.0}, {"size": [4, 5]}, {"size": {">": 4, "<": 6}}, {"size": {">=": 5, "<=": 5, "!=": 4}},
        {"kind": {"in": ["old", "new"]}}, {"kind": {"not in": ["old"]}}, {"deep.er": {"exists": True}}, {"deep.er.0": 1}, {"deep.er.1": {"exists": False}},
        {"items.1.name": "b"}, {"items.x": {"exists": False}}, {f"items.{'9' * 5_000}": {"exists": False}}, {"deep.est": {"exists": False}},
        {"a.b": 1}, {"yes": True}, {"none": None}, {"kind": {">": "nap"}},
    ],
)  # fmt: skip
def test_a_payload_that_a_filter_describes_passes(wanted: dict[str, Any]) -> None:
    assert fault(wanted) is None
    assert mismatch(wanted, PAYLOAD) is None


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"size": 6}, "size is 5, wanted == 6"),
        ({"size": "5"}, "size is 5, wanted == '5'"),
        ({"size": {">": 4, "<": 5}}, "size is 5, wanted < 5"),
        ({"kind": ["old"]}, "kind is 'new', wanted in ['old']"),
        ({"kind": {">": 3}}, "kind is 'new', wanted > 3"),
        ({"yes": 1}, "yes is True, wanted == 1"),
        ({"yes": {">": 0}}, "yes is True, wanted > 0"),
        ({"absent": {"!=": 3}}, "absent is missing, wanted != 3"),
        ({"absent": {"not in": [3]}}, "absent is missing, wanted not in [3]"),
        ({"size": {"exists": False}}, "size is 5, wanted exists False"),
        ({"size.x": 3}, "size.x is missing, wanted == 3"),
    ],
)
def test_a_payload_that_it_does_not_describe_is_told_apart(wanted: dict[str, Any], why: str) -> None:
    assert mismatch(wanted, PAYLOAD) == why


def test_a_payload_without_fields_passes_no_filter_of_one() -> None:
    for payload in (None, 3, "size", [5]):
        assert mismatch({"size": 5}, payload) == "size is missing, wanted == 5"


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (3, "filter is 3"), ({3: 3}, "filter has the field 3"), ({"x": {"like": 3}}, "filter of 'x' has 'like'"), ({"x": {"in": 3}}, "filter of 'x': 'in' takes"),
        ({"x": {">": None}}, "filter of 'x': '>' takes"), ({"x": {"exists": 1}}, "filter of 'x': exists"), ({"x": {"==": {}}}, "filter of 'x' compares with {}"),
        ({"x": [[]]}, "filter of 'x' compares with []"), ({str(number): 1 for number in range(21)}, "filter has 21 fields"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_filter_is_said(wanted: object, says: str) -> None:
    assert (fault(wanted) or "").startswith(says)


def test_what_is_published_is_read_back() -> None:
    publication = Publication("data", {"x": [1, None]}, "cli", "user:ada", b"d" * 32, "file:///store")
    assert decode(encode(publication)) == Publication("data", {"x": (1, None)}, "cli", "user:ada", b"d" * 32, "file:///store")
    assert decode(b"\x91\xa1x") == Publication("x")


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x90", b"\x91\x01", b"\x93\xa1x\xc0\x05"])
def test_bytes_that_are_no_publication_are_refused(body: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        decode(body)


@pytest.mark.parametrize("payload", [object(), float("nan"), 2**70, {"x": {1, 2}}, "\ud800"])
def test_a_payload_that_json_cannot_hold_is_refused(payload: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        plain(payload)


def test_names_and_ids_are_short_and_printable() -> None:
    assert name_fault("data.ready/2026") is None
    assert all(map(name_fault, ("", "a b", "a\n", "x" * 101)))
    assert id_fault("s3://bucket/key 1") is None
    assert all(map(id_fault, ("", "a\n", "x" * 129)))


def test_the_end_of_a_run_is_an_event() -> None:
    header = {"trigger": {"deployment": "default", "version": 2}, "namespace": "user:ada", "user": "ada"}
    assert finished("Train", 3, "failed", header) == Publication(
        "evflow.finished.Train",
        {
            "flow": "Train", "run": "Train/3", "status": "failed", "deployment": "default", "version": 2, "namespace": "user:ada",
            "user": "ada",
        },
        "flow",
        "scheduler",
    )  # fmt: skip
