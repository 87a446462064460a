"""The limits that keep tasks of a run from their slots, in sentences."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from evflow.core import limits
from evflow.core.explain_limits import WaitsForLimit, of_limit
from evflow.core.line import Rank, Waiter
from evflow.core.state import RunState
from evflow.log.protocol import LogClient, RunEntry

_MOST_TASKS: Final = 20
"""Of how many waiting tasks the limits are asked."""
_MOST_NAMED: Final = 5


def waits(log: LogClient, entry: RunEntry, state: RunState) -> Iterator[WaitsForLimit]:
    """The limited names that tasks of the run, or the run itself, cannot have now."""
    if state.stopping or not state.waiting:
        return
    allowed = log.limits()
    own = limits.of_run(state, allowed)
    asked = [] if own is None else [own.limit]
    for number in islice(state.waiting, _MOST_TASKS):
        asked += limits.of_attempt(state, state.tasks[number], allowed)
    asker = Waiter(entry.shard, f"{state.flow}/{state.number}", Rank(state.priority, state.started_us), 0)
    for limit in dict.fromkeys(asked):
        held = [one.name for one in log.holders(limit.name)]
        found = of_limit(limit, held, log.line(limit.name), asker, log.now_us())
        if found is not None:
            yield found


def said(run: str, reason: WaitsForLimit) -> str:
    """It as a sentence: who holds the name, and who comes first."""
    held = len(reason.held)
    by = f" ({_some(reason.held)})" if held else ""
    holding = f"{held} of {reason.most} hold it{by}"
    if not reason.most:
        return f"{run} waits for limit {reason.name}: the operator lets nothing hold it. `evflow limits set` changes that."
    if reason.kept_for:
        return f"{run} waits for limit {reason.name}: {holding}, and the next place is kept for {reason.kept_for}, which comes first."
    line = f"before it {'comes' if len(reason.before) == 1 else 'come'} {_some([_named(one) for one in reason.before])}"
    return (
        f"{run} waits for limit {reason.name}: {holding}; {line if reason.before else 'of those that asked for it none comes before it'}."
    )


def _named(one: Waiter) -> str:
    return f"{one.holder} (priority {one.rank.priority})" if one.rank.priority else one.holder


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
