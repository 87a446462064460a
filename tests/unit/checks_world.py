"""What tests of the checks of a flow have in common."""

import inspect
import linecache

from evflow import FlowSpec, step
from evflow.flow.checks import Problem, check


class Ends(FlowSpec):
    """A base with the step that most flows here have."""

    @step
    def end(self) -> None:
        pass


def only(cls: type) -> Problem:
    """The one problem of a flow, which has its place."""
    problems = check(cls)
    assert [problem.code for problem in problems] == [problems[0].code]
    assert problems[0].file == inspect.getsourcefile(cls)
    assert problems[0].hint
    return problems[0]


def line_of(problem: Problem) -> str:
    """The line of a problem's place."""
    return linecache.getline(problem.file, problem.line).strip()
