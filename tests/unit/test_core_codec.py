"""Events are bytes and events again; bytes that are none are told so, whatever they are."""

from contextlib import suppress
from dataclasses import MISSING, fields
from functools import partial
from types import GenericAlias
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given, strategies as st

from evflow.core import canonical, codec, flow_events
from evflow.core.codec import EventTooLarge, Record, UnreadableEvent, decode, decode_report, encode, encode_report, fields_of, tag_of
from evflow.core.events import TAGS, AttemptFailed, AttemptLost, AttemptSucceeded, Event, RunStarted, SlotGranted, Unknown
from evflow.core.graph import Graph, Node
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.core.readers import reader, report_reader
from evflow.core.values import declared, fits
from evflow.replay.refold import refold
from evflow_scheduler.run import OwnedRun
from tests.core_run import stored

HEAD: dict[str, Any] = {"turn": 3, "at_us": 1_795_435_200_000_000, "principal": "worker:box:1", "cause": 2}

NUMBERS = st.integers(-(2**63), 2**64 - 1)
PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False) | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_OF: dict[Any, st.SearchStrategy[Any]] = {int: NUMBERS, str: st.text(max_size=12), bytes: st.binary(max_size=32), bool: st.booleans()}


def _values(declared: Any) -> st.SearchStrategy[Any]:
    text = str(declared)
    if declared in _OF:
        return _OF[declared]
    if text.startswith("tuple"):
        return st.lists(PLAIN if declared.__args__[0] is Any else _values(declared.__args__[0]), max_size=4).map(tuple)
    if text.startswith("dict"):
        return st.dictionaries(st.text(max_size=6), _OF.get(declared.__args__[1], PLAIN), max_size=3)
    return st.one_of(*(st.none() if one is type(None) else _values(one) for one in declared.__args__))


def _of(cls: type[Event]) -> st.SearchStrategy[Event]:
    kind: Any = cls
    return st.builds(kind, **{field.name: _values(field.type) for field in fields(kind)})


EVENTS = st.one_of(*(_of(cls) for cls in TAGS.values()))
FLOW_EVENTS = st.one_of(*(_of(cls) for cls in flow_events.TAGS.values()))


@pytest.mark.parametrize("cls", TAGS.values(), ids=TAGS)
@given(data=st.data())
def test_every_event_is_read_as_it_was_written(cls: type[Event], data: st.DataObject) -> None:
    """With its place, its time, who caused it and what it answers; as a report too."""
    event = data.draw(_of(cls))
    record = decode(7, encode(event, **HEAD))
    assert record.event == event
    assert (record.seq, record.turn, record.at_us, record.principal, record.cause) == (7, *HEAD.values())
    assert decode_report(encode_report(event, principal="user:ada")) == (event, "user:ada")


@pytest.mark.parametrize("cls", TAGS.values(), ids=TAGS)
@given(data=st.data())
def test_a_compiled_reader_reads_what_all_others_read(cls: type[Event], data: st.DataObject) -> None:
    """The fields that a writer of an older version did not have yet have their defaults."""
    known = fields(cast("Any", cls))
    needed = sum(1 for field in known if field.default is MISSING and field.default_factory is MISSING)
    values = msgpack.unpackb(encode(data.draw(_of(cls)), **HEAD), use_list=False)
    values = values[: len(values) - data.draw(st.integers(0, len(known) - needed))]
    record = reader(Record, cls, len(values))(7, values)
    assert record == decode(7, msgpack.packb(values))


@pytest.mark.parametrize("cls", TAGS.values(), ids=TAGS)
@given(data=st.data())
def test_a_compiled_reader_takes_no_value_of_another_type(cls: type[Event], data: st.DataObject) -> None:
    """One value of an event is another one."""
    values = list(msgpack.unpackb(encode(data.draw(_of(cls)), **HEAD), use_list=False))
    place = data.draw(st.integers(1, len(values) - 1))
    values[place] = data.draw(PLAIN)
    kinds: list[Any] = [int, int, str, int, *declared(cls).values()]
    shallow = kinds[place - 1].__origin__ if isinstance(kinds[place - 1], GenericAlias) else kinds[place - 1]
    assert (reader(Record, cls, len(values))(7, values) is not None) == fits(values[place], shallow)


@pytest.mark.parametrize("cls", TAGS.values(), ids=TAGS)
@given(data=st.data())
def test_a_compiled_reader_of_reports_takes_what_all_others_take(cls: type[Event], data: st.DataObject) -> None:
    """One value of a report may be another one, what a container holds as well."""
    values = list(msgpack.unpackb(encode_report(data.draw(_of(cls)), principal="worker"), use_list=False))
    if data.draw(st.booleans()):
        values[data.draw(st.integers(1, len(values) - 1))] = data.draw(PLAIN)
    values = list(msgpack.unpackb(msgpack.packb(values), use_list=False))
    kinds: list[Any] = [str, *declared(cls).values()]
    found = report_reader(cls, len(values))(values)
    assert (found is not None) == all(map(fits, values[1:], kinds))
    assert found is None or found == decode_report(msgpack.packb(values))


