"""What a flow's project and branch are called: in tags, in `current`, in names of deployments and of events.

The forms are Metaflow's: a branch is `user.NAME`, `test.BRANCH`, `prod` or `prod.BRANCH`, and a flow in it is `PROJECT.BRANCH.FLOW`.
"""

from collections.abc import Mapping
from typing import Any, Final, Self

from evflow.core.values import value

MOST_CHARS: Final = 128
"""Of a project's name, and of a branch's."""
TAG: Final = "project:"
BRANCH_TAG: Final = "project_branch:"
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_OF_A_DEPLOYMENT: Final = frozenset("-_.")


@value
class Project:
    """The place of a run, or of a deployment, among those of its project.

    Attributes:
        name: The project.
        branch: The branch as it was named, or an empty string.
        production: It is of the production branch.
        user: Whose branch it is, where neither says otherwise.
    """

    name: str
    branch: str = ""
    production: bool = False
    user: str = ""

    @property
    def is_user_branch(self) -> bool:
        """Neither a branch nor production was asked for: it is a person's own."""
        return not self.branch and not self.production

    @property
    def branch_name(self) -> str:
        """`user.NAME`, `test.BRANCH`, `prod` or `prod.BRANCH`."""
        if self.production:
            return f"prod.{self.branch}" if self.branch else "prod"
        return f"test.{self.branch}" if self.branch else f"user.{self.user}"

    def flow_name(self, flow: str) -> str:
        """The flow's name among those of all projects and branches."""
        return f"{self.name}.{self.branch_name}.{flow}"

    @property
    def deployment(self) -> str:
        """What a deployment in this branch is called: characters that no deployment's name has become `-`."""
        text = f"{self.name}.{self.branch_name}"
        return "".join(one if (one.isascii() and one.isalnum()) or one in _OF_A_DEPLOYMENT else "-" for one in text)

    @property
    def tags(self) -> tuple[str, ...]:
        """The system tags of a run."""
        return (f"{TAG}{self.name}", f"{BRANCH_TAG}{self.branch_name}")

    def event_name(self, name: str) -> str:
        """An event's name that no other branch's events have."""
        return f"mfns.{self.name}.{self.branch_name}.{name}"

    def to_plain(self) -> dict[str, Any]:
        """For a run's options: whole, so that no reader has to know the forms."""
        return {"name": self.name, "branch": self.branch, "production": self.production, "user": self.user}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse."""
        return cls(plain["name"], plain.get("branch", ""), plain.get("production", False), plain.get("user", ""))


def name_fault(name: object) -> str | None:
    """Why no project can have this name, as a sentence; None where one can."""
    if isinstance(name, str) and 0 < len(name) <= MOST_CHARS and name[0].isalpha() and not set(name) - _PLAIN:
        return None
    return f"A project cannot be called {_excerpt(name)}: a name has 1 to {MOST_CHARS} lower-case letters, digits and '_', a letter first."


def branch_fault(branch: object) -> str | None:
    """Why no branch can have this name, as a sentence; None where one can."""
    short = isinstance(branch, str) and 0 < len(branch) <= MOST_CHARS and branch.isascii()
    if isinstance(branch, str) and short and all(branch.split(".")) and all(one.isalnum() or one in _OF_A_DEPLOYMENT for one in branch):
        return None
    return f"A branch cannot be called {_excerpt(branch)}: a name has 1 to {MOST_CHARS} letters, digits, '-', '_' and '.'."


def taken_apart(name: str) -> tuple[str, str]:
    """`PROJECT.BRANCH.FLOW` as the flow and the name of its deployment; an empty one where the flow stands alone."""
    deployment, _, flow = name.rpartition(".")
    return flow, deployment


def deployment_of(project: str, branch: str) -> str:
    """The name of the deployment of a branch that is given by its whole name (`test.BRANCH`)."""
    kind, _, rest = branch.partition(".")
    if kind == "user":
        return Project(project, user=rest).deployment
    return Project(project, rest, kind == "prod").deployment if kind in ("test", "prod") else Project(project, branch).deployment


def _excerpt(given: object) -> str:
    return repr(given if not isinstance(given, str) else given[:80])
