"""When a log moves and which runs a rule lets go."""

from hypothesis import given, strategies as st

from evflow.core.ids import RunNumber
from evflow.core.retention import Finished, Kept, let_go, next_move

RUNS = st.lists(
    st.builds(Finished, st.integers(1, 50).map(RunNumber), st.integers(0, 100), st.booleans()),
    max_size=20,
    unique_by=lambda run: run.number,
)
RULES = st.builds(Kept, st.none() | st.integers(0, 25), st.none() | st.integers(0, 100))


def test_a_log_is_archived_at_once_and_removed_when_its_time_is_over() -> None:
    assert next_move(archived=False, sealed_us=100, hot_for_us=50, now_us=100) == "archive"
    assert next_move(archived=True, sealed_us=100, hot_for_us=50, now_us=149) == "wait"
    assert next_move(archived=True, sealed_us=100, hot_for_us=50, now_us=150) == "drop"
    assert next_move(archived=True, sealed_us=100, hot_for_us=0, now_us=100) == "drop"


@given(runs=RUNS, rule=RULES)
def test_a_run_goes_if_and_only_if_no_part_of_the_rule_keeps_it(runs: list[Finished], rule: Kept) -> None:
    gone = let_go(runs, rule)
    for run in runs:
        newer = sum(other.number > run.number for other in runs)
        kept = (
            run.tagged
            or (rule.last is None and rule.since_us is None)
            or (rule.last is not None and newer < rule.last)
            or (rule.since_us is not None and run.ended_us >= rule.since_us)
        )
        assert (run.number in gone) == (not kept)
    assert gone == sorted(gone)


@given(runs=RUNS, rule=RULES)
def test_a_rule_that_was_applied_lets_none_go(runs: list[Finished], rule: Kept) -> None:
    gone = set(let_go(runs, rule))
    assert let_go([run for run in runs if run.number not in gone], rule) == []
