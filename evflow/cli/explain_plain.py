"""Reasons as plain values, for `evflow explain --json`: one object each, `reason` naming its kind and the fields as they are."""

import re
from collections.abc import Mapping
from typing import Any, cast

from evflow.cli.output import iso
from evflow.core.state import Attempt


def plain(of: str, reason: object) -> dict[str, Any]:
    """A reason of a run or a task.

    Args:
        of: The run or the task.
        reason: A value whose class is named for the wait: `WaitsForSlot` is `waits-for-slot`.
    """
    kind = re.sub(r"(?<=.)(?=[A-Z])", "-", type(reason).__name__).lower()
    return {"of": of, "reason": kind, **_fields(reason)}


def _fields(found: object) -> dict[str, Any]:
    names: Mapping[str, object] = getattr(type(found), "__dataclass_fields__")  # noqa: B009 - of a value, whose class the checkers do not know
    return dict(_field(name, getattr(found, name)) for name in names)


def _field(name: str, value: Any) -> tuple[str, object]:
    """A field: instants as the other commands write them, durations in seconds."""
    if name == "reason":  # beside the kind, which has that name
        return "because", value
    if name == "limit_us":
        return "limit_s", value / 1e6
    if name.endswith("_us"):
        return name.removesuffix("_us"), iso(value) if value else None
    return name, _value(value)


def _value(value: object) -> object:
    if isinstance(value, Attempt):
        return value.number
    if isinstance(value, tuple):
        return [_value(one) for one in cast("tuple[object, ...]", value)]
    return _fields(value) if hasattr(type(value), "__dataclass_fields__") else value
