"""What makes a method a step, and what a flow's class holds: steps, parameters, constants.

`step` leaves the function as it is and hangs a `StepInfo` on it. Everything else about a class is derived from
its method resolution order once and kept on it (`facts`), because every task asks for it.

A user's `import evflow` pays for this module: it imports next to nothing.
"""

import sys
from collections.abc import Callable, Mapping
from types import FrameType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast, overload

if TYPE_CHECKING:
    from evflow.flow.configs import Config, Delayed
    from evflow.flow.decorators.base import StepDecorator
    from evflow.flow.parameters import Parameter
    from evflow.flow.user_decorators import FlowMutator, StepMutator, UserDecorator, UserStepDecorator

F = TypeVar("F", bound=Callable[..., Any])

INFO = "evflow_step"
"""The attribute of a function that makes it a step."""
FACTS = "_evflow_facts"
BASE = "FlowSpec"

MUTATORS = "_evflow_mutators"
"""The attribute of a class that has its mutators."""

SCOPE = "_evflow_scope"
"""The slot of an instance that holds its place in a run."""

LANGUAGE = frozenset({"next", "input", "index", "foreach_stack", "merge_artifacts", "script_name"})
"""Attributes that the flow language itself uses: no artifact has these names."""
RESERVED_FOR_STEPS = LANGUAGE | {"name", "cmd"}
"""Names that no step has."""

UNPACKED = "_evflow_unpacked_"
"""Begins the one key that `**cfg` gives in place of a configuration's (`evflow.flow.configs`)."""

NOT_MODIFIABLE = "Flow level attributes and Parameters are not modifiable"


