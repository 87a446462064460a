"""`@pypi` and `@conda`: the packages, and the Python, that a step runs with; `@pypi_base` and `@conda_base` say it for all steps.

A step's own values override those of its flow: package by package, Python, `disabled`. A step that has one of the two kinds itself
takes nothing of a flow's other kind. What they ask for is resolved when a run begins (`evflow.environments`); a user's import pays
for this module, so that is imported where a flow is run.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast, overload

from evflow.flow.decorators.base import F, StepDecorator, apply
from evflow.flow.decorators.of_class import apply_to_class, configured
from evflow.flow.steps import Where, facts

if TYPE_CHECKING:
    from evflow.environments.spec import Kind

C = TypeVar("C", bound=type)

BASES: Final = "_evflow_environments"
"""The attribute of a class that has its `@pypi_base` and `@conda_base`; `evflow.flow.checks` knows it too."""
_KINDS: Final = ("pypi", "conda")


class Asked(NamedTuple):
    """What a step asks for: the fields of `evflow.environments.spec.Spec`."""

    kind: "Kind"
    packages: dict[str, str]
    python: str


class Pypi(StepDecorator):
    """See `pypi`."""

    name = "pypi"
    defaults = MappingProxyType({"packages": {}, "python": None, "disabled": None})

    def mistakes(self) -> Iterator[str]:
        """Names with versions, a version of Python, a yes or no."""
        for field in ("packages", "libraries") if "libraries" in self.defaults else ("packages",):
            given = self.value(field)
            if not isinstance(given, Mapping):
                yield f"@{self.name} takes a dict of names and versions as {field}, not {given!r}."
                continue
            for name, version in cast("Mapping[object, object]", given).items():
                if not isinstance(name, str) or not name.strip():
                    yield f"@{self.name}: {name!r} is no name of a package."
                elif not isinstance(version, str | int | float) or isinstance(version, bool) or "\n" in f"{name}{version}":
                    yield f"@{self.name}: the version of {name} is {version!r}: it is a text, such as '2.2.3' or '>=2,<3'."
        python = self.value("python")
        if python is not None and (not isinstance(python, str) or not python.strip("=<>!~ ")[:1].isdigit()):
            yield f"@{self.name}: python is {python!r}: it is a version in quotes, such as '3.12'."
        if not isinstance(self.value("disabled"), bool | None):
            yield f"@{self.name}: disabled is {self.value('disabled')!r}: it is True or False."

    def packages(self) -> dict[str, str]:
        """Name to version."""
        found: dict[str, Any] = {**(self.given.get("libraries") or {}), **self.value("packages")}  # type: ignore[dict-item]
        return {name.strip(): str(version).strip() for name, version in found.items()}


class Conda(Pypi):
    """See `conda`."""

    name = "conda"
    defaults = MappingProxyType({"packages": {}, "libraries": {}, "python": None, "disabled": None})


class PypiBase(Pypi):
    """See `pypi_base`: a decorator of a class; nothing of a step decorator but its fields and messages is asked of it."""

    name = "pypi_base"


class CondaBase(Conda):
    """See `conda_base`."""

    name = "conda_base"


@overload
def pypi(function: F, /) -> F: ...
@overload
def pypi(*, packages: Mapping[str, str] = {}, python: str | None = None, disabled: bool | None = None) -> Callable[[F], F]: ...
def pypi(function: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Run the step with these packages from PyPI, and nothing else: in an environment of its own, which is made when it is needed.

    Args:
        function: The step, where it is used bare.
        packages: Name to version, exact (`2.2.3`) or a range (`>=2,<3`); an empty one is any.
        python: The version of Python, 3.11 or later; that of the run if not given.
        disabled: True: the step runs without an environment, whatever its flow says.
    """
    return apply(Pypi, function, fields)


