"""The checks of a flow before it runs: every mistake that its source shows, one message each.

Two stages: what a step says by itself, then how the steps hang together. The second runs only where the first
found nothing that would make it guess, so that one mistake gives one message.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from evflow.core.graph import Graph
from evflow.core.values import value
from evflow.errors import UsageError, did_you_mean
from evflow.flow import dialect
from evflow.flow.decorators.base import StepDecorator, misplaced
from evflow.flow.decorators.limit import concurrency_of, mistakes as concurrency_mistakes
from evflow.flow.decorators.schedule import mistakes as schedule_mistakes
from evflow.flow.graph import edge_step, read_graph
from evflow.flow.parameters import mistakes as parameter_mistakes
from evflow.flow.source import StepSource, class_line, read_step
from evflow.flow.split_walk import Edge, Walk, walk
from evflow.flow.steps import INFO, LANGUAGE, RESERVED_FOR_STEPS, Where, facts

_STEP_NAME = re.compile(r"[a-z0-9_]+")


@value
class Problem:
    """A mistake in a flow's source.

    Attributes:
        code: A stable name of the kind of mistake.
        message: What is wrong.
        hint: What to do.
        step: The step, or an empty string.
    """

    code: str
    message: str
    hint: str
    file: str
    line: int
    step: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file and self.line else f"{self.file}: " if self.file else ""
        return f"{place}{self.message} {self.hint}".rstrip()


class FlowInvalid(UsageError):
    """A flow has mistakes and cannot run.

    Attributes:
        problems: All of them, in the order of the source.
    """

    code = "flow-invalid"

    def __init__(self, flow: str, problems: Sequence[Problem]) -> None:
        first, more = problems[0], len(problems) - 1
        count = f"\n{more} more {'problem' if more == 1 else 'problems'}: `check` lists all of them." if more else ""
        super().__init__(f"Validity checker found an issue in {flow}:\n{first}{count}")
        self.problems = list(problems)


class _Flow:
    """What the checks look at."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.facts = facts(cls)
        self.steps = self.facts.steps
        self.sources: dict[str, StepSource] = {name: read_step(name, function) for name, function in self.steps.items()}
        self.file, self.line = class_line(cls)
        self.start, self.end = edge_step(self.steps, "start"), edge_step(self.steps, "end")

    @cached_property
    def graph(self) -> Graph:
        return read_graph(self.cls)

    def of_class(self, code: str, message: str, hint: str) -> Problem:
        return Problem(code, message, hint, self.file, self.line)

    def of_step(self, code: str, step: str, message: str, hint: str, line: int = 0) -> Problem:
        source = self.sources[step]
        return Problem(code, message, hint, source.file, line or source.line, step)


def check(cls: type) -> list[Problem]:
    """All mistakes of a flow, in the order of its source.

    Raises:
        SourceMissing: A step's source cannot be found.
    """
    return _examine(_Flow(cls))


def checked_graph(cls: type) -> Graph:
    """The graph of a flow without mistakes.

    Raises:
        FlowInvalid: It has mistakes.
        SourceMissing: A step's source cannot be found.
    """
    flow = _Flow(cls)
    problems = _examine(flow)
    if problems:
        raise FlowInvalid(cls.__name__, problems)
    return flow.graph


def _examine(flow: _Flow) -> list[Problem]:
    structure = [*_edges(flow), *_step_forms(flow), *_targets(flow), *_gangs(flow)]
    others = [
        *_parameters(flow),
        *_schedule(flow),
        *_triggers(flow),
        *_limits(flow),
        *_project(flow),
        *_environments(flow),
        *_cards(flow),
        *_exit_hooks(flow),
        *_decorators(flow),
        *_misplaced(flow),
    ]
    if not structure:
        structure = list(_together(flow, flow.graph))
    return sorted(dict.fromkeys([*structure, *others]), key=lambda problem: (problem.file != flow.file, problem.file, problem.line))


# --- a step by itself ------------------------------------------------------------------------------------


