"""`@schedule`: when runs of the deployed flow begin by themselves.

It stands on the flow's class and means nothing before the flow is deployed. A user's import pays for this module, so what reads cron expressions is
imported where a schedule is looked at.
"""

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from evflow.flow.decorators.base import StepDecorator
from evflow.flow.decorators.of_class import apply_to_class, configured
from evflow.flow.steps import Where

if TYPE_CHECKING:
    from evflow.core.schedule import Schedule

C = TypeVar("C", bound=type)

_PRESETS: Final = MappingProxyType({"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 0"})
_KINDS: Final = ("cron", *_PRESETS)
_SCHEDULES: Final = "_evflow_schedules"
"""The attribute of a class that has its `@schedule`s."""


class ScheduleDecorator(StepDecorator):
    """See `schedule`: a decorator of a class, with a step decorator's fields and messages; nothing else of one is asked of it."""

    name = "schedule"
    defaults = MappingProxyType({
        "cron": None, "hourly": False, "daily": True, "weekly": False, "timezone": None, "catch_up": "none", "catch_up_most": 10,
    })  # fmt: skip

    def mistakes(self) -> Iterator[str]:
        """Exactly one kind of schedule, which comes in a time zone that there is."""
        for preset in _PRESETS:
            if not isinstance(self.value(preset), bool):
                yield f"@schedule: {preset} is {self.value(preset)!r}: it is True or False."
                return
        kinds = self._kinds()
        if not kinds:
            yield "@schedule names no schedule: one of cron, hourly, daily and weekly is needed."
        elif len(kinds) > 1:
            yield f"@schedule has {' and '.join(kinds)}: keep one of them."
        else:
            from evflow.imports import framework_view

            with framework_view():
                from evflow.core.schedule import fault

                wrong = fault(self.schedule())
            if wrong is not None:
                yield f"@schedule: {wrong}"

    def schedule(self) -> "Schedule":
        """When the flow runs. It is whole only where `mistakes` finds nothing."""
        from evflow.core.schedule import Schedule, plain_cron

        (kind,) = self._kinds()
        text = self.value("cron") if kind == "cron" else _PRESETS[kind]
        if isinstance(text, str):
            text = plain_cron(text) or text
        zone: Any = self.value("timezone")
        return Schedule(text, "UTC" if zone is None else zone, self.value("catch_up"), self.value("catch_up_most"))

    def _kinds(self) -> list[str]:
        """What says when; daily where nothing does."""
        said = [kind for kind in _KINDS if kind in self.given]
        return [kind for kind in said if self.given[kind] not in (None, False)] if said else ["daily"]


@overload
def schedule(cls: C, /) -> C: ...
@overload
def schedule(
    *,
    cron: str | None = None,
    hourly: bool = False,
    daily: bool = True,
    weekly: bool = False,
    timezone: str | None = None,
    catch_up: str = "none",
    catch_up_most: int = 10,
) -> Callable[[C], C]: ...
def schedule(cls: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Let runs of the flow begin by themselves, once it is deployed; daily if nothing is said.

    Args:
        cls: The flow, where it is used bare.
        cron: Five fields: minute, hour, day of the month, month, day of the week.
        hourly: At each full hour.
        daily: At midnight.
        weekly: At midnight between Saturday and Sunday.
        timezone: What the clock is that this is meant of, as `Europe/Berlin`; UTC if nothing is said.
        catch_up: Which ticks are run that came while no scheduler was there: `none`, the `last`, or `all`.
        catch_up_most: With `all`: the newest so many at most.
    """
    return apply_to_class(ScheduleDecorator, _SCHEDULES, cls, fields, field="cron")


def mistakes(cls: type) -> Iterator[tuple[Where, str]]:
    """What is wrong with a flow's schedule, and where."""
    found = _schedules(cls)
    if len(found) > 1:
        yield found[0].where, f"Flow {cls.__name__} has @schedule {len(found)} times: keep one of them."
        return
    for decorator in found:
        for mistake in decorator.mistakes():
            yield decorator.where, mistake


def schedule_of(cls: type) -> "Schedule | None":
    """When a flow without mistakes runs; a subclass that says nothing has its base's schedule."""
    found = _schedules(cls)
    return found[0].schedule() if found else None


def _schedules(cls: type) -> list[ScheduleDecorator]:
    found: list[ScheduleDecorator] = configured(cls, _SCHEDULES)
    return found