def test_what_is_reported_often_is_read_as_before() -> None:
    """A reader is compiled on the way; what does not fit is told by the field's name still."""
    report = AttemptSucceeded(3, 0, b"m" * 32, "linear", ("join",))
    payload = encode_report(report, principal="worker")
    assert [decode_report(payload) for _ in range(200)] == [(report, "worker")] * 200
    values = list(msgpack.unpackb(payload, use_list=False))
    for place, wrong, name in ((2, "3", "task"), (6, ("join", 7), "next_steps")):
        with pytest.raises(UnreadableEvent, match=name):
            decode_report(msgpack.packb([*values[:place], wrong, *values[place + 1 :]]))
    assert decode_report(msgpack.packb([*values, "later"])) == (report, "worker")


def test_what_is_read_often_is_read_as_before() -> None:
    """A reader is compiled on the way; a field missing, one too many and one of another type are told by it, too."""
    event = SlotGranted(3, 0, 1, "free", "local")
    payload = encode(event, **HEAD)
    assert [decode(seq, payload).event for seq in range(1, 200)] == [event] * 199
    values = msgpack.unpackb(payload, use_list=False)
    assert decode(1, msgpack.packb([*values, "later"])).event == event
    assert decode(1, msgpack.packb(values[:-1])).event == SlotGranted(3, 0, 1, "free")
    for wrong in (values[:-3], [*values[:-1], 7]):
        with pytest.raises(UnreadableEvent, match="SlotGranted"):
            decode(1, msgpack.packb(wrong))


@given(FLOW_EVENTS)
def test_every_event_of_a_flow_is_read_as_it_was_written(event: Event) -> None:
    """The log of what happens outside of runs has the same rules."""
    record = flow_events.decode(7, flow_events.encode(event, at_us=5, principal="user:ada"))
    assert (record.event, record.seq, record.at_us, record.principal) == (event, 7, 5, "user:ada")


@given(st.binary(max_size=60))
def test_bytes_that_are_no_event_are_unreadable_and_nothing_worse(payload: bytes) -> None:
    """Random bytes."""
    _read_or_refused(payload)


