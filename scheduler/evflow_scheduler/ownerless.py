"""A request to a run that nobody owns: a command takes the run for one round, folds what lies in its inbox, and gives it back.

As for a cancellation (`evflow_scheduler.cancel`), but nothing is waited for. Whoever goes on with the run finds the request in its log.
"""

import math

from evflow.core.state import RunState
from evflow.log.protocol import RunEntry
from evflow_scheduler.passing import serve_in_passing


def settle_ownerless(entry: RunEntry, host: str) -> RunState:
    """Take a run that nobody owns, do what its inbox asks for, and give its shard back.

    Args:
        entry: The run's line in the index.
        host: The machine that its attempts were started on.

    Returns:
        The state after it.

    Raises:
        LeaseHeld: Somebody owns it by now.
        RunIsElsewhere: Attempts of it may run on another machine.
        AttemptWillNotEnd: An attempt of it cannot be ended.
        LogUnavailable: The server cannot be used.
    """
    return serve_in_passing(entry, host, "Act on", within_s=math.inf, to_its_end=False)
