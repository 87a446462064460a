"""A task's artifacts: saved once, inherited by reference, loaded one by one, changed only when they changed."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from evflow.store import FileStore, ObjectDamaged, ObjectMissing
from evflow.store.artifacts import (
    ArtifactNotLoadable,
    ArtifactNotSerializable,
    ArtifactView,
    Code,
    Saved,
    load_entry,
    manifest_objects,
    save,
    verify_object,
)


class CountingStore(FileStore):
    """Says what was read and written."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[tuple[bytes, int, int | None]] = []
        self.puts = 0

    def put(self, chunks: Any) -> Any:
        self.puts += 1
        return super().put(chunks)

    def get(self, digest: bytes, offset: int = 0, length: int | None = None) -> memoryview:
        self.reads.append((digest, offset, length))
        return super().get(digest, offset, length)

    def files(self) -> int:
        return len(list(self.digests()))


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "store")


def view(store: FileStore, saved: Saved) -> ArtifactView:
    return ArtifactView.open(store, saved.manifest)


def loaded(store: FileStore, saved: Saved) -> dict[str, Any]:
    opened = view(store, saved)
    return {name: opened.load(name) for name in opened.names()}


def noise(size: int = 300_000) -> np.ndarray:
    return np.random.default_rng(size).random(size)


def test_what_is_saved_is_loaded(store: CountingStore) -> None:
    values = {"x": 1, "word": "ä", "pair": (1, 2), "noise": noise(), "calm": np.zeros(500_000), "middle": noise(30_000), "nothing": None}
    back = loaded(store, save(store, values))
    assert list(back) == sorted(values)
    for name, value in values.items():
        np.testing.assert_array_equal(back[name], value)
        assert type(back[name]) is type(value)


def test_a_name_that_is_not_there_is_a_key_error(store: CountingStore) -> None:
    opened = view(store, save(store, {"x": 1}))
    assert "y" not in opened
    assert 5 not in opened
    for ask in (opened.load, opened.entry):
        with pytest.raises(KeyError):
            ask("y")


def test_an_entry_says_what_an_artifact_is(store: CountingStore) -> None:
    opened = view(store, save(store, {"x": {"a": 1}, "frame": pd.DataFrame({"a": [1]}), "big": noise()}))
    assert (opened.entry("x").serializer, opened.entry("x").type) == ("msgpack", "dict")
    assert opened.entry("frame").type == "pandas.DataFrame"
    assert opened.entry("big").size > 2_400_000
    assert load_entry(store, opened.entry("x")) == {"a": 1}


def test_a_thousand_small_artifacts_are_one_file(store: CountingStore) -> None:
    values = {f"a{index}": {"index": index} for index in range(1000)}
    saved = save(store, values)
    assert (store.files(), saved.artifacts) == (1, 1000)
    assert loaded(store, saved) == values


def test_a_thousand_middling_artifacts_are_a_few_files(store: CountingStore) -> None:
    values = {f"a{index}": os.urandom(100_000) for index in range(1000)}
    saved = save(store, values)
    assert store.files() <= 10
    opened = view(store, saved)
    assert all(opened.load(name) == values[name] for name in ("a0", "a1", "a500", "a999"))


def test_opening_a_manifest_reads_it_alone_and_loading_reads_the_artifact_alone(store: CountingStore) -> None:
    saved = save(store, {"small": 1, "big": noise(), "other": noise(300_001)})
    opened = view(store, saved)
    assert [digest for digest, _, _ in store.reads] == [saved.manifest]
    opened.load("small")
    assert len(store.reads) == 1
    opened.load("big")
    assert [digest for digest, _, _ in store.reads[1:]] == [opened.entry("big").object]


def test_a_loaded_value_can_be_changed_and_the_next_load_does_not_see_it(store: CountingStore) -> None:
    opened = view(
        store, save(store, {"list": [1], "small": np.arange(10), "packed": noise(60_000), "big": noise(), "calm": np.zeros(500_000)})
    )
    for name in opened.names():
        first = opened.load(name)
        first[0] = 77
        assert opened.load(name)[0] != 77


def test_what_a_task_does_not_touch_is_inherited_unread(store: CountingStore) -> None:
    before = save(store, {"big": noise(), "small": [1, 2]})
    opened = view(store, before)
    reads = len(store.reads)
    after = save(store, {"new": 5}, opened)
    assert (len(store.reads), after.artifacts) == (reads, 3)
    assert view(store, after).entry("big").digest == opened.entry("big").digest
    assert loaded(store, after)["small"] == [1, 2]


def test_a_task_that_adds_nothing_has_its_parents_manifest_and_writes_nothing(store: CountingStore) -> None:
    before = save(store, {"x": [1]})
    puts = store.puts
    assert save(store, {}, view(store, before)) == before
    assert store.puts == puts


def strided() -> np.ndarray:
    return np.arange(900_000).reshape(300, 3000)[::2, ::3]


def forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier  # takes seconds, of every process that collects the tests

    made = RandomForestClassifier(3, random_state=1)
    made.fit(np.arange(40).reshape(20, 2), np.arange(20) % 2)
    return made


