"""The limits that keep tasks of a run from their slots, as the server has them, and in sentences."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from evflow.core import limits
from evflow.core.explain_limits import WaitsForLimit, of_limit
from evflow.core.limits import Limit
from evflow.core.line import Rank, Waiter
from evflow.core.state import RunState
from evflow.log.protocol import LogClient

MOST_TASKS: Final = 20
"""Of how many waiting tasks of a run `evflow explain` asks the limits."""
_MOST_NAMED: Final = 5


class Standing:
    """The limited names as they stand now: each is asked for once, of whichever run.

    Args:
        log: The log; nothing is asked of it where nothing waits.
    """

    def __init__(self, log: LogClient) -> None:
        self._log = log
        self._allowed: Mapping[str, int] | None = None
        self._found: dict[str, tuple[list[str], list[Waiter]]] = {}
        self._now_us = 0

    def needed(self, state: RunState, most_tasks: int) -> list[Limit]:
        """What the first tasks of the run's line have to hold, and the run itself.

        Args:
            state: The run.
            most_tasks: Of how many tasks.
        """
        if state.stopping or not state.waiting:
            return []
        if self._allowed is None:
            self._allowed = self._log.limits()
        tasks = [state.tasks[number] for number in islice(state.waiting, most_tasks)]
        return list(dict.fromkeys(limit for task in tasks for limit in limits.needed(state, task, self._allowed)))

    def look(self, names: Iterable[str]) -> None:
        """Ask for those that were not asked for yet, in one exchange."""
        new = [name for name in dict.fromkeys(names) if name not in self._found]
        if new:
            for name, (held, line) in zip(new, self._log.standings(new), strict=True):
                self._found[name] = [one.name for one in held], line
            self._now_us = self._log.now_us()

    def waits(self, shard: str, state: RunState, most_tasks: int) -> Iterator[WaitsForLimit]:
        """The limited names that the first tasks of a run's line, or the run itself, cannot have.

        Args:
            shard: The run's.
            state: The run.
            most_tasks: Of how many tasks.
        """
        needed = self.needed(state, most_tasks)
        self.look(limit.name for limit in needed)
        asker = Waiter(shard, f"{state.flow}/{state.number}", Rank(state.priority, state.started_us), 0)
        for limit in needed:
            held, line = self._found[limit.name]
            found = of_limit(limit, held, line, asker, self._now_us)
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