@overload
def conda(function: F, /) -> F: ...
@overload
def conda(
    *,
    packages: Mapping[str, str] = {},
    libraries: Mapping[str, str] = {},
    python: str | None = None,
    disabled: bool | None = None,
) -> Callable[[F], F]: ...
def conda(function: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Run the step with these conda packages, and nothing else: in an environment of its own, which is made when it is needed.

    Args:
        function: The step, where it is used bare.
        packages: Name to version, exact (`2.2.3`) or a range (`>=2,<3`); a name may begin with its channel (`bioconda::samtools`).
        libraries: The same, by its older name.
        python: The version of Python, 3.11 or later; that of the run if not given.
        disabled: True: the step runs without an environment, whatever its flow says.
    """
    return apply(Conda, function, fields)


@overload
def pypi_base(cls: C, /) -> C: ...
@overload
def pypi_base(*, packages: Mapping[str, str] = {}, python: str | None = None, disabled: bool | None = None) -> Callable[[C], C]: ...
def pypi_base(cls: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Put `@pypi` on every step of the flow; what a step says itself goes first.

    Args:
        cls: The flow, where it is used bare.
        packages: As for `pypi`.
        python: As for `pypi`.
        disabled: As for `pypi`.
    """
    return apply_to_class(PypiBase, BASES, cls, fields, field="packages")


@overload
def conda_base(cls: C, /) -> C: ...
@overload
def conda_base(
    *,
    packages: Mapping[str, str] = {},
    libraries: Mapping[str, str] = {},
    python: str | None = None,
    disabled: bool | None = None,
) -> Callable[[C], C]: ...
def conda_base(cls: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Put `@conda` on every step of the flow; what a step says itself goes first.

    Args:
        cls: The flow, where it is used bare.
        packages: As for `conda`.
        libraries: As for `conda`.
        python: As for `conda`.
        disabled: As for `conda`.
    """
    return apply_to_class(CondaBase, BASES, cls, fields, field="packages")


def mistakes(cls: type) -> Iterator[tuple[Where, str, str]]:
    """What is wrong with a flow's environments beyond a single step's decorator: where, the step or nothing, and a sentence."""
    found: list[Pypi] = configured(cls, BASES)
    for decorator in found:
        for mistake in decorator.mistakes():
            yield decorator.where, "", mistake
    if len(found) > 1:
        names = " and ".join(f"@{decorator.name}" for decorator in found)
        yield found[0].where, "", f"Flow {cls.__name__} has {names}: keep one of them, since a step has one environment."
    for step in facts(cls).steps:
        own = [
            decorator for decorator in facts(cls).decorators(step) if decorator.name in _KINDS and decorator.value("disabled") is not True
        ]
        if len({decorator.name for decorator in own}) > 1:
            yield own[0].where, step, f"Step {step} has @pypi and @conda: keep one of them, since a step has one environment."


def asked_for(cls: type) -> dict[str, Asked]:
    """What the steps of a flow without mistakes ask for; a step that asks for nothing is not in it."""
    base: Pypi | None = None if facts(cls).bare else next(iter(configured(cls, BASES)), None)
    found: dict[str, Asked] = {}
    for step in facts(cls).steps:
        own = [decorator for decorator in facts(cls).decorators(step) if isinstance(decorator, Pypi)]
        asked = _asked(base, next((one for one in own if one.value("disabled") is not True), own[0] if own else None))
        if asked is not None:
            found[step] = asked
    return found


def _asked(base: Pypi | None, own: Pypi | None) -> Asked | None:
    """A flow's and a step's together."""
    if base is not None and own is not None and isinstance(base, Conda) is not isinstance(own, Conda):
        base = own if own.value("disabled") else None  # of another kind: nothing of it, unless only to switch it off
    both = [decorator for decorator in (base, own) if decorator is not None]
    if not both:
        return None
    packages: dict[str, str] = {}
    python, disabled = "", False
    for decorator in both:
        packages.update(decorator.packages())
        python = decorator.value("python") or python
        disabled = disabled if decorator.value("disabled") is None else decorator.value("disabled")
    return None if disabled else Asked("conda" if isinstance(both[-1], Conda) else "pypi", packages, python)
