"""Runs that a later version of evflow has written or asks for: an owner of this one leaves them to a later one."""

from evflow import __version__
from evflow.core.decide import LOGIC
from evflow.core.ids import RunId
from evflow.errors import Conflict


class RunIsNewer(Conflict):
    """A later version of evflow has written the run's log, or asks for the run, with what this one does not know."""

    code = "run-is-newer"

    def __init__(self, run: RunId, what: str) -> None:
        super().__init__(
            f"'{run}' is of a later version of evflow: {what}. Version {__version__} cannot go on with it, and leaves it alone.",
            "Upgrade this machine's evflow, or let a scheduler of the later version live.",
        )


def newer_logic(version: int) -> str:
    """What is to be said of a version of the decisions that is not known here."""
    return f"its decisions are of version {version}, and version {LOGIC} is the last one known here"
