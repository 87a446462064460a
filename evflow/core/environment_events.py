"""The events of a run's log that tell of the environments of its steps. No decision looks at them, and the state has nothing of them."""

from evflow.core.event_kinds import Fact
from evflow.core.values import value


@value
class EnvironmentResolved(Fact):
    """What steps ask for (`@pypi`, `@conda`) has its lock, which every attempt of them uses; nothing of it is decided by the core.

    Attributes:
        steps: The steps.
        kind: `pypi` or `conda`.
        asked: What they ask for, as the user wrote it.
        lock: Digest of the lock in the store: every package with its version and hash.
        python: The version of Python.
        packages: How many packages the lock has.
        how: `resolved`, `known` (found before, on this machine) or `origin` (that of the run which this one resumes).
        took_us: How long it took.
    """

    steps: tuple[str, ...]
    kind: str
    asked: str
    lock: bytes
    python: str
    packages: int
    how: str
    took_us: int = 0


@value
class EnvironmentReplaced(Fact):
    """What steps ask for cannot be had, and they run in the environment of the run, because somebody allowed that.

    Attributes:
        steps: The steps.
        kind: `pypi` or `conda`.
        asked: What they ask for, as the user wrote it.
        reason: Why it cannot be had.
    """

    steps: tuple[str, ...]
    kind: str
    asked: str
    reason: str


@value
class EnvironmentReady(Fact):
    """A machine has the environment that an attempt needs; said once by each process that starts attempts of the run in it.

    Attributes:
        name: The environment's, on the machine.
        how: `built`, or `reused`: it was there.
        host: The machine.
        python: The interpreter's version.
        took_us: How long the attempt waited for it.
    """

    task: int
    attempt: int
    name: str
    how: str
    host: str
    python: str
    took_us: int = 0
