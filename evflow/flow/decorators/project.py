"""`@project`: flows that belong together, each person and each branch with deployments, tags and events of its own."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from evflow.errors import UsageError
from evflow.flow.current import attach, current, leave
from evflow.flow.decorators.base import StepDecorator
from evflow.flow.decorators.of_class import apply_to_class, configured
from evflow.flow.steps import Where, caller

if TYPE_CHECKING:
    from evflow.core.projects import Project

C = TypeVar("C", bound=type)

ATTRIBUTE: Final = "_evflow_projects"
"""The attribute of a class that has its projects; `evflow.flow.config_values` knows it too."""


class FlowHasNoProject(UsageError):
    """A branch was named for a flow that is of no project."""

    code = "flow-has-no-project"

    def __init__(self, flow: str, option: str) -> None:
        super().__init__(
            f"{option} names a branch of a project, and flow {flow} is of none.", 'Put @project(name="…") above its class, or leave it out.'
        )


class BranchSaidTwice(UsageError):
    """The command line and the decorator say different things."""

    code = "branch-said-twice"

    def __init__(self, field: str, given: object, said: object) -> None:
        super().__init__(
            f"--{field} says {given!r}, and @project(…, {field}={said!r}) says otherwise.",
            f"Leave one of them out: {field}= of the decorator, or the option.",
        )


class BranchInvalid(UsageError):
    """A text can be no branch's name."""

    code = "branch-invalid"


class ProjectDecorator(StepDecorator):
    """See `project`: a decorator of a class; nothing else of a step's decorator is asked of it."""

    name = "project"
    defaults = MappingProxyType({"name": None, "branch": None, "production": False})

    def mistakes(self) -> Iterator[str]:
        """Names that projects and branches can have."""
        from evflow.core.projects import branch_fault, name_fault

        name, branch, production = (self.value(field) for field in self.defaults)
        if name is None:
            yield '@project needs a name, as in @project(name="forecasts").'
        elif wrong := name_fault(name):
            yield f"@project: {wrong}"
        if branch is not None and (wrong := branch_fault(branch)):
            yield f"@project: {wrong}"
        if not isinstance(production, bool):
            yield f"@project takes True or False as production, not {production!r}."


@overload
def project(cls: C, /) -> C: ...
@overload
def project(*, name: str, branch: str | None = None, production: bool = False) -> Callable[[C], C]: ...
def project(cls: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Let the flow belong to a project.

    Runs carry the system tags `project:NAME` and `project_branch:BRANCH`, `current` names both, and what is deployed is called after
    them. The branch is `user.YOU`, with `--branch B` `test.B`, with `--production` `prod`, with both `prod.B`.

    Args:
        cls: The flow, where it is used bare: `check` says that the name is missing.
        name: The project: lower-case letters, digits and `_`.
        branch: The branch; `--branch` says it, too.
        production: The production branch; `--production` says it, too.
    """
    return apply_to_class(ProjectDecorator, ATTRIBUTE, cls, fields, field="name")


def mistakes(cls: type) -> Iterator[tuple[Where, str]]:
    """What is wrong with a flow's `@project`, and where."""
    found = _projects(cls)
    if len(found) > 1:
        yield found[0].where, f"Flow {cls.__name__} has @project {len(found)} times: keep one of them."
        return
    for decorator in found:
        for mistake in decorator.mistakes():
            yield decorator.where, mistake


def project_of(cls: type, *, user: str, branch: str | None = None, production: bool = False) -> "Project | None":
    """The project of a flow without mistakes, and the branch that it is in; None of a flow that has none.

    Args:
        cls: The flow.
        user: Whose branch it is, if nothing else is said.
        branch: What the command line says.
        production: What the command line says.

    Raises:
        FlowHasNoProject: A branch was named, and the flow is of no project.
        BranchSaidTwice: The decorator names another one.
        BranchInvalid: No branch can be called that.
    """
    found = _projects(cls)
    if not found:
        if branch is not None:
            raise FlowHasNoProject(cls.__name__, "--branch")
        return None
    from evflow.core.projects import Project, branch_fault

    decorator = found[0]
    said = decorator.given
    if branch is not None and (wrong := branch_fault(branch)):
        raise BranchInvalid(wrong, "Name another one with --branch.")
    if branch is not None and said.get("branch") not in (None, branch):
        raise BranchSaidTwice("branch", branch, said["branch"])
    if production and said.get("production") is False:
        raise BranchSaidTwice("production", True, False)
    return Project(decorator.value("name"), branch or decorator.value("branch") or "", production or decorator.value("production"), user)


def has_project(cls: type) -> bool:
    """Whether the flow is of a project; this looks at nothing that a configuration could decide."""
    return bool(getattr(cls, ATTRIBUTE, ()))


def enter(plain: Mapping[str, Any], flow: str | None = None) -> None:
    """Tell `current` which project and branch the run is of, as its options say; call it after `current.enter`, or with the flow."""
    from evflow.core.projects import Project

    found = Project.from_plain(plain)
    attach("project_name", found.name)
    attach("branch_name", found.branch_name)
    attach("project_flow_name", found.flow_name(flow or current.flow_name))
    attach("is_production", found.production)
    attach("is_user_branch", found.is_user_branch)


@contextmanager
def known(project: "Project | None", flow: str) -> Generator[None]:
    """Tell `current` of the project and branch while defaults of parameters are computed for a run that is not there yet."""
    if project is None or current.is_running_flow:
        yield
        return
    enter(project.to_plain(), flow)
    try:
        yield
    finally:
        leave()


def namespaced_event_name(name: str) -> Any:
    """The name of an event that only this branch of the project has: `mfns.PROJECT.BRANCH.NAME`.

    In a step it is the name, for `publish_event`. Elsewhere, as in `@trigger(event=namespaced_event_name("ready"))`, it becomes the name
    of the branch that the flow is deployed in.

    Args:
        name: The event's name within the branch.
    """
    if current.is_running_flow and "project_name" in current:
        return f"mfns.{current.project_name}.{current.branch_name}.{name}"
    return Namespaced(name, caller(1))


class Namespaced:
    """Stands for an event's name until the branch is known."""

    __slots__ = ("event", "where")

    def __init__(self, event: str, where: Where) -> None:
        self.event = event
        self.where = where

    def in_branch(self, project: "Project | None") -> str:
        """The name; within no project, where nothing was deployed yet, one that stands for it."""
        return project.event_name(self.event) if project is not None else f"mfns.{self.event}"

    def __repr__(self) -> str:
        return f"namespaced_event_name({self.event!r})"


def _projects(cls: type) -> list[ProjectDecorator]:
    found: list[ProjectDecorator] = configured(cls, ATTRIBUTE)
    return found
