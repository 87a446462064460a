"""Running one step: what a worker calls, in this order.

    flow = instantiate(cls, step, ...)            an instance at its place in the run
    done = run_step(flow, timeout_s=, last=)      decorators, body, `self.next`; or what @catch made of it
    outcome = collect(flow)                       what is to be kept, by value and by reference

or `record_crash(flow, crash)` in place of `run_step`, for the attempt that only tells `@catch` of a crash, and
`leave_out(flow, names, error, done)` where `@catch` takes that something cannot be kept. Nothing
here does I/O but by the views that it is given. An exception of the body leaves as it is; `tracebacks` shows it.
"""

import signal
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple, cast

from evflow.exception import FailureHandledByCatch, FunctionIsNoArtifact, InvalidNextException, TimeoutException, class_name, text_of
from evflow.flow import dialect
from evflow.flow.decorators.base import StepDecorator
from evflow.flow.flowspec import FlowSpec
from evflow.flow.joined import JoinedTasks, OpenViews
from evflow.flow.merging import passed_down
from evflow.flow.scope import IMMUTABLE, AnyFlow, Entry, Frame, LoadItem, Scope, View, place, scope_of
from evflow.flow.steps import facts, is_function, is_kept
from evflow.flow.transitions import END, Transition, finish

__all__ = ["Done", "Frame", "Outcome", "Transition", "collect", "instantiate", "leave_out", "record_crash", "run_step"]


class Done(NamedTuple):
    """A step that counts as done.

    Attributes:
        transition: What comes next.
        caught: The exception that `@catch` took, `module.Class: text`, or None.
    """

    transition: Transition
    caught: str | None = None


class Outcome(NamedTuple):
    """What a task leaves to those after it.

    Attributes:
        values: Name to value of what has to be serialised: what was set, and what was read and can have changed.
        base: The view whose entries go on unchanged, but for those in `values` and `without`.
        without: Names of `base` that do not go on.
        inherited: More entries that go on unchanged, from the inputs of a join; they come before those of `base`.
        read_through: Views besides `base` that values were read through: those of a join's inputs.
    """

    values: Mapping[str, object]
    base: View
    without: frozenset[str]
    inherited: Mapping[str, Entry]
    read_through: Sequence[View] = ()


def instantiate(
    cls: type[AnyFlow],
    step: str,
    *,
    parameters: View,
    view: View | None = None,
    parents: Iterable[Sequence[Any]] | None = None,
    open_views: OpenViews | None = None,
    frames: Iterable[Sequence[Any]] = (),
    joined: Sequence[Any] | None = None,
    load_item: LoadItem | None = None,
) -> AnyFlow:
    """Make the instance that runs a task.

    Args:
        cls: The flow.
        step: The step.
        parameters: The manifest of parameters and constants.
        view: The parent's artifacts; for the first step `parameters`, for a join nothing.
        parents: `(step, task, manifest)` of the tasks that a join joins, in order; None for any other step.
        open_views: Opens their manifests, many at a time.
        frames: The splits around the task, as `AttemptOrder.frames`.
        joined: The split that a join closes, of the same form, with any index.
        load_item: Loads an item of a foreach by the digest of the items and its index.
    """
    around = tuple(Frame(*frame) for frame in frames)
    tasks = None
    if parents is not None:
        assert open_views is not None
        closed = None if joined is None else Frame(*joined)
        tasks = JoinedTasks(cls, parents, open_views, parameters=parameters, frames=around, joined=closed, load_item=load_item)
        view = None
    elif view is None:
        view = parameters
    return place(cls, Scope(step, parameters=parameters, view=view, joined=tasks, frames=around, load_item=load_item))


def run_step(flow: FlowSpec, *, timeout_s: float = 0, last: bool = True) -> Done:
    """Run the step's decorators and body.

    Args:
        flow: The instance.
        timeout_s: The body's limit, 0 for none. A plain body gets a `TimeoutException` from SIGALRM (in the main thread
            only), an `async` one is cancelled and raises it then.
        last: No attempt is left after this one, so that `@catch` applies.

    Raises:
        InvalidNextException: `self.next` was called wrongly or not at all.
        TimeoutException: The body ran into the limit.
        BaseException: What the body raised.
    """
    scope = scope_of(flow)
    decorators = facts(type(flow)).decorators(scope.step)
    try:
        for decorator in reversed(decorators):
            decorator.before(flow)
        _body(flow, scope, timeout_s)
        transition = finish(flow, scope)
        for decorator in decorators:
            decorator.after(flow)
    except (Exception, SystemExit) as error:
        if last and _is_taken(flow, decorators, error):
            return Done(_way_on(flow, scope), f"{class_name(error)}: {text_of(error)}")
        raise
    return Done(transition)


def record_crash(flow: FlowSpec, crash: str) -> Done:
    """Let `@catch` take a crash of the attempt before, of which nothing but `crash` is known; the body is not run."""
    scope = scope_of(flow)
    error = FailureHandledByCatch(scope.step, crash)
    if not _is_taken(flow, facts(type(flow)).decorators(scope.step), error):
        raise error
    return Done(_way_on(flow, scope), f"{class_name(error)}: {crash}")


