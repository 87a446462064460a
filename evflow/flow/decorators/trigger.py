"""`@trigger` and `@trigger_on_finish`: the events on which runs of the deployed flow begin.

They stand on the flow's class and mean nothing before the flow is deployed. Several are possible: each starts runs of its own. A user's
import pays for this module, so what reads triggers is imported where one is looked at.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast, overload

from evflow.errors import did_you_mean
from evflow.flow.decorators.base import StepDecorator
from evflow.flow.decorators.of_class import apply_to_class, configured
from evflow.flow.steps import Where, facts

if TYPE_CHECKING:
    from datetime import timedelta

    from evflow.core.projects import Project
    from evflow.core.triggers import Trigger, Wanted
    from evflow.flow.parameter_values import ParameterContext

C = TypeVar("C", bound=type)

_TRIGGERS: Final = "_evflow_triggers"
"""The attribute of a class that has its triggers; `evflow.flow.checks` knows it too."""
_SPANS: Final = ("within", "debounce", "coalesce", "throttle")
_NO_SPANS: Final = MappingProxyType(dict.fromkeys(_SPANS))
STATUSES: Final = ("succeeded", "failed", "cancelled")


class _Mistake(ValueError):
    """What is wrong with a decorator, as a sentence."""


class TriggerDecorator(StepDecorator):
    """See `trigger`: a decorator of a class, with a step decorator's fields and messages; nothing else of one is asked of it."""

    name = "trigger"
    one: ClassVar[str] = "event"
    several: ClassVar[str] = "events"
    defaults = MappingProxyType({
        "event": None, "events": None, "need": "all", "filter": None, "parameters": None, **_NO_SPANS, "options": None,
    })  # fmt: skip

    def mistakes(self) -> Iterator[str]:
        """It names events, and what it says of them can be read."""
        from evflow.imports import framework_view

        with framework_view():
            from evflow.core.triggers import fault
        try:
            wrong = fault(self.trigger())
        except _Mistake as mistake:
            wrong = str(mistake)
        if wrong is not None:
            yield f"@{self.name}: {wrong}"

    def trigger(self, project: "Project | None" = None) -> "Trigger":
        """What is listened for. It is whole only where `mistakes` finds nothing.

        Args:
            project: The project and branch that listens.

        Raises:
            ValueError: A field cannot be read.
        """
        from evflow.core.triggers import Trigger

        spans = {f"{name}_us": self._span(name) for name in _SPANS if self.value(name) is not None}
        return Trigger(tuple(self._wanted(one, project) for one in self._named()), self.value("need"), **spans)

    def _named(self) -> list[Any]:
        one, several = self.value(self.one), self.value(self.several)
        if (one is None) == (several is None):
            raise _Mistake(f"one of {self.one} and {self.several} is needed, and only one.")
        if one is not None:
            return [one]
        if not isinstance(several, list | tuple):
            raise _Mistake(f"{self.several} is {several!r}: it is a list.")
        return list(cast("Sequence[Any]", several))

    def _wanted(self, given: object, project: "Project | None") -> "Wanted":
        from evflow.core.published import OURS
        from evflow.core.triggers import Wanted

        name, said = self._described(_named_in(given, project), ("parameters", "filter"))
        if name.startswith(OURS):
            raise _Mistake(f"events whose names begin with '{OURS}' are evflow's own; for the end of runs there is @trigger_on_finish.")
        return Wanted(name, self._parameters(said), self._filter(said))

    def _described(self, given: object, fields: tuple[str, ...]) -> tuple[str, Mapping[str, Any]]:
        """The name of what is listened for, and what else is said of it."""
        if isinstance(given, str):
            return given, {}
        if not isinstance(given, Mapping) or not isinstance(cast("Mapping[str, Any]", given).get("name"), str):
            raise _Mistake(f"{self.one} {given!r} is neither a name nor a dictionary with a 'name'.")
        said = cast("Mapping[str, Any]", given)
        unknown = [name for name in said if name not in ("name", *fields)]
        if unknown:
            raise _Mistake(
                f"{self.one} '{said['name']}' has {unknown[0]!r}: there are name, {', '.join(fields)}.{did_you_mean(str(unknown[0]), fields)}"
            )
        return said["name"], said

    def _parameters(self, said: Mapping[str, Any]) -> dict[str, str]:
        """Parameter to field: from a dictionary, or from a list of names and pairs."""
        given = said.get("parameters", self.value("parameters"))
        if given is None:
            return {}
        if isinstance(given, str):
            return {given: given}
        if isinstance(given, Mapping):
            return dict(cast("Mapping[str, str]", given))
        if not isinstance(given, list | tuple):
            raise _Mistake(f"parameters is {given!r}: it is a dictionary of parameter to field, or a list of names and of such pairs.")
        found: dict[str, str] = {}
        for one in cast("Sequence[Any]", given):
            pair: tuple[Any, ...] = (one, one) if isinstance(one, str) else ()
            if isinstance(one, list | tuple):
                pair = tuple(cast("Sequence[Any]", one))
            if len(pair) != 2:
                raise _Mistake(f"parameters has {one!r}: it is the name of a parameter, or a pair of parameter and field.")
            found[pair[0]] = pair[1]
        return found

    def _filter(self, said: Mapping[str, Any]) -> dict[str, Any]:
        given = said.get("filter", self.value("filter"))
        if given is not None and not isinstance(given, Mapping):
            raise _Mistake(f"filter is {given!r}: it maps fields of the payload to what they must be.")
        return dict(cast("Mapping[str, Any]", given or {}))

    def _span(self, name: str) -> int:
        from evflow.core.spans import WANTED, span_us

        found = span_us(self.value(name))
        if not found:
            raise _Mistake(f"{name} is {self.value(name)!r}: it is {WANTED}.")
        return found


