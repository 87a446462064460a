"""What an instance of a flow knows while it runs a step: where it stands and where its artifacts come from.

The instance's `__dict__` holds what the body set and what it read; the scope tells the two apart. Reading goes
to the parent's artifacts (a linear step), or to those on which all inputs agree (a join), at the first use only.

The scope does no I/O but by the views and the two functions that it is given.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from evflow.errors import did_you_mean
from evflow.flow import dialect
from evflow.flow.steps import SCOPE, Where, facts, is_kept

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec
    from evflow.flow.joined import JoinedTasks
    from evflow.flow.transitions import Transition

AnyFlow = TypeVar("AnyFlow", bound="FlowSpec")

IMMUTABLE = (type(None), bool, int, float, complex, str, bytes, range)
"""A value of these that was only read needs no look whether it changed."""
MOST_NAMES = 20
"""How many artifacts a message lists."""


class Entry(Protocol):
    """An artifact by reference, as a manifest holds it (`evflow.store.artifacts.Entry`)."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the serialised value: equal digests, equal values."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the serialised value."""
        ...


class View(Protocol):
    """A task's artifacts, read lazily (`evflow.store.artifacts.ArtifactView`)."""

    def names(self) -> Collection[str]:
        """The artifacts' names."""
        ...

    def entry(self, name: str) -> Entry:
        """An artifact by reference; KeyError if there is none."""
        ...

    def load(self, name: str) -> object:
        """An artifact's value; KeyError if there is none."""
        ...

    def __contains__(self, name: object, /) -> bool: ...


class Frame(NamedTuple):
    """A split around a task, as `AttemptOrder.frames` has it.

    Attributes:
        step: The step that split.
        task: Its task.
        kind: `split`, `foreach` or `parallel`.
        position: The task's place among the members of the split.
        size: Their number.
        items: Digest of a foreach's packed items.
        variable: A foreach's variable.
    """

    step: str
    task: int
    kind: str
    position: int
    size: int
    items: bytes | None = None
    variable: str | None = None


LoadItem = Callable[[bytes, int], object]
"""Loads one item of a foreach's packed items (`evflow.store.artifacts.load_item` with the store given)."""


class Merge:
    """What `merge_artifacts` decided in a join.

    Attributes:
        entries: What it passes down.
        holders: The input that each of them is read from, by position.
        excluded: What it was told to leave out.
        only_included: `include=` was given, so that nothing else passes down.
    """

    __slots__ = ("entries", "excluded", "holders", "only_included")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.holders: dict[str, int] = {}
        self.excluded: set[str] = set()
        self.only_included = False


