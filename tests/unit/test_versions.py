"""Schedulers of two versions: which logs an older one leaves alone, and who owns the shards."""

import msgpack
import pytest
from hypothesis import given, strategies as st

from evflow.core import events as ev, versions
from evflow.core.codec import encode
from evflow.core.versions import GENERATION, is_of_later, parsed
from evflow.log.keys import SHARED_SHARDS, shared_shards
from evflow.log.shard_sets import announced, generation_of, may_own
from evflow_scheduler.shares import assigned, is_superseded

NOW = versions.shown(GENERATION)
LATER = versions.shown((GENERATION[0] + 1, *GENERATION[1:]))
KNOWN = encode(ev.RunCancelRequested("why"), turn=1, at_us=1, principal="user:ada", cause=0)


def named(number: int, generation: str, may: tuple[int, ...] = ()) -> str:
    return announced(f"box:{number}:1:ff", may, generation)


def test_what_this_version_writes_it_can_go_on_with() -> None:
    assert is_of_later(KNOWN) == ""


def test_an_unknown_kind_and_an_unknown_field_are_a_later_version_s() -> None:
    values: list[object] = msgpack.unpackb(KNOWN)
    assert is_of_later(msgpack.packb(["RunTeleported", *values[1:]])) == "an event of an unknown kind, RunTeleported"
    assert is_of_later(msgpack.packb([*values, 7])) == "RunCancelRequested with 1 unknown field"


def test_a_name_says_what_its_scheduler_can_go_on_with_beside_its_shards() -> None:
    for may in ((), (1, 2)):
        name = named(1, NOW, may)
        assert parsed(generation_of(name)) == GENERATION
        assert may_own(name) == (may or tuple(range(SHARED_SHARDS)))


@pytest.mark.parametrize("text", ["", "2", "a.b.c", "2.3", "-1.2.3", "9" * 5_000 + ".1.1"])
def test_who_says_nothing_that_is_known_is_the_oldest(text: str) -> None:
    assert parsed(text) == (0, 0, 0)


def test_an_older_scheduler_owns_nothing_while_a_later_one_lives_and_all_when_it_is_alone() -> None:
    old, new = named(1, NOW), named(2, LATER)
    assert assigned(old, [old, new]) == frozenset()
    assert assigned(new, [old, new]) == frozenset(shared_shards())
    assert assigned(old, [old]) is None
    assert (is_superseded(old, [old, new]), is_superseded(new, [old, new]), is_superseded(old, [old])) == (True, False, False)


def test_an_older_one_keeps_what_no_later_one_may_own() -> None:
    old, new = named(1, NOW), named(2, LATER, (0, 1))
    assert assigned(old, [old, new]) == frozenset(shared_shards()[2:])


@given(st.lists(st.tuples(st.sampled_from(["", NOW, LATER]), st.sets(st.integers(0, SHARED_SHARDS - 1))), min_size=1, max_size=6))
def test_each_shard_is_one_scheduler_s_and_of_the_latest_version_that_may_own_it(fleet: list[tuple[str, set[int]]]) -> None:
    living = {named(number, generation, tuple(may)): generation for number, (generation, may) in enumerate(fleet)}
    shares = {name: assigned(name, living) for name in living}
    if None in shares.values():
        assert set(shares.values()) == {None}
        assert len(set(living.values())) == 1
        return
    for number, shard in enumerate(shared_shards()):
        owners = [name for name, share in shares.items() if share is not None and shard in share]
        able = [name for name in living if number in may_own(name)]
        assert len(owners) == bool(able)
        for owner in owners:
            assert parsed(living[owner]) == max(parsed(living[name]) for name in able)
