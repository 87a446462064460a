"""Faults at the places where a program meets the world, drawn from a seed.

Simulated parts call `before` and `after` around each act. Between the two the act happens; so a fault in `before`
means that it did not, and one in `after` that it did and nobody was told. Those two, at every act, are all that a
crash or a broken connection can do to a program.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import anyio

from evflow.log.errors import LogConnectionLost, LogTimeout


class Crash(BaseException):
    """The process dies here. Derived from BaseException so that nothing under test takes it for an error."""

    def __init__(self, act: str, number: int) -> None:
        super().__init__(f"crash at act {number}: {act}")
        self.act = act
        self.number = number


class Faults(Protocol):
    """What may go wrong around an act."""

    async def before(self, act: str) -> None:
        """Called before the act; raising keeps it from happening."""
        ...

    async def after(self, act: str) -> None:
        """Called after the act; raising loses its result."""
        ...


class NoFaults:
    """Nothing goes wrong."""

    async def before(self, act: str) -> None:
        """Let the act happen."""

    async def after(self, act: str) -> None:
        """Pass its result on."""


class CrashAt:
    """Crash once, at one point: each act has two, before and after it.

    Running a program with `CrashAt(0)`, `CrashAt(1)`, ... until one of them does not crash tries every point.
    """

    def __init__(self, point: int) -> None:
        self._point = point
        self.passed = 0
        self.crashed = False

    async def before(self, act: str) -> None:
        """Crash here if this is the point."""
        self._pass(f"before {act}")

    async def after(self, act: str) -> None:
        """Crash here if this is the point."""
        self._pass(f"after {act}")

    def _pass(self, place: str) -> None:
        number = self.passed
        self.passed += 1
        if number == self._point:
            self.crashed = True
            raise Crash(place, number)


@dataclass(slots=True)
class RandomFaults:
    """Faults at random, the same ones for the same seed and the same program.

    Attributes:
        random: Where chance comes from.
        lost_request: Probability that the connection breaks before the act.
        lost_reply: Probability that it breaks after the act.
        crash: Probability that the process dies, before or after the act.
        delay: Probability that the act takes long.
        longest_delay_s: How long.
        mischief: Probability and what to do, before the act: lose a suffix, take a lease, jump a clock, ...
        budget: How many faults at most, so that every program ends.
        log: What happened, for people.
    """

    random: Random
    lost_request: float = 0.0
    lost_reply: float = 0.0
    crash: float = 0.0
    delay: float = 0.0
    longest_delay_s: float = 2.0
    mischief: Sequence[tuple[float, Callable[[], None]]] = ()
    budget: int = 1_000
    log: list[str] = field(default_factory=list[str])

    async def before(self, act: str) -> None:
        """Delay, do mischief, crash or break the connection; then the act does not happen."""
        if self._happens(self.delay, f"delay before {act}"):
            await anyio.sleep(self.random.uniform(0, self.longest_delay_s))
        for rate, do in self.mischief:
            if self._happens(rate, f"{getattr(do, '__name__', 'mischief')} before {act}"):
                do()
        self._crash(f"before {act}")
        if self._happens(self.lost_request, f"lost request of {act}"):
            raise LogConnectionLost("simulation", f"the request of {act} was lost")

    async def after(self, act: str) -> None:
        """Delay, crash or break the connection; the act has happened."""
        if self._happens(self.delay, f"delay after {act}"):
            await anyio.sleep(self.random.uniform(0, self.longest_delay_s))
        self._crash(f"after {act}")
        if self._happens(self.lost_reply, f"lost reply of {act}"):
            if self.random.random() < 0.5:
                raise LogTimeout("simulation", act, 0.0)
            raise LogConnectionLost("simulation", f"the reply of {act} was lost")

    def _crash(self, place: str) -> None:
        if self._happens(self.crash, f"crash {place}"):
            raise Crash(place, len(self.log))

    def _happens(self, rate: float, what: str) -> bool:
        if rate <= 0 or self.budget <= 0 or self.random.random() >= rate:
            return False
        self.budget -= 1
        self.log.append(what)
        return True
