"""How schedulers share the shards out."""

import pytest

from evflow.log.keys import SHARED_SHARDS
from evflow_scheduler.daemon import fair_share


@pytest.mark.parametrize("living", range(1, 2 * SHARED_SHARDS))
def test_all_shards_have_an_owner_and_nobody_owns_more_than_another_needs(living: int) -> None:
    share = fair_share(living)
    assert share * living >= SHARED_SHARDS
    assert (share - 1) * living < SHARED_SHARDS


def test_a_scheduler_that_knows_of_none_owns_all() -> None:
    assert fair_share(0) == SHARED_SHARDS
