"""What mutators change: `MutableFlow` and `MutableStep`, views of what a flow's `facts` say.

A mutator changes facts alone, never the class's functions, which other flows may share. So it can be done again: for each run of a process
that serves runs with other configurations, and after `--with` has added decorators.

The order is Metaflow's: `pre_mutate` of all mutators of the flow and of its steps, then `mutate` of all.
"""

import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib import import_module
from io import StringIO
from typing import Any, Final, cast

from evflow.errors import UsageError, did_you_mean
from evflow.flow.configs import as_config, spec_of
from evflow.flow.decorators import REGISTRY, decorator_class
from evflow.flow.decorators.base import DecoratorInvalid, StepDecorator
from evflow.flow.decorators.spec import fields_of, from_spec
from evflow.flow.parameters import Parameter
from evflow.flow.steps import INFO, MUTATORS, Facts
from evflow.flow.user_decorators import FlowMutator, StepMutator, UserDecorator, UserStepDecorator, failed, named, prepared

IGNORE: Final = 1
"""A decorator that is there already stays."""
ERROR: Final = 2
"""... is a mistake."""
OVERRIDE: Final = 3
"""... gives way."""

OF_CLASSES: Final[Mapping[str, tuple[str, str, str]]] = {
    "concurrency": ("evflow.flow.decorators.limit", "Concurrency", "_evflow_concurrency"),
    "exit_hook": ("evflow.flow.decorators.exit_hook", "ExitHookDecorator", "_evflow_exit_hooks"),
    "project": ("evflow.flow.decorators.project", "ProjectDecorator", "_evflow_projects"),
    "schedule": ("evflow.flow.decorators.schedule", "ScheduleDecorator", "_evflow_schedules"),
    "trigger": ("evflow.flow.decorators.trigger", "TriggerDecorator", "_evflow_triggers"),
    "trigger_on_finish": ("evflow.flow.decorators.trigger", "TriggerOnFinishDecorator", "_evflow_triggers"),
}
"""A class decorator's name, and its module, its class, and the attribute of a flow that has it."""
_SEVERAL: Final = frozenset({"exit_hook", "trigger", "trigger_on_finish"})


class MutationInvalid(UsageError):
    """A mutator asked for a change that cannot be."""

    code = "mutation-invalid"


class _Mutable:
    IGNORE = IGNORE
    ERROR = ERROR
    OVERRIDE = OVERRIDE

    @property
    def decorator_specs(self) -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
        """Name, qualified name, positional and keyword arguments of each decorator."""
        raise NotImplementedError

    def has_decorator(self, name: str) -> bool:
        """Whether there is a decorator of this name."""
        return any(name in spec[:2] for spec in self.decorator_specs)

    def get_decorator_specs(self, name: str) -> list[tuple[str, str, list[Any], dict[str, Any]]]:
        """The decorators of this name, as `decorator_specs` has them."""
        return [spec for spec in self.decorator_specs if name in spec[:2]]


