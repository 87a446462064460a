"""What can go wrong with an environment, and what to do then."""

from evflow.errors import EnvironmentProblem, UsageError

_GO_ON = "`--fallback local` runs such steps in the environment of now instead."
_MOST_SAID = 1_500
_LEAST, _BEFORE = "3.11", "4"


class EnvironmentUnavailable(EnvironmentProblem):
    """An environment cannot be resolved or built."""

    code = "environment-unavailable"


class ToolMissing(EnvironmentUnavailable):
    """What makes such environments is not installed."""

    code = "environment-tool-missing"

    def __init__(self, kind: str, tool: str) -> None:
        super().__init__(
            f"Environments of @{kind} are made by {tool}, which is not installed here.",
            f"`pip install 'evflow[{kind}]'` installs it. {_GO_ON}",
        )


class CannotResolve(EnvironmentUnavailable):
    """No set of packages was found that fits what was asked for."""

    code = "environment-unresolved"

    def __init__(self, asked: str, where: str, tool: str, said: str) -> None:
        super().__init__(
            f"The environment {asked} could not be resolved against {where}. {tool} says:\n{_indented(said)}",
            f"Change what is asked for, or see to it that {where} can be reached from here. {_GO_ON}",
        )


class CannotBuild(EnvironmentUnavailable):
    """A resolved environment could not be made on this machine."""

    code = "environment-unbuilt"

    def __init__(self, asked: str, where: str, tool: str, said: str) -> None:
        super().__init__(
            f"The environment {asked} could not be built from {where}. {tool} says:\n{_indented(said)}",
            f"See to it that {where} can be reached from this machine; `evflow env show` says what is there already. {_GO_ON}",
        )


class PythonTooOld(UsageError):
    """A step asks for a Python that evflow does not run on."""

    code = "environment-python"

    def __init__(self, asked: str, python: str) -> None:
        super().__init__(
            f"The environment {asked} asks for Python {python}, on which evflow cannot run a step.",
            f"It runs on Python {_LEAST} and later: ask for one of those. {_GO_ON}",
        )


def _indented(said: str) -> str:
    text = said.strip() or "(nothing)"
    if len(text) > _MOST_SAID:
        text = f"{text[: _MOST_SAID // 2]}\n…\n{text[-_MOST_SAID // 2 :]}"
    return "\n".join(f"  {line}" for line in text.splitlines())