@given(EVENTS, st.data())
def test_a_damaged_event_is_an_event_or_unreadable_and_nothing_worse(event: Event, data: st.DataObject) -> None:
    """Some bytes changed, or the end missing."""
    payload = bytearray(encode(event, **HEAD))
    for _ in range(data.draw(st.integers(0, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    _read_or_refused(bytes(payload[: data.draw(st.integers(0, len(payload)))]))


@given(st.lists(PLAIN, max_size=10), st.sampled_from([*TAGS, "Later"]))
def test_an_event_of_wrong_values_is_unreadable_or_has_the_types_of_its_fields(values: list[Any], tag: str) -> None:
    """Nobody behind the codec meets a text where a number should stand."""
    payload = msgpack.packb([tag, 1, 2, "x", 0, *values])
    try:
        record = decode(1, payload)
    except UnreadableEvent:
        return
    if isinstance(record.event, Unknown):
        assert record.event.tag == "Later"
        return
    kind: Any = type(record.event)
    for field in fields(kind):
        value, declared = getattr(record.event, field.name), str(field.type)
        assert type(value).__name__ in declared or (value is None and "None" in declared)


def _read_or_refused(payload: bytes) -> None:
    for read in (partial(decode, 1), decode_report, partial(flow_events.decode, 1), flow_events.split_at_number):
        with suppress(UnreadableEvent):
            read(payload)


@pytest.mark.parametrize(
    "values",
    [
        (), ("TaskFailed",), ("TaskFailed", 1, 2, "x"), (1, 2, 3, "x", 0), (None,) * 5, ("TaskFailed", "1", 2, "x", 0, 1, 0, "why"),
        ("TaskFailed", 1, 2, "x", 0), ("TaskFailed", 1, 2, "x", 0, "1", 0, "why"), ("TaskFailed", 1, 2, "x", 0, True, 0, "why"),
        ("TaskFailed", 1, 2, "x", 0, 1, 0, None), ("TaskFailed", 1, 2.0, "x", 0, 1, 0, "why"),
    ],
)  # fmt: skip
def test_an_event_without_its_head_or_with_other_types_is_unreadable(values: tuple[Any, ...]) -> None:
    """A bool is no number."""
    with pytest.raises(UnreadableEvent):
        decode(1, msgpack.packb(values))


def test_a_report_is_looked_at_to_its_bottom() -> None:
    """A worker of another version must not bring down the owner of the run."""
    event: Any = AttemptSucceeded(1, 0, b"m", "split", ("a", 7))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with pytest.raises(UnreadableEvent, match=r"AttemptSucceeded\.next_steps is tuple, not tuple\[str"):
        decode_report(encode_report(event, principal="worker"))


def test_what_is_wrong_is_named() -> None:
    """The field, what stands there and what should."""
    with pytest.raises(UnreadableEvent, match=r"TaskFailed\.task is str, not int"):
        decode(1, msgpack.packb(("TaskFailed", 1, 2, "x", 0, "one", 0, "why")))
    with pytest.raises(UnreadableEvent, match="not an array"):
        decode(1, msgpack.packb({"TaskFailed": 1}))


def test_an_event_of_a_later_version_is_kept_and_written_as_it_was() -> None:
    """An unknown tag is not fatal, and nothing of it is lost."""
    payload = msgpack.packb(("TaskTeleported", 3, 5, "scheduler", 1, 42, ("Mars", None), {"by": b"beam"}))
    record = decode(9, payload)
    assert record.event == Unknown("TaskTeleported", (42, ("Mars", None), {"by": b"beam"}))
    assert tag_of(record.event) == "TaskTeleported"
    assert fields_of(record.event) == {"field_0": 42, "field_1": ("Mars", None), "field_2": {"by": b"beam"}}
    again = encode(record.event, turn=record.turn, at_us=record.at_us, principal=record.principal, cause=record.cause)
    assert again == payload


def test_fields_of_a_later_version_are_dropped() -> None:
    """A known event with more fields than this version knows."""
    payload = msgpack.packb(("TaskFailed", 1, 2, "x", 0, 1, 0, "why", "more", {"of": "it"}))
    assert decode(1, payload).event == TAGS["TaskFailed"](1, 0, "why")  # type: ignore[call-arg]
    assert decode(2, payload).event == decode(1, payload).event


def test_fields_that_an_earlier_version_did_not_write_have_their_defaults() -> None:
    """What a release added stands at the end and has a default."""
    payload = msgpack.packb(("SlotGranted", 1, 2, "x", 0, 4, 0, 3))
    assert decode(1, payload).event == SlotGranted(4, 0, 3, "")


@pytest.mark.parametrize("cls", [*TAGS.values(), *flow_events.TAGS.values()], ids=lambda cls: cls.__name__)
def test_defaults_are_those_of_the_last_fields(cls: Any) -> None:
    """Else a field could not be added at the end."""
    given = [field.default is not MISSING or field.default_factory is not MISSING for field in fields(cls)]
    assert given == sorted(given)


def test_an_event_is_at_most_32_kb_and_a_start_512() -> None:
    """Longer parts go to the store."""
    encode(AttemptLost(1, 0, "x" * (codec.MAX_EVENT_BYTES - 100)), **HEAD)
    with pytest.raises(EventTooLarge, match="A AttemptLost event has 33"):
        encode(AttemptLost(1, 0, "x" * 33_000), **HEAD)
    with pytest.raises(EventTooLarge):
        encode_report(AttemptLost(1, 0, "x" * 33_000), principal="worker")
    start = RunStarted("F", 1, 1, {"doc": "x" * 100_000}, b"", {}, {}, {}, "ada", "")
    assert len(encode(start, **HEAD)) < codec.MAX_START_BYTES
    with pytest.raises(EventTooLarge):
        encode(RunStarted("F", 1, 1, {"doc": "x" * 600_000}, b"", {}, {}, {}, "ada", ""), **HEAD)


def test_half_a_surrogate_pair_is_written_so_that_it_can_be_shown() -> None:
    """An exception's text may have one; no reader could print it, and the report must not be lost for it."""
    event = AttemptFailed(1, 0, "exception", "OSError", "no file \udcff")
    assert decode_report(encode_report(event, principal="worker"))[0] == AttemptFailed(1, 0, "exception", "OSError", "no file \\udcff")


def test_the_owner_folds_what_readers_will_read() -> None:
    """A parameter from the command line may hold any bytes; the state that is sealed is the one that replay gets."""
    run = OwnedRun(RunId(FlowName("F"), RunNumber(1)))
    graph = Graph({"start": Node("start", "end")}, end="start").to_plain()
    start = RunStarted("F", 1, 1, graph, b"", {"alpha": "\udcff"}, {}, {}, "ada", "")
    run.turn([(start, "user:ada", 0)], 1)
    (call,) = run.pending((), {})
    read = refold(stored(list(call.events)))
    assert read.header == run.state.header
    assert run.state.header["parameters_shown"] == {"alpha": "\\udcff"}
    assert canonical.digest(read) == canonical.digest(run.state)


@given(st.integers(1, 2**63), st.text("0123456789", min_size=1, max_size=3))
def test_the_number_of_a_requested_run_can_be_put_between_two_parts(number: int, user: str) -> None:
    """The server takes the number and appends in one act."""
    event = flow_events.RunRequested(0, user, "F/1", "shard", "box")
    before, behind = flow_events.split_at_number(flow_events.encode(event, at_us=1, principal="user:ada"))
    asked = flow_events.decode(1, before + msgpack.packb(number) + behind).event
    assert asked == flow_events.RunRequested(number, user, "F/1", "shard", "box")


def test_only_a_requested_run_has_a_number_to_fill_in() -> None:
    """Other events of a flow are not taken apart."""
    payload = flow_events.encode(flow_events.RunTagged(1, ("a",)), at_us=1, principal="user:ada")
    with pytest.raises(UnreadableEvent, match="RunTagged asks for no run"):
        flow_events.split_at_number(payload)