class MutableStep(_Mutable):
    """A step as a mutator sees it.

    Attributes:
        name: The step.
        flow: Its flow.
    """

    def __init__(self, flow: "MutableFlow", name: str) -> None:
        self.flow = flow
        self.name = name
        self._facts = flow.facts

    @property
    def decorator_specs(self) -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
        """Name, qualified name, positional and keyword arguments of each decorator."""
        for decorator in self._facts.decorators(self.name):
            yield _spec(decorator)
        users = (*self._facts.wrapped.get(self.name, ()), *self._facts.mutators.get(self.name, ()))
        for user in dict.fromkeys(users):  # one may be both
            yield user.spec()

    def get_decorator_kwargs(self, name: str) -> dict[str, Any] | None:
        """The keyword arguments of the first decorator of this name, or None."""
        found = self.get_decorator_specs(name)
        return found[0][3] if found else None

    def get_all_decorator_kwargs(self, name: str) -> list[dict[str, Any]]:
        """The keyword arguments of each decorator of this name."""
        return [spec[3] for spec in self.get_decorator_specs(name)]

    def replace_decorator(self, name: str, updates: Mapping[str, Any], reject_if: Sequence[str] | None = None) -> None:
        """Give a decorator other arguments beside its own, or add it.

        Raises:
            MutationInvalid: It has one of the arguments of `reject_if`.
        """
        existing = self.get_decorator_kwargs(name) or {}
        for key in reject_if or ():
            if existing.get(key) is not None:
                raise MutationInvalid(f"@{name} of step {self.name} has {key}={existing[key]!r}, which does not go with what is added.")
        self.remove_decorator(name)
        self.add_decorator(name, deco_kwargs={**existing, **updates})

    def add_decorator(
        self, deco_type: Any, deco_args: Sequence[Any] | None = None, deco_kwargs: Mapping[str, Any] | None = None, duplicates: int = IGNORE
    ) -> Any:
        """Add a decorator, outside of those that are there.

        Args:
            deco_type: The decorator, its name, or a text as `--with` takes it.
            deco_args: Positional arguments, for a user's decorator.
            deco_kwargs: Keyword arguments.
            duplicates: What happens where the step has one of that name: `IGNORE`, `ERROR` or `OVERRIDE`.

        Returns:
            What was added, or None where nothing was.

        Raises:
            MutationInvalid, DecoratorInvalid: It cannot be added.
        """
        added = _decorator(deco_type, tuple(deco_args or ()), dict(deco_kwargs or {}))
        if isinstance(added, StepMutator) and not self.flow.is_pre:
            raise MutationInvalid(f"The step mutator @{added.decorator_name} can be added in pre_mutate only.", "Add it there.")
        if isinstance(added, UserDecorator):
            return self._add_user(added, duplicates)
        found = self._facts.decorators(self.name)
        if not added.repeatable and any(one.name == added.name for one in found):
            if not _replaces(duplicates, added.name, self.name):
                return None
            found = [one for one in found if one.name != added.name]
        self._facts.changed[self.name] = [*found, added]
        return added

    def _add_user(self, added: UserDecorator, duplicates: int) -> UserDecorator | None:
        used = prepared(added, self.flow.valued)
        places: dict[type, dict[str, list[Any]]] = {
            UserStepDecorator: cast("Any", self._facts.wrapped),
            StepMutator: cast("Any", self._facts.mutators),
        }
        meant = [place for kind, place in places.items() if isinstance(used, kind)]
        if any(type(one) is type(used) for place in meant for one in place.get(self.name, ())) and not _replaces(
            duplicates, used.decorator_name, self.name
        ):
            return None
        for place in meant:
            place[self.name] = [*(one for one in place.get(self.name, ()) if type(one) is not type(used)), used]
        return cast("UserDecorator", used)

    def remove_decorator(
        self, deco_name: str, deco_args: Sequence[Any] | None = None, deco_kwargs: Mapping[str, Any] | None = None
    ) -> bool:
        """Remove decorators by name; with arguments, those alone that have them.

        Returns:
            Whether there was one.
        """
        wanted = None if deco_args is None and deco_kwargs is None else (list(deco_args or ()), dict(deco_kwargs or {}))
        found = self._facts.decorators(self.name)
        kept = found if deco_args else [one for one in found if not _is_meant(one, deco_name, deco_kwargs)]
        removed = len(kept) < len(found)
        if removed:
            self._facts.changed[self.name] = kept
        users_of: tuple[dict[str, list[Any]], ...] = cast("Any", (self._facts.wrapped, self._facts.mutators))
        for there in users_of:
            users = there.get(self.name, [])
            others = [one for one in users if not (deco_name in one.spec()[:2] and wanted in (None, (one.spec()[2], one.spec()[3])))]
            removed = removed or len(others) < len(users)
            there[self.name] = others
        return removed


