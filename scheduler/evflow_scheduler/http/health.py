"""Whether a scheduler is ready for work: pure, over what it says of itself."""

from collections.abc import Iterator, Mapping

from evflow.core.values import value
from evflow.log.keys import shared_shards


@value
class Condition:
    """A scheduler's condition.

    Attributes:
        owned: Shards that it owns.
        living: Schedulers that live, itself included, as far as it last heard; 0 before it heard.
        heard_s: Seconds since the log last answered.
        silent_after_s: After how many seconds of silence the others take this scheduler for dead.
        lease_ages_s: Owned shard to the seconds since its lease was last renewed.
        lease_s: How long a lease holds.
        draining: It has been told to end.
        due: Shards that are its own where schedulers may own certain ones only; None: its share is a number.
    """

    owned: int
    living: int
    heard_s: float
    silent_after_s: float
    lease_ages_s: Mapping[str, float]
    lease_s: float
    draining: bool
    due: int | None = None


def why_not_ready(condition: Condition) -> Iterator[str]:
    """The reasons why no work should be expected of a scheduler, as sentences; none where it is ready."""
    if condition.draining:
        yield "It drains: no run begins here any more."
    if not condition.living:
        yield "The log has not answered yet."
        return
    if condition.heard_s > condition.silent_after_s:
        yield f"The log has not answered for {condition.heard_s:.1f} s."
    least = condition.due
    if least is None:
        least = len(shared_shards()) // condition.living  # what is left for the last one, when the others own their whole shares
    if condition.owned < least and not condition.draining:
        yield f"It owns {condition.owned} shards, and its share is {least}: others still own them, or have just died."
    late = {shard: age_s for shard, age_s in condition.lease_ages_s.items() if age_s > condition.lease_s}
    if late:
        shard, age_s = max(late.items(), key=lambda one: one[1])
        yield f"The lease of shard {shard} was last renewed {age_s:.1f} s ago, and holds for {condition.lease_s:g} s."


def report(condition: Condition) -> dict[str, object]:
    """What `/ready` says."""
    reasons = list(why_not_ready(condition))
    return {
        "ready": not reasons,
        "reasons": reasons,
        "owned_shards": condition.owned,
        "schedulers": condition.living,
        "log_silent_s": round(condition.heard_s, 3),
        "oldest_lease_s": round(max(condition.lease_ages_s.values(), default=0.0), 3),
    }