def _edges(flow: _Flow) -> Iterator[Problem]:
    if not flow.steps:
        yield flow.of_class("no-steps", f"Flow {flow.cls.__name__} has no steps.", "Mark its methods with @step.")
        return
    for edge, found in (("start", flow.start), ("end", flow.end)):
        said = [name for name, function in flow.steps.items() if getattr(getattr(function, INFO), edge)]
        if not found:
            shown = f" It has {len(said)}: {', '.join(said)}." if said else ""
            yield flow.of_class(
                f"no-{edge}",
                f"Your flow must have exactly one {edge} step.{shown}",
                f"Either name a step '{edge}' or use @step({edge}=True).",
            )


def _step_forms(flow: _Flow) -> Iterator[Problem]:
    for name, source in flow.sources.items():
        if not _STEP_NAME.fullmatch(name):
            yield flow.of_step(
                "step-name",
                name,
                f"Step {name} has an invalid name.",
                "Only lowercase ascii characters, underscores, and digits are allowed.",
            )
        elif name in RESERVED_FOR_STEPS:
            yield flow.of_step("step-name-reserved", name, f"Step name '{name}' is a reserved word.", "Choose another name for the step.")
        if source.arguments not in (1, 2):
            yield flow.of_step(
                "step-arguments",
                name,
                f"Step {name} takes {source.arguments} arguments.",
                "A step takes self; a join takes self and inputs.",
            )
        if source.is_generator:
            yield flow.of_step(
                "step-generator", name, f"Step {name} is a generator: it yields.", "Set attributes of self instead of yielding."
            )
        if name == flow.start and source.arguments == 2:
            yield flow.of_step(
                "start-join", name, f"The first step {name} takes inputs, but nothing comes before it.", "Remove its second argument."
            )
        if name == flow.end and source.arguments == 2 and name != flow.start:
            yield flow.of_step(
                "end-join",
                name,
                f"The terminal step {name} should not be a join step (it gets an extra argument).",
                "Add a join step before it.",
            )
        if name == flow.end and source.calls:
            yield flow.of_step(
                "end-goes-on",
                name,
                f"The terminal step {name} calls self.next().",
                "Remove the call: nothing comes after it.",
                source.calls[0].line,
            )
        if name != flow.end and not source.calls and flow.end:
            yield flow.of_step(
                "no-next",
                name,
                f"Step {name} is missing a self.next() transition to the next step.",
                "Add a self.next() as the last line in the function.",
            )


def _targets(flow: _Flow) -> Iterator[Problem]:
    for name, source in flow.sources.items():
        for call in source.calls:
            what, instead = call.mistake
            if what:
                yield flow.of_step("next-form", name, f"Step {name}: {what}.", f"{instead[0].upper()}{instead[1:]}.", call.line)
            for target in call.steps:
                if target not in flow.steps:
                    is_method = target in flow.facts.methods
                    hint = "Mark it with @step, or name a step." if is_method else f"The steps are: {', '.join(flow.steps)}."
                    yield flow.of_step(
                        "unknown-step",
                        name,
                        f"Step {name} specifies a self.next() transition to an unknown step, {target}.",
                        hint + ("" if is_method else did_you_mean(target, flow.steps)),
                        call.line,
                    )
                elif call.kind == "switch" and flow.sources[target].arguments == 2:
                    yield flow.of_step(
                        "switch-to-join",
                        name,
                        f"Step {name} switches to {target}, which is a join step (it takes inputs).",
                        "Lead the case to an ordinary step that goes on to the join.",
                        call.line,
                    )
                elif call.kind in ("split", "foreach", "parallel") and flow.sources[target].arguments == 2:
                    yield flow.of_step(
                        "split-to-join",
                        name,
                        f"Step {name} splits right into {target}, which is a join step (it takes inputs).",
                        "Put a step between the split and its join.",
                        call.line,
                    )


def _gangs(flow: _Flow) -> Iterator[Problem]:
    decorators = {name: flow.facts.decorators(name) for name in flow.steps}
    if not any(call.kind == "parallel" for source in flow.sources.values() for call in source.calls) and not any(
        decorator.name.endswith("parallel") for each in decorators.values() for decorator in each
    ):
        return
    from evflow.flow.gang_checks import mistakes  # few flows have any

    for code, step, line, message, hint in mistakes(flow.sources, decorators, flow.start, flow.end):
        yield flow.of_step(code, step, message, hint, line)