class MutableFlow(_Mutable):
    """A flow as a mutator sees it; its steps and the values of its configurations are attributes, too."""

    def __init__(self, cls: type, found: Facts, valued: Callable[[Any], Any], *, is_pre: bool) -> None:
        self.facts = found
        self.valued = valued
        self.is_pre = is_pre
        self._cls = cls

    @property
    def name(self) -> str:
        """The flow."""
        return self._cls.__name__

    @property
    def configs(self) -> Iterator[tuple[str, Any]]:
        """Attribute and value of each configuration."""
        for attribute, config in self.facts.configs.items():
            value = self.facts.constants.get(attribute)
            yield attribute, value if spec_of(config).plain else as_config(value)

    @property
    def parameters(self) -> Iterator[tuple[str, Any]]:
        """Attribute and Parameter."""
        yield from list(self.facts.parameters.items())

    @property
    def steps(self) -> Iterator[tuple[str, MutableStep]]:
        """Name and step."""
        for name in self.facts.steps:
            yield name, MutableStep(self, name)

    @property
    def decorator_specs(self) -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
        """Name, qualified name, positional and keyword arguments of each decorator of the class."""
        for attribute in dict.fromkeys(place[2] for place in OF_CLASSES.values()):
            for decorator in self._of_class(attribute):
                yield _spec(decorator)
        for mutator in self.facts.flow_mutators:
            yield mutator.spec()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "facts":
            raise AttributeError(name)
        if name in self.facts.steps:
            return MutableStep(self, name)
        for attribute, value in self.configs:
            if name == attribute:
                return value
        if name in self.facts.parameters:
            return self.facts.parameters[name]
        known = [*self.facts.steps, *self.facts.configs, *self.facts.parameters]
        raise AttributeError(f"Flow {self.name} has no step, configuration or parameter '{name}'.{did_you_mean(name, known)}")

    def add_parameter(self, name: str, value: Any, overwrite: bool = False) -> None:
        """Add a parameter, in `pre_mutate` only.

        Args:
            name: The attribute.
            value: The Parameter.
            overwrite: It may take the place of one that is there.

        Raises:
            MutationInvalid: It cannot be added.
        """
        self._need_pre("add_parameter", name)
        if not getattr(value, "is_flow_parameter", False):
            raise MutationInvalid(f"add_parameter takes a Parameter as '{name}', not {value!r:.200}.")
        if hasattr(self._cls, name) and not (overwrite and name in self.facts.parameters):
            more = " overwrite=True replaces it." if name in self.facts.parameters else ""
            raise MutationInvalid(f"Flow {self.name} has '{name}' already, and no parameter can be added under this name.", more.strip())
        parameter = cast("Parameter[Any]", value)
        parameter.__set_name__(self._cls, name)
        if name not in self.facts.injected:
            self.facts.injected[name] = self._cls.__dict__.get(name)
        setattr(self._cls, name, parameter)
        self.facts.parameters[name] = parameter

    def remove_parameter(self, parameter_name: str) -> bool:
        """Remove a parameter, in `pre_mutate` only.

        Returns:
            Whether there was one.
        """
        self._need_pre("remove_parameter", parameter_name)
        names = [attribute for attribute, one in self.facts.parameters.items() if parameter_name in (attribute, one.name)]
        for attribute in names:
            del self.facts.parameters[attribute]
        return bool(names)

    def add_decorator(
        self, deco_type: Any, deco_args: Sequence[Any] | None = None, deco_kwargs: Mapping[str, Any] | None = None, duplicates: int = IGNORE
    ) -> Any:
        """Add a decorator to the class, as `MutableStep.add_decorator` does to a step; a flow mutator in `pre_mutate` only.

        Raises:
            MutationInvalid, DecoratorInvalid: It cannot be added.
        """
        if isinstance(deco_type, str) and (":" in deco_type or deco_type not in OF_CLASSES):
            text, deco_type = deco_type, deco_type.partition(":")[0].strip()
            deco_type = named(deco_type, of_class=True) or deco_type
            deco_kwargs = _beside(text, deco_args, deco_kwargs)
        if isinstance(deco_type, type) and issubclass(deco_type, FlowMutator):
            self._need_pre("add_decorator", deco_type.__name__)
            if any(type(one) is deco_type for one in self.facts.flow_mutators) and not _replaces(duplicates, deco_type.__name__, self.name):
                return None
            made = prepared(deco_type(*(deco_args or ()), **(deco_kwargs or {})), self.valued)
            self.facts.flow_mutators = [*(one for one in self.facts.flow_mutators if type(one) is not deco_type), made]
            return made
        name: str = deco_type if isinstance(deco_type, str) else str(getattr(cast("object", deco_type), "__name__", "this"))
        if name not in OF_CLASSES or deco_args:
            raise MutationInvalid(f"{name!r} is no decorator of a flow's class.", f"There are: {', '.join(OF_CLASSES)}, and flow mutators.")
        module, kind, attribute = OF_CLASSES[name]
        added: StepDecorator = getattr(import_module(module), kind)(self.valued(dict(deco_kwargs or {})))
        found = self._of_class(attribute)
        if name not in _SEVERAL and found:
            if not _replaces(duplicates, name, self.name):
                return None
            found = []
        self.facts.classwide[attribute] = [*found, added]
        return added

    def remove_decorator(
        self, deco_name: str, deco_args: Sequence[Any] | None = None, deco_kwargs: Mapping[str, Any] | None = None
    ) -> bool:
        """Remove decorators of the class by name; with arguments, those alone that have them.

        Returns:
            Whether there was one.
        """
        if deco_name not in OF_CLASSES:
            return False
        attribute = OF_CLASSES[deco_name][2]
        found = self._of_class(attribute)
        kept = found if deco_args else [one for one in found if not _is_meant(one, deco_name, deco_kwargs)]
        self.facts.classwide[attribute] = kept
        return len(kept) < len(found)

    def _of_class(self, attribute: str) -> list[StepDecorator]:
        found: list[StepDecorator] = self.facts.classwide.get(attribute, getattr(self._cls, attribute, []))
        return [self.facts.configured.get(one, one) for one in found]

    def _need_pre(self, method: str, what: str) -> None:
        if not self.is_pre:
            raise MutationInvalid(f"{method}({what!r}) is possible in pre_mutate only.", "Move it there.")


