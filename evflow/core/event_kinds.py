"""What an event is, a fact and a decision: see `evflow.core.events`, which has them all."""

from typing import Any, ClassVar

Plain = Any
"""What msgpack carries."""


class Event:
    """Base of all events."""

    __slots__ = ()
    is_fact: ClassVar[bool] = False


class Fact(Event):
    """Something from outside the run that was accepted into its log."""

    __slots__ = ()
    is_fact: ClassVar[bool] = True


class Decision(Event):
    """Something that `decide` concluded from the state."""

    __slots__ = ()
