"""Whose a run's number is, after a server has lost the run's whole log, and perhaps its request with it.

An owner that writes a whole run again asks this first. A number that was lost is given out again; a tick or an event that was lost is decided again, maybe
under another number. So the flow's log says which of the two runs goes on: the one whose request stands there.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from evflow.core.flow_events import RunRequested
from evflow.core.values import value

REQUEST: Final = "request"
_ONE_RUN: Final = ("schedule", "event", "backfill")
"""What starts one run each: its trigger names it."""

Verdict = Literal["ours", "free", "taken", "decided-again"]


@value
class Claim:
    """What the flow's log says of a number.

    Attributes:
        verdict: `ours`: the run's request stands there. `free`: no request has the number. `taken`: another run's has. `decided-again`: what
            started the run has started another one since.
        other: Of `decided-again`, the number of that run; else 0.
    """

    verdict: Verdict
    other: int = 0


def claim(number: int, header: Mapping[str, Any], requests: Iterable[RunRequested]) -> Claim:
    """Whose a run's number is.

    Args:
        number: The run's number.
        header: Its first event, as a mapping.
        requests: All requests in the flow's log, in their order.
    """
    trigger = _as_data(header.get("trigger") or {})
    found = Claim("free")
    for asked in requests:
        if asked.number == number:
            return Claim("ours" if _is_of(asked, header, trigger) else "taken")
        if trigger.get("kind") in _ONE_RUN and asked.trigger is not None and _as_data(asked.trigger) == trigger:
            found = Claim("decided-again", asked.number)
    return found


def _is_of(asked: RunRequested, header: Mapping[str, Any], trigger: Mapping[str, Any]) -> bool:
    """Whether a request is the run's own."""
    if asked.trigger is not None:
        return bool(_as_data(asked.trigger) == trigger)
    if trigger.get("kind") != REQUEST or (asked.deployment, asked.version) != (trigger.get("deployment"), trigger.get("version")):
        return False
    offer: Mapping[str, Any] = asked.offer or {}
    return bool(offer.get("id") == trigger.get("id") and asked.user == header.get("user"))


def _as_data(plain: Any) -> Any:
    """A value with its lists as tuples, as events have them that were read."""
    whole: Any = plain
    if isinstance(plain, Mapping):
        return {key: _as_data(item) for key, item in whole.items()}
    return tuple(_as_data(item) for item in whole) if isinstance(plain, list | tuple) else plain
