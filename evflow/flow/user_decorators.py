"""Decorators of steps that users write: `@user_step_decorator`, `UserStepDecorator`, and the base of mutators.

The names and meanings are Metaflow's. A decorator wraps the body of a step: what it does before comes first for the outermost one, what it
does after comes last for it. It may put another function in the body's place, or skip it. evflow's own decorators are outside of all of
them: a failure that a user's decorator lets through is retried, caught and timed like the body's own.

What is written at a step is a declaration. `prepared` makes of it what is used: with values in the place of configurations, and after its
`init` was called.
"""

import copy
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar, cast, overload

from evflow.errors import UsageError
from evflow.flow.decorators.base import DecoratorInvalid, raise_at_import
from evflow.flow.steps import INFO, MUTATORS, Where, caller

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec

USER_SKIP_STEP: Final[dict[str, Any]] = {}
"""What a decorator yields to skip the step: it goes on as its source says."""

F = TypeVar("F", bound=Callable[..., Any])
D = TypeVar("D")

Call = Callable[[Callable[..., object], tuple[object, ...]], object]


class UserDecoratorFailed(UsageError):
    """A decorator or mutator of the user's did what it may not."""

    code = "user-decorator-failed"


class StepDecoration(Protocol):
    """What a type checker knows of a decorator that `user_step_decorator` made."""

    @overload
    def __call__(self, step: F, /) -> F: ...
    @overload
    def __call__(self, **attributes: Any) -> Callable[[F], F]: ...


