"""What is wrong with the gangs of a flow: `@parallel` steps, and the `self.next(…, num_parallel=…)` that lead to them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from evflow.flow.decorators.base import StepDecorator
from evflow.flow.source import StepSource

PARALLEL_NAMES = frozenset(("parallel", "pytorch_parallel"))
"""The decorators whose steps are gangs."""


class Mistake(NamedTuple):
    """A mistake: the kind, the step that makes it, the line (0 for the step's own), what is wrong, and what to do."""

    code: str
    step: str
    line: int
    message: str
    hint: str


def mistakes(
    sources: Mapping[str, StepSource], decorators: Mapping[str, Sequence[StepDecorator]], start: str, end: str
) -> Iterator[Mistake]:
    """All of them; nothing of a flow without gangs.

    Args:
        sources: The steps.
        decorators: Those of each step.
        start: The first step.
        end: The last step.
    """
    gangs = {step: on.name for step, each in decorators.items() for on in each if on.name in PARALLEL_NAMES}
    for step, source in sources.items():
        for call in source.calls:
            for target in call.steps:
                if target not in sources or call.mistake[0]:
                    continue
                if call.kind == "parallel" and target not in gangs and sources[target].arguments != 2:  # a join is told of already
                    message = f"Step {step} leads to {target} with num_parallel, and {target} has no @parallel."
                    yield Mistake("gang-not-parallel", step, call.line, message, f"Put @parallel on step {target}.")
                elif call.kind != "parallel" and target in gangs:
                    message = f"Step {target} is @{gangs[target]}, and step {step} leads to it without num_parallel."
                    yield Mistake(
                        "parallel-without-gang", step, call.line, message, f"Write self.next(self.{target}, num_parallel=<number>)."
                    )
    for step, name in gangs.items():
        yield from _of_step(step, name, sources, {on.name for on in decorators[step]}, start, end)


def _of_step(step: str, name: str, sources: Mapping[str, StepSource], others: set[str], start: str, end: str) -> Iterator[Mistake]:
    this = f"Step {step} is @{name}"
    if step == start:
        yield Mistake("gang-at-start", step, 0, f"{this} and the first step.", "A gang follows on a step that says how many nodes it has.")
    if step == end and step != start:
        yield Mistake("gang-not-joined", step, 0, f"{this} and the last step.", "Add a join behind it: a step that takes self and inputs.")
    for call in sources[step].calls:
        if call.kind == "switch":
            yield Mistake(
                "gang-chooses", step, call.line, f"{this} and a switch: its nodes would go different ways.", "Choose in the join behind it."
            )
        elif call.steps and not (call.kind == "linear" and all(sources[to].arguments == 2 for to in call.steps if to in sources)):
            message = f"{this} and leads to {', '.join(call.steps)}, which is no join."
            yield Mistake("gang-not-joined", step, call.line, message, "The step behind a gang is a join: it takes self and inputs.")
    if "pool" in others:
        message = f"{this} and @pool: the nodes of a gang run on one machine or on Kubernetes."
        yield Mistake("gang-in-pool", step, 0, message, "Remove one of the two decorators.")
    if "cached" in others:
        message = f"{this} and @cached: nodes whose results were kept would not be there for those that run."
        yield Mistake("gang-cached", step, 0, message, "Put @cached on the join behind it, or on a step before.")
    if len(others & PARALLEL_NAMES) > 1:
        yield Mistake("gang-twice", step, 0, f"Step {step} has both @parallel and @pytorch_parallel.", "Keep one of them.")
