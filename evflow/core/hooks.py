"""What is run when a run has ended: its exit hooks, once, whoever owns the run by then.

Hooks stand between a run's outcome and its seal. `ExitHookStarted` is in the log before the process of the hooks is started, and
`ExitHookEnded` when it was seen to end; a run with hooks is sealed after that. So an owner that takes over a run which is over and not sealed
knows whether hooks still have to run. Neither event changes what the run came to.
"""

from collections.abc import Mapping, Sequence
from typing import Final, cast

from evflow.core.state import RunState

MOST_STARTS: Final = 3
"""How often the process of the hooks is started where its owner dies each time: as often as a lost attempt is."""
GIVEN_UP: Final = "given-up"
"""Why hooks are over that were started so often."""


def hooks_of(state: RunState) -> tuple[str, ...]:
    """The hooks of a run that is over, by name; none of one that is not."""
    if not state.over:
        return ()
    said = state.options.get("exit_hooks")  # as an offer has it: anything may be in it
    if not isinstance(said, Mapping):
        return ()
    names = cast("Mapping[str, object]", said).get("on_success" if state.status == "succeeded" else "on_error")
    if not isinstance(names, list | tuple):
        return ()
    return tuple(name for name in cast("Sequence[object]", names) if isinstance(name, str))


def are_due(state: RunState) -> bool:
    """Whether the run has to wait for hooks before it is sealed."""
    return not state.hooks_over and bool(hooks_of(state))


def next_start(state: RunState) -> int | None:
    """The number of the next start of its hooks; None where they were started too often."""
    return state.hook_starts if state.hook_starts < MOST_STARTS else None
