"""`FlowSpec`: the class that users derive their flows from.

An instance lives in one of three ways: inert (`F(use_cli=False)`, or while a file is loaded by a worker), as the
start of the command line (`F()` at the foot of the user's file), or inside a task, with a `Scope`.

A user's import pays for this module; what only a task or a command needs is imported there.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self

from evflow.errors import UsageError
from evflow.flow import loading
from evflow.flow.steps import NOT_MODIFIABLE, SCOPE, StepFunction, Where, caller, facts, frame_above

if TYPE_CHECKING:
    from evflow.flow.graph_view import GraphView
    from evflow.flow.scope import Scope

EXIT_INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as `evflow.cli.render` has it."""


class FlowHasConstructor(UsageError):
    """A flow's class defines `__init__`."""

    code = "flow-has-constructor"

    def __init__(self, flow: str, where: Where) -> None:
        super().__init__(
            f"Flow {flow} has an __init__ of its own, which no task would run ({where}).",
            "Set artifacts in the first step, and what never changes in the class's body.",
        )


class FlowSpec:
    """A flow: its steps are methods marked with `@step`, its artifacts are attributes set on `self`."""

    __slots__ = ("__dict__", "__weakref__", "_evflow_scope")

    _evflow_scope: "Scope | None"

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Refuse a constructor of the flow's own: tasks run without one, and without ours `F()` would do nothing, silently."""
        super().__init_subclass__(**arguments)
        if "__init__" in cls.__dict__:
            from evflow.flow.decorators.base import raise_at_import

            raise_at_import(FlowHasConstructor(cls.__name__, caller(1)))

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Make an instance without a place in a run."""
        flow = super().__new__(cls)
        object.__setattr__(flow, SCOPE, None)
        return flow

    def __init__(self, use_cli: bool = True) -> None:
        """Start the command line on `sys.argv`, or do nothing.

        Args:
            use_cli: Start the command line. Nothing is started while evflow itself loads the file.
        """
        if not use_cli or loading.is_inert(type(self)):
            return
        try:
            from evflow.imports import framework_view

            with framework_view():
                from evflow.cli.start import main
            main(type(self), frame_above(1))
        except KeyboardInterrupt:
            # Before the command line is there to say so itself, Ctrl-C ends it as it ends any program: without our frames.
            raise SystemExit(EXIT_INTERRUPTED) from None

    # --- what a step calls ------------------------------------------------------------------------------

    def next(
        self,
        *steps: Callable[..., Any] | Mapping[Any, Callable[..., Any]],
        foreach: str | None = None,
        condition: str | None = None,
        num_parallel: int | None = None,
    ) -> None:
        """Say which step comes next, as the last act of a step.

        `self.next(self.a)` goes on with `a`; `self.next(self.a, self.b)` with both in parallel, until a join;
        `self.next(self.a, foreach="items")` with one task for each item of `self.items`, until a join;
        `self.next({"x": self.a, "y": self.b}, condition="kind")` with the step that the value of `self.kind` names.

        Raises:
            InvalidNextException: The call is wrong, or it is the second one.
        """
        from evflow.flow.transitions import say_next

        say_next(self, self._evflow_task("next"), steps, foreach, condition, num_parallel, caller(1))

    @property
    def input(self) -> Any:
        """The item of the innermost foreach around this task; None outside of one."""
        scope = self._evflow_task("input")
        frames = scope.foreach_frames
        return scope.item(frames[-1]) if frames else None

    @property
    def index(self) -> int | None:
        """The position of `input` in the foreach, from 0; None outside of one."""
        frames = self._evflow_task("index").foreach_frames
        return frames[-1].position if frames else None

    def foreach_stack(self) -> list[tuple[int, int, Any]]:
        """Every foreach around this task, outermost first: `(index, number of items, item)`."""
        scope = self._evflow_task("foreach_stack")
        return [(frame.position, frame.size, scope.item(frame)) for frame in scope.foreach_frames]

    def merge_artifacts(self, inputs: Any, exclude: Iterable[str] = (), include: Iterable[str] = ()) -> None:
        """In a join, pass the inputs' artifacts down where all inputs that have one agree on its value.

        Args:
            inputs: The inputs of the join, or a list of some of them.
            exclude: Artifacts to leave out.
            include: The only artifacts to pass down. Give one of the two.

        Raises:
            UnhandledInMergeArtifactsException: Inputs have different values and the step did not set its own before.
            MissingInMergeArtifactsException: No input has an artifact of `include`.
        """
        from evflow.flow.merging import merge

        merge(self, self._evflow_task("merge_artifacts"), inputs, exclude or (), include or ())

    def _evflow_task(self, what: str) -> "Scope":
        if self._evflow_scope is None:
            raise AttributeError(f"{type(self).__name__}.{what} is there only while a step runs.")
        return self._evflow_scope

    # --- artifacts --------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if hasattr(type(self), name):
            # A property of the user's raised AttributeError itself: show that one.
            return object.__getattribute__(self, name)
        scope: Scope | None = object.__getattribute__(self, SCOPE)
        if name == "name" and (scope is None or not scope.inherits(name)):
            return type(self).__name__  # an artifact of that name takes its place
        if scope is None or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"Flow {type(self).__name__} has no attribute '{name}'")
        if name == "_current_step":  # as Metaflow's flows ask for it
            return scope.step
        if name == "_foreach_stack":  # the same
            from evflow.flow.foreach_frame import ForeachFrame

            frames = scope.foreach_frames
            return [ForeachFrame(frame.step, frame.variable, frame.size, frame.position, scope.item(frame)) for frame in frames]
        return scope.fetch(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in facts(type(self)).fixed:
            self._evflow_refuse(name)
        scope = self._evflow_scope
        if scope is not None:
            scope.read.pop(name, None)
            scope.removed.discard(name)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        if name in facts(type(self)).fixed:
            self._evflow_refuse(name)
        scope = self._evflow_scope
        if scope is None or name in self.__dict__ or not scope.inherits(name):
            getattr(self, name)  # an unknown name is told as when it is read
            object.__delattr__(self, name)
        if scope is not None:
            scope.read.pop(name, None)
            scope.removed.add(name)

    def _evflow_refuse(self, name: str) -> NoReturn:
        found = facts(type(self))
        if name in found.parameters or name in found.constants or name in found.configs:
            what = "a Parameter" if name in found.parameters else "a Config" if name in found.configs else "a constant of the class"
            raise AttributeError(f"{NOT_MODIFIABLE}: '{name}' is {what}. Keep the new value under another name.")
        what = "a step" if name in found.steps else "a word of the flow language"
        raise AttributeError(f"'{name}' is {what}, not an artifact of {type(self).__name__}. Choose another name.")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "Flows can't be serialized. Maybe you tried to assign self or one of the inputs to an attribute? "
            "Keep the values that you need from it."
        )

    # --- the graph --------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[StepFunction]:
        """The steps, as functions with a `name`."""
        return iter(facts(type(self)).steps.values())

    @property
    def _graph(self) -> "GraphView":
        from evflow.flow.graph_view import GraphView

        return GraphView(type(self))

    @property
    def script_name(self) -> str:
        """The name of the file that defines the flow."""
        file = getattr(sys.modules.get(type(self).__module__), "__file__", None) or ""
        return file.rpartition("/")[2]

    def __repr__(self) -> str:
        scope = self._evflow_scope
        return f"<{type(self).__name__} in step {scope.step}>" if scope is not None else f"<{type(self).__name__}>"