# --- decorators and parameters ---------------------------------------------------------------------------


def _decorators(flow: _Flow) -> Iterator[Problem]:
    for name in flow.steps:
        by_name: dict[str, list[StepDecorator]] = defaultdict(list)
        for decorator in reversed(flow.facts.decorators(name)):
            by_name[decorator.name].append(decorator)
            for mistake in decorator.mistakes():
                yield _at(flow, "decorator-value", decorator.where, name, f"Step {name}: {mistake}", "")
        for kind, several in by_name.items():
            if len(several) > 1 and not several[0].repeatable:
                yield _at(
                    flow, "decorator-twice", several[1].where, name, f"Step {name} has the decorator @{kind} twice.", "Keep one of them."
                )
        if "batch" in by_name and "kubernetes" in by_name:
            where = by_name["kubernetes"][0].where
            yield _at(
                flow, "decorators-differ", where, name, f"Step {name} is meant for AWS Batch and for Kubernetes.", "Keep one of them."
            )
        if "catch" in by_name:
            yield from _catch(flow, name, by_name["catch"][0])


def _catch(flow: _Flow, name: str, decorator: StepDecorator) -> Iterator[Problem]:
    calls = flow.sources[name].calls
    why = ""
    if len(calls) > 1:
        why = f"has {len(calls)} calls of self.next()"
    elif calls and calls[0].kind in ("foreach", "parallel", "switch"):
        why = f"leads to a {'gang' if calls[0].kind == 'parallel' else calls[0].kind}"
    if why:
        yield _at(
            flow,
            "catch-unclear",
            decorator.where,
            name,
            f"@catch is on step {name}, which {why}: where should the flow go on after a failure?",
            "Move what can fail to a step with one plain self.next().",
        )
    var = decorator.value("var")
    if isinstance(var, str) and var in flow.facts.fixed:
        what = "a step" if var in flow.steps else "a word of the flow language" if var in LANGUAGE else "a parameter or a constant"
        yield _at(
            flow,
            "catch-var-fixed",
            decorator.where,
            name,
            f"Step {name}: @catch keeps the exception in '{var}', which is {what} and cannot be set.",
            "Choose another name as var.",
        )


def _misplaced(flow: _Flow) -> Iterator[Problem]:
    for base in flow.cls.__mro__[:-1]:
        for name, member in base.__dict__.items():
            for decorator in misplaced(getattr(member, "__func__", member)):
                is_step = name in flow.steps
                message = f"@{decorator.name} stands below @step." if is_step else f"@{decorator.name} is on {name}, which is not a step."
                hint = (
                    "Put @step right above the def, other decorators above it."
                    if is_step
                    else f"Mark {name} with @step, or remove the decorator."
                )
                yield _at(flow, "decorator-misplaced", decorator.where, name if is_step else "", message, hint)


def _parameters(flow: _Flow) -> Iterator[Problem]:
    for code, where, message, hint in parameter_mistakes(flow.cls):
        yield _at(flow, code, where, "", message, hint)
    if flow.facts.configs:
        from evflow.flow.configs import mistakes as config_mistakes

        for code, where, message, hint in config_mistakes(flow.cls):
            yield _at(flow, code, where, "", message, hint)


def _schedule(flow: _Flow) -> Iterator[Problem]:
    for where, message in schedule_mistakes(flow.cls):
        yield _at(flow, "schedule", where, "", message, "")