def leave_out(flow: FlowSpec, names: Iterable[str], error: Exception, done: Done) -> Done:
    """Let `@catch` take that some artifacts cannot be kept: they are deleted, the others stay.

    What `@catch` took before stays in its variable.

    Raises:
        Exception: `error`, where no `@catch` stands on the step, or the artifacts are not the step's to delete.
    """
    scope = scope_of(flow)
    decorators = facts(type(flow)).decorators(scope.step)
    if not any(decorator.name == "catch" for decorator in decorators) or done.transition.items is not None:
        raise error
    for name in names:
        if name not in flow.__dict__:
            raise error
        delattr(flow, name)
    error.__cause__ = error.__context__ = None  # what pickle said; the message says why
    if done.caught is not None:
        from evflow.flow.tracebacks import show, user_traceback

        show(user_traceback(error))
        return done
    _is_taken(flow, decorators, error)
    return Done(done.transition, f"{class_name(error)}: {text_of(error)}")


def collect(flow: FlowSpec, *, resumed: bool = False) -> Outcome:
    """What the step leaves behind; call it once, after the step is done.

    Args:
        flow: The instance.
        resumed: The run resumes another one: the task before may have been taken over from it, with its parameters.

    Raises:
        FunctionIsNoArtifact: A function stands in an attribute, and Metaflow's rules, which leave it out, are not in force.
    """
    scope = scope_of(flow)
    cls = type(flow)
    inherited = passed_down(scope) if scope.joined is not None else {}
    values: dict[str, object] = {}
    functions: list[tuple[str, object]] = []
    for name, value in flow.__dict__.items():
        if not is_kept(name, cls):
            continue
        if scope.read.get(name, scope) is value:
            if _may_have_changed(value) and (scope.joined is None or name in inherited):
                values[name] = value
        elif is_function(value):
            functions.append((name, value))
        else:
            values[name] = value
    if functions and not dialect.is_metaflow():
        raise FunctionIsNoArtifact(cls.__name__, scope.step, functions)
    if resumed and scope.view is not None:
        values |= _of_this_run(scope.parameters, scope.view)
    base = scope.view if scope.view is not None else scope.parameters
    return Outcome(
        values=values,
        base=base,
        without=frozenset(scope.removed),
        inherited={name: entry for name, entry in inherited.items() if name not in values},
        read_through=scope.read_through,
    )


def _of_this_run(parameters: View, view: View) -> dict[str, object]:
    """The parameters and constants of the run that the task before had not, or had with another value."""
    names = parameters.names()
    return {name: parameters.load(name) for name in names if name not in view or view.entry(name).digest != parameters.entry(name).digest}


def _may_have_changed(value: object) -> bool:
    return not isinstance(value, IMMUTABLE) or type(value) not in IMMUTABLE


def _body(flow: FlowSpec, scope: Scope, timeout_s: float) -> None:
    from evflow.imports import user_view

    body: Callable[..., object] = getattr(flow, scope.step)
    arguments = () if scope.joined is None else (scope.joined.inputs,)
    wrappers = facts(type(flow)).wrapped.get(scope.step)
    if wrappers:
        from evflow.flow.user_decorators import run_wrapped

        def call(function: Callable[..., object], given: tuple[object, ...]) -> object:
            result = function(*given)
            if not hasattr(result, "__await__"):
                return result
            _await(cast("Coroutine[Any, Any, object]", result), scope.step, timeout_s)
            return None

        with user_view(), _alarm(scope.step, timeout_s):
            run_wrapped(flow, scope.step, wrappers, body, arguments, call)
        return
    with user_view():
        if timeout_s:
            with _alarm(scope.step, timeout_s):
                result = body(*arguments)
        else:
            result = body(*arguments)
        if hasattr(result, "__await__"):
            _await(cast("Coroutine[Any, Any, object]", result), scope.step, timeout_s)


def _await(body: Coroutine[Any, Any, object], step: str, timeout_s: float) -> None:
    """Run an `async` body on a loop of its own."""
    from evflow.imports import framework_view, user_view

    async def limited() -> None:
        with anyio.move_on_after(timeout_s or None) as limit, user_view():
            await body
        if limit.cancelled_caught:
            raise TimeoutException(step, timeout_s)

    with framework_view():  # anyio imports more of itself when a loop begins
        import anyio

        anyio.run(limited)


@contextmanager
def _alarm(step: str, timeout_s: float) -> Generator[None]:
    """Raise `TimeoutException` in the main thread after `timeout_s`."""

    def ring(_: int, __: FrameType | None) -> None:
        raise TimeoutException(step, timeout_s)

    try:
        before = signal.signal(signal.SIGALRM, ring)
    except ValueError:  # not the main thread. Asking `threading` would load it, which every fork pays for with 0.5 ms.
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_taken(flow: FlowSpec, decorators: Sequence[StepDecorator], error: BaseException) -> bool:
    return any(decorator.takes(flow, error) for decorator in decorators)


def _way_on(flow: FlowSpec, scope: Scope) -> Transition:
    """The transition of a step that `@catch` ended: what it said, else the only one in its source."""
    if scope.transition is not None:
        return scope.transition
    from evflow.flow.graph import read_node

    node = read_node(type(flow), scope.step)
    if not node.out:
        return END
    if node.kind not in ("linear", "join", "split"):
        raise InvalidNextException(
            f"@catch cannot tell where to go on after step {scope.step}, whose self.next() depends on what it does.",
            "Put @catch on a step with one plain self.next().",
        )
    return Transition("split" if node.kind == "split" else "linear", node.out)