class Scope:
    """One instance's place in a run.

    Attributes:
        step: The step that runs, or that ran where the instance is an input of a join.
        parameters: Values of parameters.
        view: The parent's artifacts; None in a join.
        joined: The tasks that a join joins, else None.
        frames: The splits around the task, outermost first.
        read: Name to value of what was read from artifacts and is cached in the instance's `__dict__`.
        read_through: The views of inputs by which a join read artifacts of its own.
        removed: Inherited names that were deleted.
        transition: What `self.next` said.
        next_at: Where it was said.
        running: The step's body runs; False for an input of a join.
    """

    __slots__ = (
        "_items",
        "_parameters",
        "frames",
        "joined",
        "load_item",
        "merge",
        "next_at",
        "parameters",
        "read",
        "read_through",
        "removed",
        "running",
        "step",
        "transition",
        "view",
    )

    def __init__(
        self,
        step: str,
        *,
        parameters: View,
        view: View | None = None,
        joined: "JoinedTasks | None" = None,
        frames: Iterable[Frame] = (),
        load_item: LoadItem | None = None,
        running: bool = True,
    ) -> None:
        self.step = step
        self.parameters = parameters
        self.view = view
        self.joined = joined
        self.frames = tuple(frames)
        self.load_item = load_item
        self.running = running
        self.merge = Merge()
        self.read: dict[str, object] = {}
        self.read_through: list[View] = []
        self.removed: set[str] = set()
        self.transition: Transition | None = None
        self.next_at = Where()
        self._items: dict[int, object] = {}
        self._parameters: dict[str, object] = {}

    @property
    def foreach_frames(self) -> Sequence[Frame]:
        """The foreach splits around the task, outermost first; gangs among them, which are foreaches over the places of their nodes."""
        return [frame for frame in self.frames if frame.kind in ("foreach", "parallel")]

    def item(self, frame: Frame) -> object:
        """The task's item of a foreach; loaded once. Of a gang the node's place."""
        if frame.kind == "parallel":
            return frame.position
        if frame.task not in self._items:
            if self.load_item is None or frame.items is None:
                raise LookupError(f"The items of the foreach over {frame.variable} are not at hand.")
            self._items[frame.task] = self.load_item(frame.items, frame.position)
        return self._items[frame.task]

    def parameter(self, attribute: str, made: Callable[[object], object] | None = None) -> Any:
        """A parameter's value for this run, or what `made` makes of it; made once."""
        if attribute not in self._parameters:
            try:
                value = self.parameters.load(attribute)
            except KeyError:
                raise AttributeError(f"Parameter '{attribute}' has no value in this run: it was added after the run started.") from None
            self._parameters[attribute] = value if made is None else made(value)
        return self._parameters[attribute]

    def fetch(self, flow: "FlowSpec", name: str) -> Any:
        """Read an artifact that the instance's `__dict__` lacks.

        Raises:
            AttributeError: There is none, or the inputs of the join do not agree on it.
        """
        if name in self.removed or not is_kept(name, type(flow)):
            raise AttributeError(self._missing(flow, name))
        view = self._holder(name)
        if view is None:
            raise AttributeError(self._ambiguous(flow, name) or self._missing(flow, name))
        value = view.load(name)
        if self.joined is not None and all(view is not known for known in self.read_through):
            self.read_through.append(view)
        self.read[name] = value
        flow.__dict__[name] = value
        return value

    def inherits(self, name: str) -> bool:
        """Whether the name can be read though the step did not set it."""
        return name not in self.removed and self._holder(name) is not None

    def _holder(self, name: str) -> View | None:
        """What an artifact that the step did not set is loaded from: its parent, or an input of the join that has the one value."""
        if self.joined is None:
            return self.view if self.view is not None and name in self.view else None
        if name in self.merge.holders:
            return self.joined.view(self.merge.holders[name])
        return None if dialect.is_metaflow() else self.joined.agreed_view(name)

    def _ambiguous(self, flow: "FlowSpec", name: str) -> str:
        owners = self.joined.owners(name) if self.joined is not None else ""
        if not owners:
            return ""
        if dialect.is_metaflow():
            return (
                f"Flow {type(flow).__name__} has no attribute '{name}' in the join step {self.step}: a join reads it from an input.\n"
                f"Say inputs[0].{name}, or call self.merge_artifacts(inputs) before; {owners}."
            )
        return (
            f"Flow {type(flow).__name__} has no single '{name}' in the join step {self.step}: {owners}.\n"
            f"Read it from an input (inputs[0].{name}), or set self.{name} to what the flow should go on with."
        )

    def _missing(self, flow: "FlowSpec", name: str) -> str:
        cls = type(flow)
        text = f"Flow {cls.__name__} has no attribute '{name}'"
        if not is_kept(name, cls):
            return f"{text}: what starts with __ is not kept from one step to the next."
        if name in self.removed:
            return f"{text}: step {self.step} deleted it."
        known = sorted(self._known(flow))
        members = [*known, *facts(cls).parameters, *facts(cls).constants, *facts(cls).steps, *facts(cls).methods]
        listed = ", ".join(known[:MOST_NAMES]) + (f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else "")
        has = f" In step {self.step} it has: {listed}." if known else f" In step {self.step} it has no artifacts."
        return f"{text}.{has}{did_you_mean(name, members)}"

    def _known(self, flow: "FlowSpec") -> set[str]:
        inherited: Iterable[str] = ()
        if self.view is not None:
            inherited = self.view.names()
        elif self.joined is not None:
            inherited = {*(() if dialect.is_metaflow() else self.joined.agreed_names()), *self.merge.entries}
        return {name for name in (*flow.__dict__, *inherited) if is_kept(name, type(flow))} - self.removed


def place(cls: "type[AnyFlow]", scope: Scope) -> "AnyFlow":
    """Make an instance at a place in a run; its `__init__` is not called."""
    flow = cls.__new__(cls)
    object.__setattr__(flow, SCOPE, scope)
    return flow


def scope_of(flow: "FlowSpec") -> Scope:
    """An instance's place in a run; call only where it has one."""
    scope: Scope = object.__getattribute__(flow, SCOPE)
    return scope