class TriggerOnFinishDecorator(TriggerDecorator):
    """See `trigger_on_finish`."""

    name = "trigger_on_finish"
    one = "flow"
    several = "flows"
    defaults = MappingProxyType({
        "flow": None, "flows": None, "need": "all", "status": "succeeded", "parameters": None, **_NO_SPANS, "options": None,
    })  # fmt: skip

    def _wanted(self, given: object, project: "Project | None") -> "Wanted":
        from evflow.core.published import finished_name
        from evflow.core.triggers import Wanted

        name, said = self._described(given, ("deployment", "project", "project_branch", "status", "parameters"))
        flow, deployment = self._whose(name, said, project)
        where: dict[str, Any] = {} if deployment is None else {"deployment": deployment}
        status = said.get("status", self.value("status"))
        if status != "any":
            wanted: Any = [status] if isinstance(status, str) else status
            if not isinstance(wanted, list | tuple) or not all(one in STATUSES for one in cast("Sequence[object]", wanted)):
                raise _Mistake(f"status is {status!r}: it is one of {', '.join(STATUSES)}, a list of these, or 'any'.")
            where["status"] = status if isinstance(status, str) else list(cast("Sequence[str]", wanted))
        return Wanted(finished_name(flow), self._parameters(said), where)

    def _whose(self, name: str, said: Mapping[str, Any], project: "Project | None") -> tuple[str, Any]:
        """The flow, and its deployment or None for any: within a project, of the same branch where nothing else is said."""
        from evflow.core.projects import deployment_of, taken_apart

        flow, colon, behind = name.partition(":")
        flow, of_project = taken_apart(flow)
        if not flow.isidentifier() or (colon and of_project):
            raise _Mistake(f"flow {name!r} is no flow: it is the name of its class, FLOW:DEPLOYMENT or PROJECT.BRANCH.FLOW.")
        others = [what for what in ("project", "project_branch") if what in said]
        if (colon or of_project or "deployment" in said) and others:
            raise _Mistake(f"flow {name!r} names a deployment, and {others[0]!r} names one, too: keep one of them.")
        if colon or of_project or "deployment" in said:
            return flow, behind or of_project or said.get("deployment")
        its_project = said.get("project", project.name if project is not None else None)
        its_branch = said.get("project_branch", project.branch_name if project is not None else None)
        if its_project is None and its_branch is None:
            return flow, None
        if not isinstance(its_project, str) or not isinstance(its_branch, str):
            raise _Mistake(f"flow {name!r} needs both project and project_branch, as texts: outside of a @project neither follows.")
        return flow, deployment_of(its_project, its_branch)