VALUES: dict[str, Callable[[], Any]] = {
    "number": lambda: 1.5,
    "list": lambda: [1, {"a": 2}],
    "tuple": lambda: (1, "a", "a"),
    "set": lambda: {"b", "a", "c"},
    "array": noise,
    "small array": lambda: np.arange(10),
    "strided": strided,
    "calm": lambda: np.zeros(500_000),
    "frame": lambda: pd.DataFrame({"a": np.arange(5000), "b": noise(5000), "c": ["x", "y"] * 2500}),
    "large frame": lambda: pd.DataFrame({"a": np.arange(300_000), "b": noise(), "c": ["x", "y"] * 150_000}),
    "indexed": lambda: pd.DataFrame({"b": noise(5000)}, index=pd.date_range("2020", periods=5000, freq="h")),
    "forest": forest,
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_was_only_read_stays_the_artifact_that_it_was(store: CountingStore, name: str) -> None:
    before = save(store, {"value": VALUES[name]()})
    opened = view(store, before)
    assert save(store, {"value": opened.load("value")}, opened) == before


@pytest.mark.parametrize("name", ["list", "array", "small array", "calm", "frame", "large frame"])
def test_a_value_that_was_changed_in_place_is_a_new_artifact(store: CountingStore, name: str) -> None:
    before = save(store, {"value": VALUES[name]()})
    opened = view(store, before)
    value = opened.load("value")
    if isinstance(value, pd.DataFrame):
        value.loc[2345, "b"] = 5.0
    else:
        value[1] = 5
    after = save(store, {"value": value}, opened)
    assert view(store, after).entry("value").digest != opened.entry("value").digest
    assert str(loaded(store, after)["value"]) == str(value)
    assert str(loaded(store, before)["value"]) == str(VALUES[name]())


def test_a_frame_whose_columns_were_renamed_is_a_new_artifact(store: CountingStore) -> None:
    before = save(store, {"value": VALUES["frame"]()})
    opened = view(store, before)
    renamed = opened.load("value").rename(columns={"a": "z"})
    after = save(store, {"value": renamed}, opened)
    assert list(loaded(store, after)["value"].columns) == ["z", "b", "c"]


def test_a_frame_that_a_join_read_through_an_input_stays_the_artifact_that_it_was(store: CountingStore) -> None:
    member = view(store, save(store, {"frame": VALUES["frame"]()}))
    passed = {"frame": member.entry("frame")}
    after = save(store, {"frame": member.load("frame")}, passed, read_through=[member])
    assert view(store, after).entry("frame").digest == member.entry("frame").digest


def test_equal_values_of_two_tasks_have_one_digest(store: CountingStore) -> None:
    one = view(store, save(store, {"x": 1, "big": noise()}))
    other = view(store, save(store, {"y": 2, "big": noise(), "z": np.arange(3)}))
    assert one.entry("big").digest == other.entry("big").digest
    assert one.entry("x").digest != other.entry("y").digest


def test_a_removed_name_is_gone_for_good(store: CountingStore) -> None:
    before = save(store, {"x": 1, "y": 2})
    after = save(store, {"z": 3}, view(store, before), removed=["y", "never"])
    assert loaded(store, after) == {"x": 1, "z": 3}
    assert "y" not in view(store, after)


def test_a_name_that_was_removed_and_set_again_has_the_new_value(store: CountingStore) -> None:
    before = save(store, {"x": 1})
    assert loaded(store, save(store, {"x": 2}, view(store, before), removed=["x"])) == {"x": 2}


def test_many_inherited_artifacts_are_named_by_a_base(store: CountingStore) -> None:
    before = save(store, {f"a{index}": index for index in range(1000)})
    after = save(store, {"new": 1, "a5": "five"}, view(store, before), removed=["a6"])
    opened = view(store, after)
    assert (store.size(after.manifest) or 0) < 1000
    assert (opened.depth, after.artifacts, len(opened)) == (1, 1000, 1000)
    assert (opened.load("a5"), opened.load("a7"), "a6" in opened, "new" in opened) == ("five", 7, False, True)


def test_a_chain_of_bases_is_made_flat_before_it_is_long(store: CountingStore) -> None:
    values: dict[str, Any] = {f"a{index}": index for index in range(100)}
    saved = save(store, values)
    depths: list[int] = []
    for turn in range(30):
        gone = f"a{turn}"
        values[f"n{turn}"] = turn
        del values[gone]
        saved = save(store, {f"n{turn}": turn}, view(store, saved), removed=[gone])
        depths.append(view(store, saved).depth)
        assert loaded(store, saved) == values
        assert saved.artifacts == len(values)
    assert max(depths) == 8


NAMES = st.sampled_from("abcdefgh")
STEPS = st.lists(
    st.tuples(st.dictionaries(NAMES, st.integers(0, 3) | st.lists(st.integers(0, 3))), st.sets(NAMES), st.sets(NAMES)), max_size=12
)


@given(steps=STEPS, flat=st.integers(0, 5), inline=st.sampled_from([0, 3, 1000]))
def test_any_chain_of_tasks_has_what_a_dict_would_have(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[dict[str, Any], set[str], set[str]]], flat: int, inline: int
) -> None:
    store = CountingStore(tmp_path_factory.getbasetemp() / "chains")
    model: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evflow.store.artifacts.FLAT_ENTRIES", flat)
        patch.setattr("evflow.store.artifacts.INLINE_BYTES", inline)
        opened = view(store, save(store, {}))
        for values, read, removed in steps:
            touched = {name: opened.load(name) for name in read if name in opened}
            model = {name: value for name, value in model.items() if name not in removed} | touched | values
            saved = save(store, touched | values, opened, removed=removed)
            assert loaded(store, saved) == model
            assert saved.artifacts == len(model)
            opened = view(store, saved)
            assert saved.size_bytes == sum(opened.entry(name).size for name in opened.names())


