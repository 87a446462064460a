"""Values to bytes and back: equal, of the same type, and nothing lost on the way."""

import contextlib
import enum
import math
import pickle
import socket
import sqlite3
import sys
import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given, strategies as st

from evflow.store.diagnosis import ArtifactNotSerializable
from evflow.store.encodings import RAW, ZSTD, Content, Encoded, Undecodable, decode, sha256_of
from evflow.store.serializers import Serialized, deserialize, serialize

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.integers(-(2**63), 2**64 - 1), inner, max_size=5),
    max_leaves=30,
)


class Colour(enum.Enum):
    RED = 1


class Word(str):
    __slots__ = ()


@dataclass
class Point:
    x: int
    tags: list[str] = field(default_factory=list)


class Refusing:
    def __reduce_ex__(self, protocol: object) -> Any:
        raise ValueError("I stay here")


def contents(serialized: Serialized, *, compressed: bool = True) -> Content:
    """What a reader has, after a way over a disk."""
    encoded = Encoded(serialized.chunks)
    stored = memoryview(bytearray(b"".join(encoded)))
    return decode(encoded.encoding, stored, encoded.size) if compressed else Content([memoryview(bytearray(b"".join(serialized.chunks)))])


def there_and_back(value: Any, serializer: str | None = None) -> Any:
    serialized = serialize("value", value)
    assert serializer in {None, serialized.serializer}
    return deserialize(serialized.serializer, contents(serialized))