@overload
def trigger(cls: C, /) -> C: ...
@overload
def trigger(
    *,
    event: "str | Mapping[str, Any] | Callable[[ParameterContext], Any] | None" = None,
    events: "Sequence[str | Mapping[str, Any] | Callable[[ParameterContext], Any]] | Callable[[ParameterContext], Any] | None" = None,
    need: str = "all",
    filter: "Mapping[str, Any] | None" = None,
    parameters: "Mapping[str, str] | Sequence[str | tuple[str, str]] | None" = None,
    within: "float | str | timedelta | None" = None,
    debounce: "float | str | timedelta | None" = None,
    coalesce: "float | str | timedelta | None" = None,
    throttle: "float | str | timedelta | None" = None,
    options: "Mapping[str, Any] | None" = None,
) -> Callable[[C], C]: ...
def trigger(cls: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Let a run of the flow begin when an event is published, once the flow is deployed.

    Args:
        cls: The flow; bare it says nothing, and `check` says what is missing.
        event: The event's name; or a dictionary of `name`, `parameters` and `filter`; or a function of a context (`flow_name`, `user_name`, …)
            that gives either. Functions are called when the flow is deployed.
        events: Several of them.
        need: Of several: `all` start a run together, or `any` of them starts one.
        filter: What the payload must be, for each event that says nothing itself: field to value, list of values, or `{">": 3}`.
        parameters: Parameter of the flow to field of the payload, for each event that says nothing itself; or a list of names and pairs.
        within: Of `all`: the oldest may have come so long before the last one. Seconds, or a text as `"1h30m"`.
        debounce: Wait until no event has come for so long; a burst is one run.
        coalesce: Wait for so long from the first event on; what comes meanwhile is one run.
        throttle: Start no run sooner than so long after the last one.
        options: Metaflow's; nothing here.
    """
    return apply_to_class(TriggerDecorator, _TRIGGERS, cls, fields, field="event")


@overload
def trigger_on_finish(cls: C, /) -> C: ...
@overload
def trigger_on_finish(
    *,
    flow: "str | Mapping[str, Any] | Callable[[ParameterContext], Any] | None" = None,
    flows: "Sequence[str | Mapping[str, Any] | Callable[[ParameterContext], Any]] | Callable[[ParameterContext], Any] | None" = None,
    need: str = "all",
    status: "str | Sequence[str]" = "succeeded",
    parameters: "Mapping[str, str] | Sequence[str | tuple[str, str]] | None" = None,
    within: "float | str | timedelta | None" = None,
    debounce: "float | str | timedelta | None" = None,
    coalesce: "float | str | timedelta | None" = None,
    throttle: "float | str | timedelta | None" = None,
    options: "Mapping[str, Any] | None" = None,
) -> Callable[[C], C]: ...
def trigger_on_finish(cls: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Let a run of the flow begin when a deployed run of another one has ended, once the flow is deployed.

    Args:
        cls: The flow; bare it says nothing, and `check` says what is missing.
        flow: The other flow: its name, `FLOW:DEPLOYMENT`, `PROJECT.BRANCH.FLOW`, or a dictionary of `name`, `deployment` (or `project` and
            `project_branch`), `status` and `parameters`; or a function that gives either. Within a project a name alone is the flow in the same branch.
        flows: Several of them.
        need: As for `trigger`.
        status: How the run must have ended: `succeeded`, `failed`, `cancelled`, a list of these, or `any`.
        parameters: As for `trigger`; there are the fields `flow`, `run`, `status`, `deployment`, `version`, `namespace` and `user`.
        within: As for `trigger`, like all that follow.
        debounce: So.
        coalesce: So.
        throttle: So.
        options: So.
    """
    return apply_to_class(TriggerOnFinishDecorator, _TRIGGERS, cls, fields, field="flow")


def mistakes(cls: type) -> Iterator[tuple[Where, str]]:
    """What is wrong with a flow's triggers, and where."""
    from evflow.core.triggers import MOST_TRIGGERS

    found = _triggers(cls)
    if len(found) > MOST_TRIGGERS:
        yield found[0].where, f"Flow {cls.__name__} has {len(found)} triggers: {MOST_TRIGGERS} are possible."
        return
    from evflow.flow.decorators.trigger_functions import has_functions

    for decorator in found:
        if not has_functions(decorator):
            for mistake in _mistakes_of(decorator, cls):
                yield decorator.where, mistake


def triggers_of(cls: type, project: "Project | None" = None, *, user: str = "") -> "list[Trigger]":
    """What a flow without mistakes listens for; a subclass that says nothing listens as its base does.

    Args:
        cls: The flow.
        project: The project and branch in which it listens.
        user: Who deploys it: functions that stand in a trigger are called now, and told.

    Raises:
        TriggerInvalid: Functions give what nobody can listen for.
        ParameterDefaultFailed: A function raised an exception.
    """
    from evflow.flow.decorators.trigger_functions import TriggerInvalid, has_functions, settled

    found: list[Trigger] = []
    for written in _triggers(cls):
        decorator = written
        if has_functions(written):
            decorator = settled(cls, written, user)
            wrong = next(_mistakes_of(decorator, cls), None)
            if wrong is not None:
                raise TriggerInvalid(wrong, written.where)
        found.append(decorator.trigger(project))
    return found


def _mistakes_of(decorator: TriggerDecorator, cls: type) -> Iterator[str]:
    wrong = list(decorator.mistakes())
    yield from wrong
    known = [parameter.name for parameter in facts(cls).parameters.values()]
    files = {parameter.name for parameter in facts(cls).parameters.values() if parameter.reads_file}
    for one in () if wrong else decorator.trigger().wanted:
        for name in one.parameters:
            if name not in known:
                has = f"It has: {', '.join(known)}." if known else "It has none."
                yield f"@{decorator.name}: Flow {cls.__name__} has no parameter '{name}'. {has}{did_you_mean(name, known)}"
            elif name in files:
                text = f"@{decorator.name}: '{name}' takes a file, and no event may say which file of the scheduler's machine is read."
                yield f"{text} Give the file a default, or the parameter another type."


def _named_in(given: object, project: "Project | None") -> object:
    """What `namespaced_event_name` gave, as the name that it is in this branch."""
    from evflow.flow.decorators.project import Namespaced

    if isinstance(given, Namespaced):
        return given.in_branch(project)
    if isinstance(given, Mapping) and isinstance(cast("Mapping[str, Any]", given).get("name"), Namespaced):
        return {**cast("Mapping[str, Any]", given), "name": cast("Mapping[str, Any]", given)["name"].in_branch(project)}
    return cast("Any", given)


def _triggers(cls: type) -> list[TriggerDecorator]:
    found: list[TriggerDecorator] = configured(cls, _TRIGGERS)
    return found
