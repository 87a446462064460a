"""Names are read as they are written, and nothing else is."""

import pytest
from hypothesis import given, strategies as st

from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.errors import UsageError

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
NUMBERS = st.integers(1, 10**12)


@given(NAMES, NUMBERS)
def test_a_run_is_read_as_it_is_written(flow: str, number: int) -> None:
    """`Flow/3`."""
    run = RunId(FlowName(flow), RunNumber(number))
    assert RunId.parse(str(run)) == run


@given(NAMES, NUMBERS, NUMBERS, st.integers(0, 4095))
def test_an_attempt_is_read_as_it_is_written(flow: str, number: int, task: int, attempt: int) -> None:
    """`Flow/3/17.0`."""
    name = AttemptId(RunId(FlowName(flow), RunNumber(number)), TaskId(task), attempt)
    assert AttemptId.parse(str(name)) == name


@pytest.mark.parametrize("text", ["", "Flow", "Flow/", "Flow/0", "Flow/-1", "Flow/x", "/3", "a b/3", "Flow/3/4", "Flow/1.5", "Flow/ 3"])
def test_what_names_no_run_is_refused(text: str) -> None:
    """With the form that a name has."""
    with pytest.raises(UsageError, match="does not name a run") as caught:
        RunId.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "Flow/3", "Flow/3/17", "Flow/3/x.0", "Flow/3/17.", "Flow/3/17.x", "3/17.0"])
def test_what_names_no_attempt_is_refused(text: str) -> None:
    """With the form that a name has."""
    with pytest.raises(UsageError):
        AttemptId.parse(text)


@given(st.text(max_size=30))
def test_a_name_is_refused_by_a_usage_error_or_not_at_all(text: str) -> None:
    """Digits that are not ASCII, slashes, anything."""
    for kind in (RunId, AttemptId):
        try:
            kind.parse(text)
        except UsageError:
            continue
