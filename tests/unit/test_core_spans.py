"""Times as people write them."""

from datetime import timedelta

import pytest

from evflow.core.spans import shown_span, span_us


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90s", 90),
        ("1h30m", 5_400),
        ("1h 30m", 5_400),
        ("2d", 172_800),
        ("250ms", 0.25),
        (timedelta(minutes=2), 120),
        (0, 0),
    ],
)
def test_a_time_is_read(given: object, seconds: float) -> None:
    assert span_us(given) == seconds * 1e6


@pytest.mark.parametrize("given", ["", "90", "1w", "soon", -1, True, None, float("nan"), float("inf"), timedelta(-1), "-5s", []])
def test_what_is_no_time_is_none(given: object) -> None:
    assert span_us(given) is None


def test_a_time_is_shown() -> None:
    assert shown_span(5_400_000_000) == "1h30m"
    assert shown_span(0) == "0s"
