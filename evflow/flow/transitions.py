"""What `self.next` says: which step comes next, and how often.

A call is judged when it is made, so that a mistake is shown at the user's line. What the call alone cannot say
(is the target a join, are there too many splits) is judged by the scheduler from the recorded transition.
"""

from collections.abc import Collection, Mapping, Sequence
from operator import index
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from evflow.errors import did_you_mean
from evflow.exception import InvalidNextException, SwitchValueUnknown
from evflow.flow import dialect
from evflow.flow.scope import Scope
from evflow.flow.steps import INFO, Where, facts

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec


class Transition(NamedTuple):
    """What a step said comes next.

    Attributes:
        kind: `linear`, `split`, `foreach`, `parallel`, `switch` or `end`.
        steps: The steps, in the order of the call; none at the end.
        variable: The variable of a foreach or of a switch.
        items: The items of a foreach, with a length of at least 1.
        nodes: How many nodes a gang has.
    """

    kind: str
    steps: tuple[str, ...] = ()
    variable: str | None = None
    items: Collection[object] | None = None
    nodes: int = 0


END = Transition("end")


def say_next(
    flow: "FlowSpec", scope: Scope, targets: Sequence[object], foreach: object, condition: object, num_parallel: object, at: Where
) -> None:
    """Record a call of `self.next`.

    Raises:
        InvalidNextException: The call is wrong, or it is the step's second one.
        SwitchValueUnknown: The variable of a switch has a value without a case.
    """
    if not scope.running:
        raise InvalidNextException("self.next was called on an input of a join.", "Call it on self.")
    if scope.transition is not None:
        raise InvalidNextException(
            f"Step {scope.step} called self.next() twice: at {scope.next_at} and at {at}.",
            "A step says once which step comes next, as its last act.",
        )
    if _is_end(flow, scope.step):
        raise InvalidNextException(
            f"Step {scope.step} is the end of the flow and called self.next().", "Remove the call: nothing comes after the end."
        )
    if num_parallel is not None:
        scope.transition = _gang(flow, scope, targets, (foreach, condition), num_parallel)
    else:
        scope.transition = _transition(flow, scope, targets, foreach, condition)
    scope.next_at = at


def finish(flow: "FlowSpec", scope: Scope) -> Transition:
    """The transition of a body that came to its end.

    Raises:
        InvalidNextException: It is not the last step, and `self.next` was not called.
    """
    if scope.transition is not None:
        return scope.transition
    if _is_end(flow, scope.step):
        return END
    if dialect.is_metaflow() and scope.frames and scope.frames[-1].kind == "parallel" and scope.frames[-1].position:
        # There a gang goes on as its node 0 says, and the others may return before they come to their self.next.
        from evflow.flow.graph import read_node

        node = read_node(type(flow), scope.step)
        if node.kind == "linear":
            return Transition("linear", tuple(node.out))
    raise InvalidNextException(
        f"Step {scope.step} is missing a self.next() transition to the next step.",
        "Add a self.next() as the last line in the function; every way through it has to end with one.",
    )


def _transition(flow: "FlowSpec", scope: Scope, targets: Sequence[object], foreach: object, condition: object) -> Transition:
    if not targets:
        raise InvalidNextException(f"Step {scope.step} called self.next() without a step.", "Name the next one: self.next(self.<step>).")
    # A step first: whether a method is a mapping is found out by a search through all that are, anew in each fork, which copies 60 pages for it.
    if len(targets) == 1 and not isinstance(targets[0], MethodType) and isinstance(targets[0], Mapping):
        if foreach is not None:
            raise InvalidNextException(
                f"Step {scope.step} called self.next() with a switch and a foreach.", "Split in the step that the switch chooses."
            )
        return _switch(flow, scope, cast("Mapping[object, object]", targets[0]), condition)
    if condition is not None:
        raise InvalidNextException(
            f"Step {scope.step} called self.next() with condition= and no cases.",
            'A switch takes a dict: self.next({"small": self.a, "large": self.b}, condition="size").',
        )
    steps = tuple(_step_name(flow, scope, target) for target in targets)
    if foreach is not None:
        return _foreach(flow, scope, steps, foreach)
    if len(set(steps)) < len(steps):
        raise InvalidNextException(f"Step {scope.step} named a step twice in self.next().", "Use foreach to run one step several times.")
    return Transition("linear" if len(steps) == 1 else "split", steps)