def _limits(flow: _Flow) -> Iterator[Problem]:
    """What is wrong with `@concurrency`, and what `@limit`s say together: a key has one number, and its braces name parameters."""
    wrong = list(concurrency_mistakes(flow.cls))
    yield from (_at(flow, "concurrency", where, "", message, "") for where, message in wrong)
    keys: list[tuple[str, Where, str]] = []
    own = None if wrong else concurrency_of(flow.cls)
    if own is not None and own["key"]:
        keys.append((own["key"], Where(flow.file, flow.line), ""))
    numbers: dict[str, int] = {}
    for name in flow.steps:
        for decorator in flow.facts.decorators(name):
            if decorator.name != "limit" or any(decorator.mistakes()):
                continue
            key, most = decorator.value("key"), decorator.value("at_most")
            keys.append((key, decorator.where, name))
            if numbers.setdefault(key, most) != most:
                message = f"@limit({key!r}) lets {numbers[key]} attempts run at once, and {most} on step {name}."
                yield _at(flow, "limit-differs", decorator.where, name, message, "A key has one number: give it in one of the places.")
    if not keys:
        return
    from evflow.core.limits import placeholders  # of flows without limits nobody needs it

    known = {parameter.name for parameter in flow.facts.parameters.values()}
    for key, where, name in keys:
        for parameter in placeholders(key):
            if parameter not in known:
                message = f"The key {key!r} names '{parameter}', which is no parameter of the flow."
                yield _at(flow, "limit-parameter", where, name, message, did_you_mean(parameter, known).strip())


def _project(flow: _Flow) -> Iterator[Problem]:
    if not hasattr(flow.cls, "_evflow_projects"):
        return
    from evflow.flow.decorators.project import mistakes

    for where, message in mistakes(flow.cls):
        yield _at(flow, "project", where, "", message, "")


def _environments(flow: _Flow) -> Iterator[Problem]:
    names = {decorator.name for step in flow.steps for decorator in flow.facts.decorators(step)}
    if not hasattr(flow.cls, "_evflow_environments") and names.isdisjoint(("pypi", "conda")):  # as for triggers
        return
    from evflow.flow.decorators.packages import mistakes

    for where, step, message in mistakes(flow.cls):
        yield _at(flow, "environment", where, step, message, "")


def _cards(flow: _Flow) -> Iterator[Problem]:
    cards = {step: [decorator for decorator in flow.facts.decorators(step) if decorator.name == "card"] for step in flow.steps}
    if not any(cards.values()):
        return
    from evflow.core.cards import TYPES  # as for triggers

    if dialect.is_metaflow():
        return  # a package of cards that is not installed stops no flow there: the card's page says it
    for step in flow.steps:
        decorators = flow.facts.decorators(step)
        if any(decorator.name in ("pypi", "conda") for decorator in decorators) or hasattr(flow.cls, "_evflow_environments"):
            continue  # the class of the type may be there alone
        for decorator in cards[step]:
            if not any(decorator.mistakes()) and decorator.value("type") not in TYPES:
                from evflow.cards.types import NoSuchCardType, own_type  # few flows have types of their own

                if own_type(decorator.value("type")) is None:
                    error = NoSuchCardType(decorator.value("type"))
                    yield _at(flow, "card-type", decorator.where, step, f"Step {step}: {error.message}", error.hint)


def _exit_hooks(flow: _Flow) -> Iterator[Problem]:
    if not hasattr(flow.cls, "_evflow_exit_hooks"):
        return
    from evflow.flow.decorators.exit_hook import mistakes

    for where, message in mistakes(flow.cls):
        yield _at(flow, "exit-hook", where, "", message, "")


def _triggers(flow: _Flow) -> Iterator[Problem]:
    if not hasattr(flow.cls, "_evflow_triggers"):  # few have any: the others' starts do not pay for the module
        return
    from evflow.flow.decorators.trigger import mistakes

    for where, message in mistakes(flow.cls):
        yield _at(flow, "trigger", where, "", message, "")


def _at(flow: _Flow, code: str, where: Where, step: str, message: str, hint: str) -> Problem:
    if not where.file:
        source = flow.sources.get(step)
        where = Where(source.file, source.line) if source else Where(flow.file, flow.line)
    return Problem(code, message, hint, where.file, where.line, step)


# --- the steps together ----------------------------------------------------------------------------------


def _together(flow: _Flow, graph: Graph) -> Iterator[Problem]:
    reachable = _reachable(graph.start, {name: node.out for name, node in graph.nodes.items()})
    no_exit = list(_no_exit(flow, graph, reachable))
    for name in graph.nodes:
        if name not in reachable and not (no_exit and name == graph.end):  # the loop's missing exit leads there
            yield flow.of_step(
                "unreachable",
                name,
                f"Step {name} is unreachable from the entry step {graph.start}.",
                f"Add self.next(self.{name}) in another step or remove {name}.",
            )
    yield from no_exit
    if not no_exit:
        yield from _splits(flow, graph)


