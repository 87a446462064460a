"""Which shards a scheduler may own: as people write it, and as schedulers tell each other."""

import pytest
from hypothesis import given, strategies as st

from evflow import config
from evflow.log.keys import SHARED_SHARDS, shared_shards
from evflow.log.shard_sets import announced, may_own, parsed, shown
from evflow_scheduler.shares import Holding, assigned, moves

OWNER = "box:812:1700000000000000:ff"
NUMBERS = st.sets(st.integers(0, SHARED_SHARDS - 1), min_size=1)


@pytest.mark.parametrize(("text", "numbers"), [("0-3,6", (0, 1, 2, 3, 6)), ("7", (7,)), (" 2 , 0-1", (0, 1, 2)), ("5,5", (5,))])
def test_numbers_and_ranges_are_read(text: str, numbers: tuple[int, ...]) -> None:
    assert parsed(text) == numbers


@pytest.mark.parametrize("text", ["", ",", "8", "0-8", "3-1", "a", "-1", "1-", "0-3;6", "s0", "1.5", "²", "9" * 5000])
def test_what_names_no_shards_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whoever reads a setting says what is wrong
        parsed(text)


@given(NUMBERS)
def test_what_is_shown_reads_as_the_same(numbers: set[int]) -> None:
    assert parsed(shown(numbers)) == tuple(sorted(numbers))
    assert may_own(announced(OWNER, numbers)) == tuple(sorted(numbers))


def test_a_scheduler_that_may_own_all_has_the_name_that_it_always_had() -> None:
    assert announced(OWNER, ()) == announced(OWNER, range(SHARED_SHARDS)) == OWNER
    assert may_own(OWNER) == may_own("elsewhere:1") == may_own(f"{OWNER}:something later") == tuple(range(SHARED_SHARDS))


@pytest.mark.parametrize("given", ["0-3,6", [0, 1, 2, 3, 6], "0,1,2,3,6"])
def test_the_setting_takes_a_text_or_a_list(given: object) -> None:
    assert config.SETTINGS["shards"].kind.read(given) == (0, 1, 2, 3, 6)


@given(st.lists(NUMBERS, min_size=1, max_size=6))
def test_each_shard_that_somebody_may_own_is_one_scheduler_s(sets: list[set[int]]) -> None:
    living = [announced(f"box:{number}:1:ff", may) for number, may in enumerate(sets)]
    shares = [assigned(name, living) for name in living]
    if all(len(may) == SHARED_SHARDS for may in sets):
        assert shares == [None] * len(sets)
        return
    owned = [shard for share in shares if share is not None for shard in share]
    assert sorted(owned) == sorted(shared_shards()[number] for number in set().union(*sets))
    for share, may in zip(shares, sets, strict=True):
        assert share is not None
        assert share <= {shared_shards()[number] for number in may}


def test_those_that_may_own_the_same_share_it_evenly() -> None:
    living = [announced(f"box:{number}:1:ff", range(6)) for number in range(3)] + [announced("gpu:1:1:ff", (6, 7))]
    assert [len(assigned(name, living) or ()) for name in living] == [2, 2, 2, 2]


def test_one_that_may_own_all_leaves_to_others_what_they_may() -> None:
    mine, other = OWNER, announced("gpu:1:1:ff", (0, 1))
    assert assigned(mine, [mine, other]) == frozenset(shared_shards()[2:])
    assert assigned(other, [mine, other]) == frozenset(("s0", "s1"))
    assert assigned(other, []) == frozenset(("s0", "s1")), "before it has heard of anybody"


def test_shards_that_became_another_scheduler_s_leave_first_and_do_not_stay() -> None:
    held = {"s0": Holding(0, draining=False), "s1": Holding(3, draining=False), "s2": Holding(0, draining=True)}
    assert moves(held, 0, has_room=False, strange=["s1", "s2"]).leave == ["s1"]
    assert moves(held, 0, has_room=True, strange=["s1"]).leave == [], "what runs in it ends first, where there are slots"
    assert moves(held, -1, has_room=True, strange=["s2"]).stay == []