class UserDecorator:
    """What a user's decorators and mutators are: arguments, written at a step or a class.

    Attributes:
        where: The line that it stands on.
    """

    of_class: ClassVar[bool] = False
    """It stands on a flow's class, else on a step."""
    where: Where
    _given: tuple[tuple[Any, ...], Mapping[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make one; used bare, what it stands on is given back."""
        made = super().__new__(cls)
        made.where = caller(1)
        if len(args) == 1 and not kwargs and cls._fits(args[0]):
            made._given = ((), {})
            return made(args[0])
        made._given = (args, kwargs)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: see `init`."""

    def __call__(self, decorated: D) -> D:
        """Put it on a step, or on a class."""
        if not self._fits(decorated):
            what = "a flow's class" if self.of_class else "a step"
            hint = "Put it above the class." if self.of_class else "Put it above @step."
            raise_at_import(DecoratorInvalid(f"@{self.decorator_name} stands on something that is not {what} ({self.where}).", hint))
        if self.of_class:
            # The one above is applied last: the first in the source comes first.
            setattr(decorated, MUTATORS, [self, *decorated.__dict__.get(MUTATORS, ())])
        else:
            self.attach(getattr(decorated, INFO))
        return decorated

    def attach(self, info: Any) -> None:
        """Note it at a step."""
        info.wrappers.append(self)

    def init(self, *args: Any, **kwargs: Any) -> None:
        """Take what it was written with; in place of a constructor."""

    @property
    def decorator_name(self) -> str:
        """Its name for people."""
        return type(self).__name__

    @classmethod
    def _fits(cls, decorated: object) -> bool:
        if cls.of_class:
            from evflow.flow.flowspec import FlowSpec

            return isinstance(decorated, type) and issubclass(decorated, FlowSpec)
        return getattr(decorated, INFO, None) is not None

    def settle(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take arguments in which configurations have their values."""
        self._given = args, kwargs

    def spec(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        """Name, qualified name, arguments: a mutator's `decorator_specs` has one for each."""
        args, kwargs = self._given
        return self.decorator_name, f"{type(self).__module__}.{type(self).__qualname__}", list(args), dict(kwargs)

    def __repr__(self) -> str:
        return f"<@{self.decorator_name} at {self.where}>"


class UserStepDecorator(UserDecorator):
    """A decorator of steps as a class: `init`, `pre_step`, `post_step`, `skip_step`."""

    skip_step: bool | dict[str, Any] = False
    """Set by `pre_step` to skip the body: True, or what `self.next` is called with beside the step's own targets."""

    def pre_step(self, step_name: str, flow: "FlowSpec", inputs: Any = None) -> Callable[..., Any] | None:
        """Run before the body; a function that is returned is run in its place."""
        return None

    def post_step(self, step_name: str, flow: "FlowSpec", exception: BaseException | None = None) -> Any:
        """Run after the body.

        Returns:
            The exception that goes on, or None for none; with a dictionary beside it, what `self.next` is called with anew. A bool there is
            as for `skip_step`.
        """
        return exception


class _Generated(UserStepDecorator):
    """A decorator that a generator function describes."""

    generator: ClassVar[Callable[..., Generator[Any, Any, Any]]]

    def pre_step(self, step_name: str, flow: "FlowSpec", inputs: Any = None) -> Callable[..., Any] | None:
        """Run it up to its `yield`; without one the body is skipped."""
        kind = type(self)
        arguments = (step_name, flow, inputs, dict(self._given[1]))[: len(inspect.signature(kind.generator).parameters)]
        self._running: Generator[Any, Any, Any] | None = kind.generator(*arguments)
        self.skip_step = False
        try:
            yielded = next(self._running)
        except StopIteration as end:
            self._running = None
            self.skip_step = _fields(end.value) or True
            return None
        if isinstance(yielded, dict):
            self.skip_step = cast("dict[str, Any]", yielded) or True
            return None
        if yielded is not None and not callable(yielded):
            raise UserDecoratorFailed(
                f"@{self.decorator_name} on step {step_name} yielded {yielded!r:.200}.",
                "It yields nothing, a function, or a dictionary to skip the step.",
            )
        return cast("Callable[..., Any] | None", yielded)

    def post_step(self, step_name: str, flow: "FlowSpec", exception: BaseException | None = None) -> Any:
        """Go on behind its `yield`, which raises what the body raised."""
        running, self._running = self._running, None
        if running is None:
            return exception
        try:
            if exception is None:
                next(running)
            else:
                running.throw(exception)
        except StopIteration as end:
            return (None, _fields(end.value)) if _fields(end.value) else None
        except Exception as error:  # noqa: BLE001 - it goes on to whoever is outside
            return error
        running.close()
        return UserDecoratorFailed(f"@{self.decorator_name} on step {step_name} yielded a second time.", "It yields once.")


def user_step_decorator(function: Callable[..., Generator[Any, Any, Any]], /) -> StepDecoration:
    """Make a step decorator of a generator function.

    `def profile(step_name, flow, inputs=None, attributes=None)`: what stands before its `yield` runs before the step, what stands behind it
    afterwards, and an exception of the step is raised by the `yield`. Yielding a function runs it in the step's place; yielding a dictionary, or
    not at all, skips the step. `attributes` are the keyword arguments of the decorator.

    Args:
        function: The generator function.
    """
    if not inspect.isgeneratorfunction(function) or not 2 <= len(inspect.signature(function).parameters) <= 4:
        name = getattr(function, "__name__", repr(function))
        raise_at_import(
            DecoratorInvalid(
                f"@user_step_decorator takes a generator function, and {name} ({caller(1)}) is none of the right form.",
                f"Write def {name}(step_name, flow, inputs=None, attributes=None), with a yield in it.",
            )
        )
    fields = {"generator": staticmethod(function), "__module__": function.__module__, "__doc__": function.__doc__}
    return cast("StepDecoration", type(function.__name__, (_Generated,), {**fields, "__qualname__": function.__qualname__}))


def named(name: str, of_class: bool) -> type[UserDecorator] | None:
    """The decorator or mutator that somebody wrote under a name, with as much of its module before it as tells it from others.

    Args:
        name: The name of its class or function.
        of_class: One of a flow's class is meant, else one of steps.

    Raises:
        DecoratorInvalid: Several have it.
    """
    found: dict[str, type[UserDecorator]] = {}
    todo: list[type[UserDecorator]] = [UserDecorator]
    while todo:
        kind = todo.pop()
        todo.extend(kind.__subclasses__())
        full = f"{kind.__module__}.{kind.__qualname__}"
        if kind.__module__ != __name__ and kind.of_class == of_class and f".{full}".endswith(f".{name}"):
            found[full] = kind  # of a module that was loaded anew: the newest one
    if len(found) > 1:
        raise DecoratorInvalid(f"'{name}' may be {' or '.join(sorted(found))}.", "Write more of the one that is meant.")
    return next(iter(found.values()), None)


def prepared(written: UserDecorator, valued: Callable[[Any], Any]) -> Any:
    """What is used of a declaration.

    Args:
        written: The declaration.
        valued: Puts the values of configurations into an argument.

    Raises:
        UserDecoratorFailed: It does not take these arguments.
    """
    used: Any = copy.copy(written)
    _, _, args, kwargs = written.spec()
    used.settle(tuple(map(valued, args)), valued(kwargs))
    try:
        used.init(*map(valued, args), **valued(kwargs))
    except Exception as error:
        raise failed(written, "init", error) from error
    return used


def failed(written: UserDecorator, method: str, error: Exception) -> UsageError:
    """An exception of a user's decorator, for people."""
    from evflow.flow.tracebacks import user_traceback

    if isinstance(error, UsageError):
        return error
    return UserDecoratorFailed(
        f"@{written.decorator_name} ({written.where}) raised an exception in {method}:\n{user_traceback(error).rstrip()}"
    )


def run_wrapped(
    flow: "FlowSpec",
    step: str,
    wrappers: Sequence[UserStepDecorator],
    body: Callable[..., object],
    arguments: tuple[object, ...],
    call: Call,
) -> None:
    """Run a step's body within its user's decorators.

    Args:
        flow: The instance.
        step: The step.
        wrappers: The innermost one first.
        body: The body.
        arguments: What it is called with, besides the instance.
        call: Runs a function to its end, an `async` one, too.

    Raises:
        BaseException: What the body or a decorator raised, if no other one took it.
    """
    inputs = arguments[0] if arguments else None
    entered: list[UserStepDecorator] = []
    instead: Callable[..., object] | None = None
    error: Exception | None = None
    proceed: object = None
    try:
        for wrapper in reversed(wrappers):
            instead = wrapper.pre_step(step, flow, inputs)
            entered.append(wrapper)
            proceed = wrapper.skip_step
            if proceed or instead is not None:
                break
        if instead is not None and not proceed:
            proceed = call(instead, (flow, *arguments)) or True
        elif not proceed:
            call(body, arguments)
    except Exception as raised:  # noqa: BLE001 - each decorator around it is asked
        error = raised
    was = error
    for wrapper in reversed(entered):
        error, anew = _after(wrapper, step, flow, error)
        proceed = anew or proceed
    if error is not None:
        raise error
    if proceed or was is not None:
        _go_on(flow, step, cast("dict[str, Any]", proceed) if isinstance(proceed, dict) else {}, entered[-1] if entered else None)


def _fields(returned: object) -> dict[str, Any]:
    return cast("dict[str, Any]", returned) if isinstance(returned, dict) else {}


def _after(
    wrapper: UserStepDecorator, step: str, flow: "FlowSpec", error: Exception | None
) -> tuple[Exception | None, dict[str, Any] | None]:
    try:
        said: Any = wrapper.post_step(step, flow, error)
    except Exception as raised:  # noqa: BLE001 - it goes on to whoever is outside
        return raised, None
    anew: Any = None
    pair = cast("Any", said) if isinstance(said, tuple) else None
    if pair is not None and len(pair) == 2:
        said, anew = pair
        if isinstance(anew, bool):  # whether `self.next` is called as the source says
            anew = USER_SKIP_STEP if anew else None
    if (said is None or isinstance(said, Exception)) and (anew is None or isinstance(anew, dict)):
        return said, cast("dict[str, Any] | None", anew)
    text = f"@{wrapper.decorator_name} on step {step} returned {said!r:.200} from post_step."
    return UserDecoratorFailed(text, "It returns an exception or None, alone or with a dictionary for self.next."), None


def _go_on(flow: "FlowSpec", step: str, fields: dict[str, Any], wrapper: UserStepDecorator | None) -> None:
    """Call `self.next` as the step's source does, with other fields where there are some."""
    from evflow.flow.graph import read_node
    from evflow.flow.scope import scope_of

    node = read_node(type(flow), step)
    if not node.out:
        return
    scope = scope_of(flow)
    if scope.transition is not None and not fields:
        return  # the body came so far
    scope.transition = None
    targets: list[Any] = [getattr(flow, name) for name in node.out]
    if node.kind == "foreach":
        fields = {"foreach": node.foreach, **fields}
    elif node.kind == "switch":
        targets, fields = [{case: getattr(flow, name) for case, name in node.cases.items()}], {"condition": node.condition, **fields}
    elif node.kind == "conditional":
        who = f"@{wrapper.decorator_name}" if wrapper is not None else "A decorator"
        raise UserDecoratorFailed(
            f"{who} skipped the body of step {step}, which alone says which of {', '.join(node.out)} comes next.",
            "Let it call flow.next itself, or skip steps with one self.next.",
        )
    flow.next(*targets, **fields)


class StepMutator(UserDecorator):
    """Changes the decorators of a step before a run begins: `init`, `pre_mutate(mutable_step)`, `mutate(mutable_step)`."""

    def attach(self, info: Any) -> None:
        """Note it at a step; a class may be a decorator as well."""
        info.mutators.append(self)
        if isinstance(self, UserStepDecorator):
            info.wrappers.append(self)

    def pre_mutate(self, mutable_step: Any) -> None:
        """Change the step, before all `mutate`s."""

    def mutate(self, mutable_step: Any) -> None:
        """Change the step."""


class FlowMutator(UserDecorator):
    """Changes a flow's steps, decorators and parameters before a run begins: `init`, `pre_mutate(mutable_flow)`, `mutate(mutable_flow)`."""

    of_class = True

    def pre_mutate(self, mutable_flow: Any) -> None:
        """Change the flow, before all `mutate`s; parameters are added and removed here."""

    def mutate(self, mutable_flow: Any) -> None:
        """Change the flow."""