def _no_exit(flow: _Flow, graph: Graph, reachable: Iterable[str]) -> Iterator[Problem]:
    back = {name: graph.parents(name) for name in graph.nodes}
    leads_out = _reachable(graph.end, back)
    stuck = [name for name in reachable if name not in leads_out]
    told: set[str] = set()
    for name in stuck:
        loop = _loop_from(graph, name)
        if loop and not told & set(loop):
            told |= set(loop)
            yield flow.of_step(
                "loop-without-exit",
                loop[0],
                f"There is a loop in your flow without an exit: {'->'.join([*loop, loop[0]])}.",
                f"Let one of its steps also lead on towards {graph.end}.",
            )


def _splits(flow: _Flow, graph: Graph) -> Iterator[Problem]:
    seen = walk(graph, {name: source.calls for name, source in flow.sources.items()})
    for edge, opened in seen.loops_out.items():
        yield flow.of_step(
            "loop-out-of-split",
            edge.step,
            f"Step {edge.step} goes back to {edge.target}, which comes before the split at step {opened.step} is joined.",
            f"Join the split of {opened.step} first and go back from there.",
            edge.line,
        )
    yield from _unbalanced(flow, graph, seen)
    if not seen.loops_out:
        yield from _different_joins(flow, seen)


def _unbalanced(flow: _Flow, graph: Graph, seen: Walk) -> Iterator[Problem]:
    without_split: dict[str, None] = {}
    not_joined: dict[str, Edge] = {}
    for edge, stacks in seen.arrivals.items():
        if edge in seen.loops_out:
            continue
        source_call = next(call for call in flow.sources[edge.step].calls if call.line == edge.line and edge.target in call.steps)
        opens = source_call.kind in ("split", "foreach", "parallel")
        if graph[edge.target].takes_inputs and not any(stacks):
            without_split[edge.target] = None
        elif edge.target == graph.end and (opens or all(stacks)):
            around = [opened.step for opened in (min(stacks, key=len))] or [edge.step]
            not_joined.setdefault(", ".join(dict.fromkeys(around)), edge)
    for names, edge in not_joined.items():  # one join mends all branches of a split
        yield flow.of_step(
            "split-not-joined",
            edge.step,
            f"The terminal step {graph.end} was reached before a split started at step(s) {names} were joined.",
            f"Add a join step before {graph.end}: a step that takes self and inputs.",
            edge.line,
        )
    for join in without_split:
        yield flow.of_step(
            "join-without-split",
            join,
            f"Step {join} seems like a join step (it takes an extra input argument) but it is not preceded by a split.",
            f"Remove the argument, or put a split and its branches before {join}.",
        )


def _different_joins(flow: _Flow, seen: Walk) -> Iterator[Problem]:
    told: set[tuple[str, int]] = set()
    for (step, line, _), branches in seen.joins.items():
        if len(branches) < 2 or (step, line) in told or not all(branches.values()):
            continue
        first, *others = branches.values()
        if not first.intersection(*others):
            told.add((step, line))
            shown = "; ".join(f"{branch} reaches {' or '.join(sorted(joins))}" for branch, joins in branches.items())
            yield flow.of_step(
                "different-joins",
                step,
                f"The branches of the split at step {step} reach different joins: {shown}.",
                "Lead all branches of a split to one join.",
                line,
            )


def _reachable(start: str, out: Mapping[str, Iterable[str]]) -> list[str]:
    seen = {start: None}
    pending = [start]
    while pending:
        for target in out[pending.pop()]:
            if target not in seen:
                seen[target] = None
                pending.append(target)
    return [name for name in out if name in seen]


def _loop_from(graph: Graph, step: str) -> list[str]:
    """A loop that a step is on or leads into: its steps in order."""
    path: list[str] = []
    while step not in path:
        path.append(step)
        if not graph[step].out:
            return []
        step = graph[step].out[0]
    return path[path.index(step) :]
