"""What a foreground run is asked to do, and how it shows what happens.

The command line builds a `RunRequest`, `evflow_scheduler.foreground` carries it out. Everything in it is resolved:
options, variables and files of settings have been read, parameters have their types.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from evflow.core.codec import Record
from evflow.core.ids import RunId
from evflow.core.values import field, value
from evflow.deployments.beginning import RunOptions
from evflow_executors.protocol import OutputLine


class RunView(Protocol):
    """Shows a run while it goes on.

    Called from the scheduler's loop, so no method may block: a view draws from `tick` at most, and drops what it
    cannot show.
    """

    def on_start(self, run: RunId) -> None:
        """The run has its number; called before its first event."""
        ...

    def on_event(self, record: Record, state: Any) -> None:
        """An event is durable. `state` is the run's state after it (`evflow.core.state.RunState`)."""
        ...

    def on_line(self, line: OutputLine) -> None:
        """An attempt printed a line."""
        ...

    def on_notice(self, text: str) -> None:
        """Something that the user should know: a fallback, a server that was started again."""
        ...

    def tick(self) -> None:
        """Some time has passed; called about ten times a second, and after each turn."""
        ...

    def close(self) -> None:
        """The run is over or given up: leave the terminal as it was found, print the summary."""
        ...


@value
class RunRequest:
    """A foreground run.

    Attributes:
        flow: The flow's class.
        flow_file: The file that defines it, absolute; empty where there is none (a notebook).
        parameters: Attribute to value, in the parameter's type; every parameter of the flow is there.
        tags: The user's tags.
        namespace: The namespace of the client inside the steps.
        namespace_given: The user named it for this run, which then carries it as a tag.
        user: Who starts the run.
        options: Its limits and wishes.
        run_id_file: File that takes the run's number before anything is executed, or None.
        attribute_file: File that takes flow, number and log as JSON, for the program that asked for the run, or None.
        origin: The run that this one resumes, or None; parameters come from it then, but for those of `changed`.
        changed: What a resumed run is given anew, by the parameter's name.
        resume_step: The step from which on a resumed run works anew, or None: from what failed.
        clone_only: A resumed run takes over what it can, and ends: nothing is run.
        trigger: What the run is told that it was started by (`current.trigger`), or None.
        quiet: Nothing but the tasks' own output and errors is shown.
        view: Shows what happens, or None.
    """

    flow: type
    flow_file: str
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tags: tuple[str, ...] = ()
    namespace: str = ""
    namespace_given: bool = False
    user: str = ""
    options: RunOptions = field(default_factory=RunOptions)
    run_id_file: str | None = None
    attribute_file: str | None = None
    origin: RunId | None = None
    changed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    resume_step: str | None = None
    clone_only: bool = False
    trigger: Mapping[str, Any] | None = None
    quiet: bool = False
    view: RunView | None = None