def same(one: Any, other: Any) -> bool:
    """Equal and of the same types, all the way down; NaN is NaN and -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (one == other and math.copysign(1, one) == math.copysign(1, other))
    return bool(one == other)


# --- JSON-like values ------------------------------------------------------------------------------------


@given(PLAIN)
@example([{"a": {1: [None, True, 1.5, "x", b"y"]}}])
def test_json_like_values_come_back_the_same_without_pickle(value: Any) -> None:
    try:
        "".join([str(value)]).encode()
    except UnicodeEncodeError:
        return
    assert same(there_and_back(value, "msgpack"), value)


@pytest.mark.parametrize("size", [0, 100, 70_000, 2_000_000])
def test_bytes_and_text_of_every_size_come_back(size: int) -> None:
    assert there_and_back(bytes(size), "msgpack") == bytes(size)
    assert there_and_back("ä" * size, "msgpack") == "ä" * size


def test_large_bytes_are_stored_from_their_own_memory() -> None:
    value = bytes(1_000_000)
    assert any(chunk is value for chunk in serialize("value", value).chunks)


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        [(1,)],
        {(1, 2): 3},
        {True: 1},
        {1.5: 1},
        {None: 1},
        {1, 2},
        2**64,
        -(2**63) - 1,
        [2**70],
        Word("x"),
        {Word("x"): 1},
        Colour.RED,
        [Colour.RED],
        OrderedDict(a=1),
        defaultdict(int, a=1),
        Counter("aab"),
        bytearray(b"x"),
        1 + 2j,
        "\ud800",
        ["\ud800"],
        Point(1, ["a"]),
        Decimal("1.50"),
        datetime(2026, 1, 2, tzinfo=UTC),
        Path("x"),
        range(3),
        list(range(200_000)),
        np.float64(1.5),
        [np.int8(1)],
        int,
        ValueError("x", 1).args,
    ],
    ids=repr,
)
def test_what_msgpack_would_change_is_pickled(value: Any) -> None:
    back = there_and_back(value, "pickle5")
    assert back == value
    assert type(back) is type(value)


def test_a_container_that_is_there_twice_is_one_afterwards() -> None:
    inner: list[int] = [1]
    back = there_and_back({"a": inner, "b": inner}, "pickle5")
    assert back["a"] is back["b"]


def test_a_container_in_itself_comes_back() -> None:
    value: list[Any] = [1]
    value.append(value)
    back = there_and_back(value, "pickle5")
    assert back[1] is back


def test_equal_but_separate_containers_need_no_pickle() -> None:
    assert there_and_back([[1], [1], {}, {}], "msgpack") == [[1], [1], {}, {}]


@pytest.mark.parametrize(("depth", "serializer"), [(10, "msgpack"), (200, "msgpack"), (201, "pickle5"), (250, "pickle5")])
def test_nesting_that_a_reader_of_msgpack_may_refuse_is_pickled(depth: int, serializer: str) -> None:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    assert there_and_back(value, serializer) == value


def test_a_dict_keeps_its_order() -> None:
    assert list(there_and_back({"b": 1, "a": 2})) == ["b", "a"]


# --- arrays and frames -----------------------------------------------------------------------------------

ARRAYS = {
    "doubles": np.random.default_rng(1).random(50_000),
    "zeros": np.zeros((300, 400)),
    "small": np.arange(5),
    "empty": np.zeros((0, 3)),
    "scalar": np.array(3.5),
    "fortran": np.asfortranarray(np.arange(20_000.0).reshape(100, 200)),
    "strided": np.arange(100_000)[::3],
    "reversed": np.arange(100_000)[::-1],
    "bytes": np.arange(300_001, dtype=np.uint8),
    "bools": np.ones(100_000, dtype=bool),
    "complex": np.ones(10_000, dtype=complex),
    "records": np.zeros(5_000, dtype=[("a", "i4"), ("b", "f8")]),
    "text": np.array(["a", "bcd"] * 10_000),
    "objects": np.array([1, "a", None, [2]], dtype=object),
    "times": np.arange("2020-01-01", "2026-01-01", dtype="datetime64[h]"),
    "big endian": np.arange(20_000, dtype=">i8"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_equal_and_writable(name: str) -> None:
    array = ARRAYS[name]
    back = there_and_back(array, "pickle5")
    np.testing.assert_array_equal(back, array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.flags.writeable
    if array.flags.c_contiguous or array.flags.f_contiguous:
        assert (back.flags.c_contiguous, back.flags.f_contiguous) == (array.flags.c_contiguous, array.flags.f_contiguous)


def test_an_arrays_memory_is_stored_as_it_is_and_loaded_from_where_it_was_read() -> None:
    array = np.random.default_rng(1).random(100_000)
    serialized = serialize("value", array)
    assert any(np.shares_memory(np.frombuffer(chunk, np.uint8), array) for chunk in serialized.chunks if len(chunk) == array.nbytes)
    memory = bytearray(b"".join(serialized.chunks))
    back = deserialize("pickle5", Content([memoryview(memory)]))
    assert np.shares_memory(back, np.frombuffer(memory, np.uint8))


def test_the_memory_of_each_array_begins_at_a_multiple_of_64() -> None:
    memory = np.zeros(1 << 20, dtype=np.uint8)
    start = -memory.ctypes.data % 4096
    data = b"".join(
        serialize("value", [np.ones(1001, dtype=np.uint8) * 0 + 1, np.ones(5_001, np.uint8), np.ones(7_003, np.uint8), "x"]).chunks
    )
    place = memory[start : start + len(data)]
    place[:] = np.frombuffer(data, np.uint8)
    loaded = deserialize("pickle5", Content([place.data]))
    assert [array.ctypes.data % 64 for array in loaded[1:3]] == [0, 0]


def test_a_read_only_array_stays_read_only() -> None:
    array = np.arange(10_000)
    array.flags.writeable = False
    assert not there_and_back(array).flags.writeable


def test_many_small_arrays_are_not_mostly_padding() -> None:
    arrays = [np.arange(3) + index for index in range(1000)]
    serialized = serialize("value", arrays)
    assert serialized.size < 200_000
    assert all(array.flags.writeable for array in there_and_back(arrays))


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    size = 20_000
    made = pd.DataFrame(
        {
            "number": np.arange(size),
            "double": rng.random(size),
            "word": np.array(["aa", "bb", None], dtype=object)[rng.integers(0, 3, size)],
            "when": pd.date_range("2020", periods=size, freq="h", tz="UTC"),
        }
    )
    made["kind"] = made["word"].astype("category")
    return made


@pytest.mark.parametrize("index", ["number", "when", "word"])
def test_a_data_frame_comes_back_equal_and_can_be_changed(index: str) -> None:
    original = frame().set_index(index)
    back = there_and_back(original, "pickle5")
    pd.testing.assert_frame_equal(back, original)
    back["double"] += 1
    back.iloc[3, 0] = back.iloc[4, 0]


def test_a_polars_frame_comes_back_equal() -> None:
    original = pl.DataFrame({"a": range(1000), "b": ["x", None] * 500})
    assert there_and_back(original).equals(original)


# --- compression -----------------------------------------------------------------------------------------


def test_what_does_not_shrink_is_not_compressed() -> None:
    assert Encoded(serialize("value", np.random.default_rng(1).random(100_000)).chunks).encoding == RAW


def test_what_shrinks_is_compressed_and_has_the_digest_of_what_it_was() -> None:
    array = np.arange(1_000_000)
    serialized = serialize("value", array)
    encoded = Encoded(serialized.chunks)
    stored = b"".join(encoded)
    assert encoded.encoding == ZSTD
    assert len(stored) < array.nbytes / 2
    assert encoded.digest == sha256_of(serialized.chunks)
    content = decode(ZSTD, memoryview(stored), serialized.size)
    assert content.digests()[1] == encoded.digest
    np.testing.assert_array_equal(deserialize("pickle5", content), array)


def test_each_array_of_a_value_is_compressed_or_not_for_itself() -> None:
    noise, calm = np.random.default_rng(1).random(200_000), np.zeros(3_000_001, dtype=np.int8)
    encoded = Encoded(serialize("value", {"noise": noise, "calm": calm}).chunks)
    stored = b"".join(encoded)
    assert encoded.encoding == ZSTD
    assert noise.nbytes < len(stored) < noise.nbytes + 10_000
    assert noise.tobytes() in stored


@given(st.lists(st.tuples(st.binary(max_size=300), st.sampled_from([1, 1, 30, 3000])), max_size=6), st.data())
def test_any_chunks_come_back_from_any_encoding_and_any_part_of_them(pieces: list[tuple[bytes, int]], data: st.DataObject) -> None:
    chunks = [piece * times for piece, times in pieces]
    whole = b"".join(chunks)
    encoded = Encoded(chunks)
    content = decode(encoded.encoding, memoryview(b"".join(encoded)), encoded.size)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert len(content) == len(whole)
    assert bytes(content.joined()) == whole
    assert bytes(content[start:stop]) == whole[start:stop]
    leading = data.draw(st.integers(0, len(whole)))
    assert content.digests(leading) == (sha256_of([whole[:leading]]), sha256_of([whole]))


@pytest.mark.parametrize("at", [0, 100, -1, -2, -5, -8, -20])
def test_damaged_compressed_bytes_are_never_taken_for_the_value(at: int) -> None:
    serialized = serialize("value", np.arange(100_000))
    encoded = Encoded(serialized.chunks)
    stored = bytearray(b"".join(encoded))
    stored[at] ^= 0xFF
    try:
        content = decode(encoded.encoding, memoryview(stored), encoded.size)
    except Undecodable:
        return
    assert content.digests()[1] != encoded.digest


def test_a_form_of_a_later_version_is_said_so() -> None:
    with pytest.raises(Undecodable, match="not known to this version"):
        deserialize("pickle9", Content([memoryview(b"x")]))
    with pytest.raises(Undecodable, match="not known to this version"):
        decode("brotli", memoryview(b"x"), 1)


# --- classes of __main__ ---------------------------------------------------------------------------------


@pytest.fixture
def flows_main(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that was `__main__` where a value was made, and is not here."""
    module = ModuleType("__main__")
    exec("class Outer:\n    class Net:\n        def __init__(self, size): self.size = size\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def test_a_class_of_another_main_is_found_where_the_caller_says(flows_main: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    serialized = serialize("value", flows_main.Outer.Net(3))
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    with pytest.raises(AttributeError):
        deserialize("pickle5", contents(serialized))
    loaded = deserialize("pickle5", contents(serialized), lambda: flows_main)
    assert (type(loaded), loaded.size) == (flows_main.Outer.Net, 3)


def test_a_class_that_main_has_is_taken_from_there(flows_main: ModuleType) -> None:
    serialized = serialize("value", flows_main.Outer.Net(3))

    def never() -> ModuleType:
        raise AssertionError("the code package was asked for")

    assert deserialize("pickle5", contents(serialized), never).size == 3


# --- what cannot be stored -------------------------------------------------------------------------------


def local_class() -> object:
    class Local:
        pass

    return Local()


class Enormous:
    def __reduce__(self) -> Any:
        raise MemoryError


def test_an_artifact_for_whose_bytes_there_is_too_little_memory_is_named() -> None:
    with pytest.raises(MemoryError, match="too little memory to store 'weights', of the type Enormous"):
        serialize("weights", Enormous())


def refusal(value: object) -> ArtifactNotSerializable:
    with pytest.raises(ArtifactNotSerializable) as raised:
        serialize("model", value)
    assert raised.value.hint
    assert "'model'" in raised.value.message
    return raised.value


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


async def coroutine() -> None: ...


def module_level() -> None: ...


def test_everything_that_belongs_to_a_process_is_refused_by_its_kind(closing: contextlib.ExitStack, tmp_path: Path) -> None:
    awaitable = coroutine()
    closing.callback(awaitable.close)
    kinds: dict[str, Any] = {
        "lambda": lambda: 1,
        "function 'module_level'": module_level,
        "method 'Counter.most_common'": Counter().most_common,
        "defined inside a function": local_class(),
        "an open file": closing.enter_context((tmp_path / "x").open("w")),
        "a generator": (index for index in range(3)),
        "an open socket": closing.enter_context(socket.socket()),
        "an open database": closing.enter_context(contextlib.closing(sqlite3.connect(":memory:"))),
        "a lock": threading.Lock(),
        "a thread": threading.Thread(),
        "the module 'sys'": sys,
        "a coroutine": awaitable,
        "I stay here": Refusing(),
    }
    for said, value in kinds.items():
        error = refusal(value)
        assert said in error.message, (said, error.message)
        assert error.part == "model"


def test_the_flow_itself_is_refused() -> None:
    flow_spec = type("FlowSpec", (), {"__module__": "evflow.flow.flowspec"})
    flow = type("TrainFlow", (flow_spec,), {"__module__": "__main__"})()
    assert "the flow itself" in refusal(flow).message


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"hooks": [1, 2, lambda: 1]}, "model['hooks'][2]"),
        ([SimpleNamespace(a=(1, {"b": lambda: 1}))], "model[0].a[1]['b']"),
        (Point(1, [lambda: 1]), "model.tags[0]"),  # type: ignore[list-item]
        ({(1, Refusing()): 2}, "model (the key"),
        ({Refusing()}, "model (the member"),
        (defaultdict(lambda: 1), "model (argument 0)"),
        (defaultdict(threading.Lock, a=threading.Lock()), "model['a']"),
        (np.array([1, lambda: 1], dtype=object), "model"),
        (OrderedDict(a=[sys]), "model['a'][0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_part_that_cannot_be_stored_is_named(value: object, part: str) -> None:
    assert refusal(value).part.startswith(part)


def test_a_value_that_contains_itself_is_searched_to_an_end() -> None:
    value: dict[str, Any] = {}
    value.update({"self": value, "list": [value], "lock": threading.Lock()})
    assert refusal(value).part == "model['lock']"


def test_the_search_for_the_part_is_bounded() -> None:
    value: list[Any] = [[index] for index in range(5_000)]
    value.append(Refusing())
    assert "model" in refusal(value).part


def test_nesting_too_deep_for_pickle_is_said_so() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert "nested too deeply" in refusal(value).message
    while value:
        value = value[0]


def test_a_function_inside_of_a_value_is_stored_by_its_name() -> None:
    assert there_and_back({"loss": math.sqrt, "kind": Point})["loss"] is math.sqrt


def test_pickles_are_of_protocol_5_whatever_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle, "DEFAULT_PROTOCOL", 4)
    assert serialize("value", (1,)).chunks[0][:2] == b"\x80\x05"