class Where(NamedTuple):
    """A place in the source; an empty file and line 0 where it is not known."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "an unknown place"


NOWHERE = Where()


def caller(depth: int) -> Where:
    """The place from which a function was called, `depth` calls above the one that asks."""
    frame = frame_above(depth + 1)
    return Where(frame.f_code.co_filename, frame.f_lineno)


def frame_above(depth: int) -> FrameType:
    """The frame `depth` calls above the function that asks."""
    frame: FrameType = vars(sys)["_getframe"](depth + 1)  # not by `inspect`, which takes 10 ms to import
    return frame


class StepInfo:
    """What `@step` and the decorators above it say of a function.

    Attributes:
        name: The step's name.
        start: Said to be the first step, whatever its name.
        end: Said to be the last step, whatever its name.
        decorators: The step's decorators, the one closest to the `def` first.
        node_info: What the user attached to the step, for tools.
        wrappers: Decorators that users wrote, the one closest to the `def` first.
        mutators: The step's mutators, in that order.
    """

    __slots__ = ("decorators", "end", "mutators", "name", "node_info", "start", "wrappers")

    def __init__(self, name: str, *, start: bool, end: bool, node_info: Mapping[str, object]) -> None:
        self.name = name
        self.start = start
        self.end = end
        self.node_info = node_info
        self.decorators: list[StepDecorator] = []
        self.wrappers: list[UserDecorator] = []
        self.mutators: list[UserDecorator] = []


class StepFunction(Protocol):
    """A step as iterating over a flow gives it."""

    name: str
    is_step: bool
    decorators: "list[StepDecorator]"

    def __call__(self, *arguments: Any) -> Any:
        """Run the body."""
        ...


@overload
def step(function: F, /) -> F: ...
@overload
def step(*, start: bool = False, end: bool = False, node_info: Mapping[str, object] | None = None) -> Callable[[F], F]: ...
def step(
    function: F | None = None, /, *, start: bool = False, end: bool = False, node_info: Mapping[str, object] | None = None
) -> F | Callable[[F], F]:
    """Mark a method of a flow as one of its steps; it stands closest to the `def`.

    Args:
        function: The method, plain or `async def`.
        start: The flow starts here, whatever the step's name is.
        end: The flow ends here, whatever the step's name is.
        node_info: Facts about the step for tools that read the graph.
    """

    def mark(marked: F) -> F:
        info = StepInfo(marked.__name__, start=start, end=end, node_info=node_info or {})
        target = cast("Any", marked)
        setattr(target, INFO, info)
        # Where Metaflow's users look for them.
        target.is_step, target.name, target.decorators = True, info.name, info.decorators
        target.wrappers, target.config_decorators = info.wrappers, info.mutators
        return marked

    return mark if function is None else mark(function)


class Facts:
    """What a flow's class holds, inherited members included, in the order of the source.

    Attributes:
        steps: Name to function.
        parameters: Attribute to Parameter.
        constants: Attribute to value; those also of configurations, and of what is made of them, once they are settled.
        configs: Attribute to Config.
        delayed: Attribute to an expression over configurations, which is a constant once they are settled.
        declared: The parameters as they stand in the source: those of `parameters` have the defaults that configurations give.
        configured: A decorator that takes something of a configuration to the one that has it; filled when they are settled.
        fixed: The attributes that a step cannot set.
        extra: Decorators that `--with` added: step to decorators.
        bare: The decorators in the source do not count, as `spin --skip-decorators` wants it.
        extra_users: Those among them that users wrote.
        changed: What mutators made of the decorators of a step.
        wrapped: The decorators around a step's body that users wrote; like all that follow, filled by `evflow.flow.mutators`.
        mutators: The mutators of a step.
        flow_mutators: Those of the flow.
        classwide: What they made of the decorators of the class: attribute to decorators.
        injected: Parameters that they added, and what the class had in their place.
    """

    __slots__ = (
        "bare",
        "changed",
        "classwide",
        "configs",
        "configured",
        "constants",
        "declared",
        "delayed",
        "extra",
        "extra_users",
        "fixed",
        "flow_mutators",
        "injected",
        "methods",
        "mutators",
        "parameters",
        "steps",
        "wrapped",
    )  # fmt: skip

    def __init__(self, cls: type) -> None:
        self.steps: dict[str, StepFunction] = {}
        self.parameters: dict[str, Parameter[Any]] = {}
        self.constants: dict[str, object] = {}
        self.configs: dict[str, Config] = {}
        self.delayed: dict[str, Delayed] = {}
        self.configured: dict[StepDecorator, StepDecorator] = {}
        self.methods: dict[str, FunctionType] = {}
        self.extra: dict[str, list[StepDecorator]] = {}
        self.bare = False
        self.extra_users: dict[str, list[UserDecorator]] = {}
        self.changed: dict[str, list[StepDecorator]] = {}
        self.wrapped: dict[str, list[UserStepDecorator]] = {}
        self.mutators: dict[str, list[StepMutator]] = {}
        self.flow_mutators: list[FlowMutator] = []
        self.classwide: dict[str, list[StepDecorator]] = {}
        self.injected: dict[str, object] = {}
        for name, value in _members(cls).items():
            self._sort_in(name, value)
        self.declared = dict(self.parameters)
        self.see_what_is_fixed()

    def see_what_is_fixed(self) -> None:
        """Work out `fixed`."""
        self.fixed = frozenset({*self.steps, *self.parameters, *self.constants, *self.configs, *self.delayed, *LANGUAGE})

    def has_users(self) -> bool:
        """Whether a step has decorators or mutators that users wrote."""
        infos = [getattr(function, INFO) for function in self.steps.values()]
        return any(info.wrappers or info.mutators for info in infos) or any(self.extra_users.values())

    def _sort_in(self, name: str, value: object) -> None:
        if getattr(value, "is_delayed", False):
            if cast("Delayed", value).is_flow_config:
                self.configs[name] = cast("Config", value)
            else:
                self.delayed[name] = cast("Delayed", value)
        elif getattr(value, INFO, None) is not None:
            self.steps[name] = cast("StepFunction", value)
        elif getattr(value, "is_flow_parameter", False):
            self.parameters[name] = cast("Parameter[Any]", value)
        elif isinstance(value, FunctionType):
            self.methods[name] = value
        elif not name.startswith("_") and not hasattr(value, "__get__") and not isinstance(value, type):
            self.constants[name] = value

    def decorators(self, name: str) -> "list[StepDecorator]":
        """A step's decorators, those of `--with` last."""
        found = (
            self.changed[name] if name in self.changed else [*(() if self.bare else self.steps[name].decorators), *self.extra.get(name, ())]
        )
        return [self.configured.get(one, one) for one in found] if self.configured else found


def facts(cls: type) -> Facts:
    """What the class holds; worked out at its first use."""
    found = cls.__dict__.get(FACTS)
    if found is None:
        found = Facts(cls)
        setattr(cls, FACTS, found)
        if not found.configs and is_mutated(cls, found):  # else when they are settled
            from evflow.flow.mutators import mutate

            try:
                mutate(cls, found)
            except BaseException:
                delattr(cls, FACTS)  # whoever asks next is told, too
                raise
    return cast("Facts", found)


def is_mutated(cls: type, found: Facts) -> bool:
    """Whether anything that users wrote changes the flow or wraps its steps: few flows pay for it."""
    return hasattr(cls, MUTATORS) or found.has_users()


def is_kept(name: str, cls: type) -> bool:
    """Whether an attribute of this name is kept as an artifact: not if it starts with `__`.

    Python writes `self.__x` of a class as `_Class__x`; that is such a name too.
    """
    if name.startswith("__"):
        return False
    return not (name.startswith("_") and any(name.startswith(f"_{base.__name__.lstrip('_')}__") for base in cls.__mro__))


def is_function(value: object) -> bool:
    """Whether a value is a function or a method, which no artifact can be."""
    return isinstance(value, FunctionType | MethodType)


def _members(cls: type) -> dict[str, object]:
    """The public surface of the class: a subclass's member takes the place of its base's."""
    members: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        if base is object or (base.__name__ == BASE and base.__module__ == "evflow.flow.flowspec"):
            continue
        members.update((name, value) for name, value in base.__dict__.items() if not name.startswith("__"))
    return members
