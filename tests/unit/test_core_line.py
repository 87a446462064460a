"""The line for a limited name: places are kept for who comes first, for a while, and for nobody else."""

from hypothesis import given, strategies as st

from evflow.core.line import KEPT_US, Rank, Waiter, kept_for

NOW = 10_000_000
ranks = st.builds(Rank, st.integers(-2, 2), st.integers(0, 3))
called = st.one_of(st.just(0), st.integers(NOW - 2 * KEPT_US, NOW + KEPT_US))
waiters = st.builds(Waiter, st.sampled_from(["s0", "s1", "s2", "s3"]), st.just("F/1/1.0"), ranks, st.just(1), called)
lines = st.lists(waiters, unique_by=lambda one: one.shard)


@given(lines, waiters)
def test_a_place_is_kept_for_those_who_come_first_and_can_still_answer(line: list[Waiter], asker: Waiter) -> None:
    kept = kept_for(line, asker, NOW)
    for one in line:
        comes_first = (-one.rank.priority, one.rank.began_us, one.shard) < (-asker.rank.priority, asker.rank.began_us, asker.shard)
        can_answer = one.called_us == 0 or NOW - KEPT_US < one.called_us <= NOW
        assert (one.shard in kept) == (one.shard != asker.shard and comes_first and can_answer)
    assert all(0 < us <= KEPT_US for us in kept.values())


@given(lines)
def test_for_the_first_in_line_nobody_s_place_is_kept(line: list[Waiter]) -> None:
    """So a free place is always to be had by somebody: a line cannot stand still."""
    for first in sorted(line, key=lambda one: one.place)[:1]:
        assert kept_for(line, first, NOW) == {}


@given(lines, waiters)
def test_a_second_after_all_were_told_nothing_is_kept(line: list[Waiter], asker: Waiter) -> None:
    told = [Waiter(one.shard, one.holder, one.rank, one.since_us, one.called_us or NOW) for one in line if one.called_us <= NOW]
    assert kept_for(told, asker, NOW + KEPT_US) == {}
