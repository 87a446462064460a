"""How schedulers share the shards out among them."""

from hypothesis import given, strategies as st

from evflow.log.keys import SHARED_SHARDS, shared_shards
from evflow_scheduler.shares import Holding, fair_share, moves


@given(st.integers(1, 40))
def test_together_they_can_own_all_and_nobody_owns_more_than_a_fair_part(living: int) -> None:
    share = fair_share(living)
    assert share * living >= SHARED_SHARDS
    assert (share - 1) * living < SHARED_SHARDS


def test_one_that_knows_of_nobody_can_own_all() -> None:
    assert fair_share(0) == SHARED_SHARDS


HELD = st.dictionaries(st.sampled_from(shared_shards()), st.builds(Holding, st.integers(0, 3), st.booleans()))


@given(HELD, st.integers(1, SHARED_SHARDS), st.booleans())
def test_shards_leave_down_to_the_share_and_stay_up_to_it(held: dict[str, Holding], share: int, has_room: bool) -> None:
    told = moves(held, len(held) - share, has_room=has_room)
    draining = {name for name, shard in held.items() if shard.draining}
    left = [name for name in held if (name in draining or name in told.leave) and name not in told.stay]
    assert not draining & set(told.leave)
    assert draining >= set(told.stay)
    assert not (told.leave and told.stay)
    kept = len(held) - len(left)
    assert kept >= min(share, len(held)), "never below the share, as far as those that drain can stay"
    if not has_room:
        assert len(told.leave) == max(0, len(held) - len(draining) - share)
    assert all(not held[name].live for name in told.leave) or not has_room
    rest = [shard.live for name, shard in held.items() if name not in draining and name not in told.leave]
    assert all(held[name].live <= live for name in told.leave for live in rest), "those with the least to end leave first"
