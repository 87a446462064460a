import pytest

from tests import effort
from tests.waiting import wait_until


@pytest.mark.parametrize(("scale", "count"), [(0.1, 2), (1.0, 20), (10.0, 200)])
def test_counts_grow_with_the_scale(monkeypatch: pytest.MonkeyPatch, scale: float, count: int) -> None:
    monkeypatch.setattr(effort, "SCALE", scale)
    assert effort.scaled(20) == count


def test_a_small_count_is_never_scaled_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "SCALE", 0.001)
    assert effort.scaled(5) == 1
    assert effort.scaled(100, at_least=10) == 10


def test_each_name_has_random_numbers_of_its_own_that_repeat() -> None:
    assert effort.rng("graphs", 3).random() == effort.rng("graphs", 3).random()
    assert effort.rng("graphs", 3).random() != effort.rng("graphs", 4).random()


def test_waiting_in_vain_says_what_for() -> None:
    with pytest.raises(TimeoutError, match=r"waited 0.01 s for: the moon is green; the last answer was False"):
        wait_until(lambda: False, "the moon is green", timeout_s=0.01)
