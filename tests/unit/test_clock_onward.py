"""The clock of a log: it follows the server's, and where that goes back it goes on at half its pace."""

from hypothesis import given, strategies as st

from evflow.clock import Onward

STEPS = st.lists(st.tuples(st.integers(0, 10**7), st.integers(-(10**8), 10**8)), max_size=40)


def test_it_goes_on_at_half_its_pace_until_it_is_caught_up_with() -> None:
    clock = Onward()
    assert clock.read(1_000, 5) == 1_000
    assert clock.read(1_100, 105) == 1_100
    assert clock.read(700, 105) == 1_100, "the server's went back"
    assert [clock.read(700 + passed, 105 + passed) for passed in (1, 2, 3, 100, 101)] == [1_100, 1_101, 1_101, 1_150, 1_150]
    assert clock.read(700 + 800, 105 + 800) == 1_500, "it is caught up with"
    assert clock.read(700 + 900, 105 + 900) == 1_600


@given(STEPS)
def test_it_never_goes_back_nor_faster_than_time_and_is_never_behind_the_server(steps: list[tuple[int, int]]) -> None:
    clock, told, here = Onward(), 10**9, 0
    before = clock.read(told, here)
    for passed, jump in steps:
        here += passed
        told += passed + jump
        now = clock.read(told, here)
        assert now >= max(before, told)
        assert now <= max(before + passed, told)
        before = now