def mutate(cls: type, found: Facts, valued: Callable[[Any], Any] = lambda value: value) -> None:
    """Let all mutators change what is known of a flow; what they changed before is taken back.

    Args:
        cls: The flow.
        found: Its facts.
        valued: Puts the values of configurations into an argument.

    Raises:
        UsageError: A mutator raised an exception, or asked for what cannot be.
    """
    _take_back(cls, found)
    for name, function in found.steps.items():
        info = getattr(function, INFO)
        written = dict.fromkeys((*info.wrappers, *info.mutators, *found.extra_users.get(name, ())))
        used = [prepared(one, valued) for one in written]
        found.wrapped[name] = [one for one in used if isinstance(one, UserStepDecorator)]
        found.mutators[name] = [one for one in used if isinstance(one, StepMutator)]
    found.flow_mutators = [prepared(one, valued) for base in reversed(cls.__mro__) for one in base.__dict__.get(MUTATORS, ())]
    for is_pre, method in ((True, "pre_mutate"), (False, "mutate")):
        flow = MutableFlow(cls, found, valued, is_pre=is_pre)
        _all(lambda: found.flow_mutators, method, flow)
        for name, step in flow.steps:
            _all(partial(found.mutators.__getitem__, name), method, step)
    found.see_what_is_fixed()


def _all(mutators: Callable[[], Sequence[Any]], method: str, subject: object) -> None:
    """Call all, those also that are added meanwhile."""
    done: list[Any] = []
    while todo := [one for one in mutators() if not any(one is other for other in done)]:
        for mutator in todo:
            done.append(mutator)
            try:
                with _heard_once():
                    getattr(mutator, method)(subject)
            except Exception as error:
                raise failed(mutator, method, error) from error


def _take_back(cls: type, found: Facts) -> None:
    for name, before in found.injected.items():
        if before is None:
            delattr(cls, name)
        else:
            setattr(cls, name, before)
    found.injected.clear()
    for there in (found.changed, found.wrapped, found.mutators, found.classwide):
        there.clear()
    found.parameters = dict(found.declared)


_heard: set[str] = set()
_is_task = False


def stay_silent() -> None:
    """From now on nothing that mutators print is shown: the process belongs to tasks, and the command has shown it."""
    global _is_task
    _is_task = True


@contextmanager
def _heard_once() -> Generator[None]:
    """Show what is printed within, but for what was shown before: mutators may be called again."""
    heard = StringIO()
    try:
        with redirect_stdout(heard):
            yield
    finally:
        for line in heard.getvalue().splitlines():
            if line not in _heard and not _is_task:
                sys.stderr.write(f"{line}\n")
            _heard.add(line)


def _decorator(kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(kind, type) and issubclass(kind, UserDecorator) and not kind.of_class:
        return kind(*args, **kwargs)
    if isinstance(kind, UserDecorator):
        return kind
    text = kind if isinstance(kind, str) else _name_of(cast("object", kind))
    if not (args or kwargs):
        return from_spec(text)
    _beside(text, args, kwargs)
    known = decorator_class(text)
    if known is None:
        made = from_spec(text)
        return type(made)(*args, **kwargs)
    if args:
        raise MutationInvalid(f"@{text} takes its fields by name.", "Give them as deco_kwargs.")
    if set(kwargs) == set(known.defaults):  # they are from `decorator_specs`: what was not written stays so, for @resources counts what was
        kwargs = {name: value for name, value in kwargs.items() if value != known.defaults[name]}
    made = known(kwargs)
    for mistake in made.mistakes():
        raise DecoratorInvalid(mistake)
    return made


def _beside(text: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The fields in a text, or those beside it."""
    if ":" not in text:
        return kwargs
    if args or kwargs:
        raise MutationInvalid(f"'{text}' has arguments already.", "Give them in the text, or beside it.")
    return fields_of(text)


def _spec(decorator: StepDecorator) -> tuple[str, str, list[Any], dict[str, Any]]:
    """With the defaults of what was not written."""
    return decorator.name, f"{type(decorator).__module__}.{type(decorator).__qualname__}", [], {**decorator.defaults, **decorator.given}


def _is_meant(decorator: StepDecorator, name: str, kwargs: Mapping[str, Any] | None) -> bool:
    """Whether it has this name, and was written with these arguments or comes to them."""
    return decorator.name == name and (kwargs is None or kwargs in (dict(decorator.given), _spec(decorator)[3]))


def _name_of(function: object) -> str:
    name = getattr(function, "__name__", "")
    home = REGISTRY.get(name)
    if home is not None and getattr(function, "__module__", "") == home[0]:
        return cast("str", name)
    raise MutationInvalid(f"{function!r:.200} is no decorator of steps.", f"There are: {', '.join(REGISTRY)}, and those that users write.")


def _replaces(duplicates: int, name: str, where: str) -> bool:
    if duplicates == ERROR:
        raise MutationInvalid(f"'{where}' has @{name} already, and a mutator adds it with duplicates=ERROR.", "Remove one of them.")
    return duplicates == OVERRIDE
