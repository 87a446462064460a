"""What an attempt is told survives the way to it."""

import sys
from dataclasses import replace

import pytest

from evflow.worker import frames
from evflow.worker.method import UNFORKABLE, StartMethodUnknown, choose, explain
from evflow.worker.spec import AttemptOrder, RunContext

CONTEXT = RunContext("Flow", 3, "/f.py", "run:Flow:3", "unix:///s", "file:///o", b"\x01" * 32, tags=("a", "b"), options={"with": ["retry"]})
ORDER = AttemptOrder(
    "join", 9, 2, mode="catch", last=False, crash="killed", parents=(("a", 1, b"x"), ("b", 2, b"y")), takes_inputs=True,
    frames=(("start", 1, "foreach", 0, 2, b"items", "xs"),), iteration=4, timeout_s=1.5,
    joined=("s", 3, "split", 0, 2, None, None),
)  # fmt: skip


def test_context_and_order_come_back_as_they_were() -> None:
    assert RunContext.unpack(CONTEXT.pack()) == replace(CONTEXT, options={"with": ("retry",)})
    assert AttemptOrder.unpack(ORDER.pack()) == ORDER


def test_a_path_that_is_not_utf8_comes_back_as_it_was() -> None:
    context = replace(CONTEXT, flow_file="/caf\udce9/f.py", options={})
    assert RunContext.unpack(context.pack()) == context


def test_fields_of_a_later_version_are_dropped() -> None:
    import msgpack

    values = msgpack.unpackb(ORDER.pack())
    assert AttemptOrder.unpack(msgpack.packb([*values, "later"])) == ORDER


def test_fields_that_an_earlier_version_did_not_know_have_their_defaults() -> None:
    import msgpack

    assert AttemptOrder.unpack(msgpack.packb(["start", 1, 0])) == AttemptOrder("start", 1, 0)


def test_frames_are_found_wherever_the_stream_is_cut() -> None:
    values = [("launch", "Flow/1", 1, 0, b"\x00" * 300), ("cancel", "Flow/1", 1, 0, 2.5)]
    data = b"".join(frames.frame(*each) for each in values)
    reader = frames.FrameReader()
    found = [each for byte in data for each in reader.feed(bytes([byte]))]
    assert found == values


def test_a_flow_that_imports_what_does_not_survive_a_fork_is_spawned_and_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in UNFORKABLE:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("evflow.worker.method._python_threads", lambda: 0)
    monkeypatch.setattr(sys, "platform", "linux")
    assert choose("auto") == ("fork", "")
    monkeypatch.setitem(sys.modules, "polars", sys)
    assert choose("auto").method == "spawn"
    assert "imports polars" in explain(choose("auto"))
    assert choose("fork").method == "fork", "who asks for it gets it"


def test_threads_of_the_flow_are_a_reason_to_spawn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in UNFORKABLE:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("evflow.worker.method._python_threads", lambda: 2)
    assert "2 threads" in choose("auto").why


def test_another_start_method_is_refused() -> None:
    with pytest.raises(StartMethodUnknown, match="'vfork'"):
        choose("vfork")