@pytest.mark.parametrize("name", ["small", "packed", "big", "calm"])
def test_damage_anywhere_in_an_artifact_is_found_before_it_is_used(store: CountingStore, name: str) -> None:
    values = {"small": [1, 2, 3], "packed": os.urandom(100_000), "big": noise(), "calm": np.zeros(500_000)}
    saved = save(store, values)
    entry = view(store, saved).entry(name)
    path = Path(store.where(entry.object))
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[entry.offset + min(10, entry.length // 2)] ^= 1
    path.write_bytes(content)
    with pytest.raises(ObjectDamaged) as raised:
        view(store, saved).load(name)
    assert str(path) in raised.value.message


def test_damage_of_one_packed_artifact_leaves_the_others_readable(store: CountingStore) -> None:
    values = {f"p{index}": os.urandom(100_000) for index in range(3)}
    saved = save(store, values)
    entry = view(store, saved).entry("p1")
    path = Path(store.where(entry.object))
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(entry.offset)
        file.write(b"\0" * 100)
    opened = view(store, saved)
    assert (opened.load("p0"), opened.load("p2")) == (values["p0"], values["p2"])
    with pytest.raises(ObjectDamaged):
        opened.load("p1")


def test_the_objects_of_a_manifest_are_all_that_its_artifacts_need(store: CountingStore) -> None:
    first = save(store, {**{f"a{index}": index for index in range(100)}, "big": noise(), "packed": os.urandom(100_000)})
    save(store, {"unrelated": 1})
    last = save(store, {"more": noise(300_001)}, view(store, first))
    needed = set(manifest_objects(store, last.manifest))
    values = loaded(store, last)
    for digest in set(store.digests()) - needed:
        Path(store.where(digest)).unlink()
    assert len(loaded(store, last)) == len(values)
    assert all(verify_object(store, digest) > 0 for digest in needed)
    for digest in needed:
        Path(store.where(digest)).unlink()
        with pytest.raises(ObjectMissing):
            loaded(store, last)
        with pytest.raises(ObjectMissing):
            verify_object(store, digest)
        break


def test_an_artifact_that_cannot_be_stored_fails_the_save_and_no_other(store: CountingStore) -> None:
    before = save(store, {"x": 1})
    with pytest.raises(ArtifactNotSerializable, match=r"model\['lock'\]"):
        save(store, {"x": 2, "model": {"lock": threading.Lock()}}, view(store, before))
    assert loaded(store, before) == {"x": 1}


# --- classes and modules that are not here ---------------------------------------------------------------


def main_with_class() -> ModuleType:
    module = ModuleType("__main__")
    exec("class Net:\n    size = 3\n", module.__dict__)
    return module


def test_a_class_of_main_is_loaded_from_the_code_that_the_manifest_names(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    module = main_with_class()
    code = Code("flow.py", b"p" * 32)
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "__main__", module)
        saved = save(store, {"net": module.Net(), "plain": (1,)}, code=code)
        saved = save(store, {"more": 1}, view(store, saved), code=Code("other.py"))
    asked: list[Code | None] = []

    def resolve(where: Code | None) -> ModuleType:
        asked.append(where)
        return module

    opened = ArtifactView.open(store, saved.manifest, main=resolve)
    assert opened.load("net").size == 3
    assert asked == [code]
    assert opened.entry("plain").code is None


def test_a_class_of_main_that_is_nowhere_is_said_with_the_file_that_has_it(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    module = main_with_class()
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "__main__", module)
        saved = save(store, {"net": module.Net()}, code=Code("flow.py", b"p" * 32))
    with pytest.raises(ArtifactNotLoadable) as raised:
        view(store, saved).load("net")
    assert "'net' (__main__.Net)" in raised.value.message
    assert "flow.py" in raised.value.hint
    assert "70707070" in raised.value.hint


def test_a_module_that_is_not_installed_is_named(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("somewhere_else")
    exec("class Net: pass\n", module.__dict__)
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "somewhere_else", module)
        saved = save(store, {"net": module.Net()})
    with pytest.raises(ArtifactNotLoadable) as raised:
        view(store, saved).load("net")
    assert "somewhere_else" in raised.value.hint
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)
