"""The end of a run that nobody owns: `evflow cancel` takes it, does the turn, and gives it back.

The request itself lies in the run's inbox, as for a run whose owner lives: it is the last of the reports, so what attempts had
reported before it counts, and it is not lost when this process dies in turn. What is done here is what an owner does with
it: end what is left of the attempts, fold the reports, decide, append, seal. No code of the flow is needed for that, and
nothing is started.
"""

from typing import Final

from evflow.core.ids import RunId
from evflow.core.state import RunState
from evflow.errors import EnvironmentProblem
from evflow.log.protocol import RunEntry
from evflow_scheduler.passing import serve_in_passing

END_WITHIN_S: Final = 120.0
"""Beyond this something else is wrong: killed attempts are gone in seconds, and the turn is one append."""


class NothingToCancel(EnvironmentProblem):
    """The run was taken and did not end: its request to cancel is not in its inbox."""

    code = "nothing-to-cancel"

    def __init__(self, run: RunId) -> None:
        super().__init__(
            f"'{run}' was taken over to be cancelled, and did not end within {END_WITHIN_S:g} s.",
            f"`evflow continue {run}` goes on with it; `evflow cancel {run}` asks once more.",
        )


def end_ownerless(entry: RunEntry, host: str) -> RunState:
    """Take a run that nobody owns and whose inbox has a request to cancel, end it, and give its shard back.

    Args:
        entry: The run's line in the index.
        host: The machine that its attempts were started on.

    Returns:
        The state, sealed: cancelled, or as its attempts had reported it before the request.

    Raises:
        LeaseHeld: Somebody owns it by now.
        RunIsElsewhere: Attempts of it may run on another machine.
        AttemptWillNotEnd: An attempt of it cannot be ended.
        LogUnavailable: The server cannot be used.
    """
    state = serve_in_passing(entry, host, "Cancel", within_s=END_WITHIN_S, to_its_end=True)
    if not state.sealed:
        raise NothingToCancel(entry.run)
    return state
