"""When a scheduler says that it is ready, and why not."""

from dataclasses import replace

import pytest

from evflow_scheduler.http.health import Condition, report, why_not_ready

WELL = Condition(owned=8, living=1, heard_s=0.2, silent_after_s=3.0, lease_ages_s={"s0": 1.0}, lease_s=4.0, draining=False)


def test_one_that_owns_its_share_and_hears_the_log_is_ready() -> None:
    assert report(WELL)["ready"] is True


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"draining": True}, "drains"),
        ({"living": 0}, "not answered yet"),
        ({"heard_s": 3.5}, "has not answered for 3.5 s"),
        ({"owned": 3, "living": 2}, "owns 3 shards, and its share is 4"),
        ({"owned": 1, "due": 2}, "owns 1 shards, and its share is 2"),
        ({"lease_ages_s": {"s0": 1.0, "s1": 4.5}}, "shard s1 was last renewed 4.5 s ago"),
    ],
)
def test_what_is_wrong_is_the_one_reason(change: dict[str, object], said: str) -> None:
    [reason] = why_not_ready(replace(WELL, **change))  # type: ignore[arg-type]
    assert said in reason


@pytest.mark.parametrize(("owned", "living"), [(2, 3), (0, 9), (4, 2)])
def test_the_last_of_several_is_ready_with_what_the_others_left(owned: int, living: int) -> None:
    assert not list(why_not_ready(replace(WELL, owned=owned, living=living)))
