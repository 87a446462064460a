"""Which interpreter runs attempts: that of this process, or that of an environment."""

from collections.abc import Mapping

from evflow.core.values import value
from evflow.worker.spec import RunContext


@value
class Interpreter:
    """The interpreter of an environment.

    Attributes:
        python: Its path.
        variables: What is set for it beside the variables of the process that starts it: name and value.
        name: The environment's name on this machine.
    """

    python: str
    variables: tuple[tuple[str, str], ...]
    name: str


def lock_of(context: RunContext, step: str) -> bytes | None:
    """The digest of the lock that a step's environment is made of; None of a step that has none."""
    locks: Mapping[str, bytes] | None = context.options.get("environments")
    return locks.get(step) if locks else None