def _gang(flow: "FlowSpec", scope: Scope, targets: Sequence[object], others: Sequence[object], nodes: object) -> Transition:
    how = "A gang is one step with its number of nodes: self.next(self.<step>, num_parallel=4)."
    if any(other is not None for other in others):
        raise InvalidNextException(f"Step {scope.step} called self.next() with num_parallel and another option.", how)
    if len(targets) != 1 or isinstance(targets[0], Mapping):
        raise InvalidNextException(
            f"Step {scope.step} called self.next() with num_parallel and {len(targets)} targets that are not one step.", how
        )
    step = _step_name(flow, scope, targets[0])
    try:
        count = -1 if isinstance(nodes, bool) else index(nodes)  # type: ignore[arg-type] # which the except is for
    except TypeError:
        count = -1
    if count < 1:
        raise InvalidNextException(
            f"Step {scope.step} called self.next() with num_parallel={nodes!r} for step {step}: it is no positive whole number.", how
        )
    return Transition("parallel", (step,), nodes=count)


def _switch(flow: "FlowSpec", scope: Scope, cases: Mapping[object, object], condition: object) -> Transition:
    if not isinstance(condition, str):
        raise InvalidNextException(
            f"Step {scope.step} called self.next() with a dict of cases and no condition=.",
            'Name the variable that decides: condition="<name>".',
        )
    if not cases:
        raise InvalidNextException(
            f"Step {scope.step} called self.next() with a dict without a case.", "Give each value of the variable a step."
        )
    value = _variable(flow, scope, condition, "Condition")
    try:
        target = cases.get(value)
    except TypeError:  # a value without a hash equals no case
        target = None
    if target is None:
        raise SwitchValueUnknown(condition, value, list(cases))
    for case in cases.values():
        _step_name(flow, scope, case)
    return Transition("switch", (_step_name(flow, scope, target),), condition)


def _foreach(flow: "FlowSpec", scope: Scope, steps: tuple[str, ...], variable: object) -> Transition:
    if len(steps) != 1:
        raise InvalidNextException(
            f"Step {scope.step} called self.next() with foreach and {len(steps)} steps.",
            "A foreach leads to one step; that step may split.",
        )
    if not isinstance(variable, str):
        raise InvalidNextException(
            f"Step {scope.step} called self.next() with foreach={type(variable).__name__}.",
            'foreach takes the name of an artifact: foreach="items".',
        )
    value = _variable(flow, scope, variable, "Foreach")
    try:
        items = cast("Collection[object]", value if hasattr(value, "__len__") else list(value))
        count = len(items)
        iter(items)
    except TypeError:
        raise InvalidNextException(
            f"Foreach variable self.{variable} in step {scope.step} cannot be iterated: it is of type {type(value).__name__}.",
            "Give it a list, or anything else that a for loop takes.",
        ) from None
    if count == 0:
        raise InvalidNextException(
            f"Foreach iterator over {variable} in step {scope.step} produced zero splits. Check your variable.",
            f"Where self.{variable} may be empty, go another way: if self.{variable}: ... else: self.next(self.<step>).",
        )
    return Transition("foreach", steps, variable, items)


def _variable(flow: "FlowSpec", scope: Scope, name: str, use: str) -> Any:
    try:
        return getattr(flow, name)
    except AttributeError:
        pass
    existing = [*flow.__dict__, *facts(type(flow)).parameters, *facts(type(flow)).constants]
    raise InvalidNextException(
        f"{use} variable self.{name} in step {scope.step} does not exist.{did_you_mean(name, existing)}",
        f"Set self.{name} before self.next().",
    )


def _step_name(flow: "FlowSpec", scope: Scope, target: object) -> str:
    info = getattr(target, INFO, None)
    name = str(getattr(target, "__name__", target))
    if info is not None and getattr(target, "__self__", flow) is flow and info.name in facts(type(flow)).steps:
        return str(info.name)
    steps = facts(type(flow)).steps
    raise InvalidNextException(
        f"Step {scope.step} specifies a self.next() transition to an unknown step, {name}.",
        f"The steps of {type(flow).__name__} are: {', '.join(steps)}.{did_you_mean(name, steps)}",
    )


def _is_end(flow: "FlowSpec", step: str) -> bool:
    steps = facts(type(flow)).steps
    info = getattr(steps[step], INFO)
    if info.end or len(steps) == 1:
        return True
    return step == "end" and not any(getattr(other, INFO).end for other in steps.values())
