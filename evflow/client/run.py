"""`Run`: one execution of a flow."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from evflow.client import tagging
from evflow.client.history import PARAMETERS, RunHistory
from evflow.client.objects import Parent, local_time
from evflow.client.step import Step
from evflow.client.task import Task, TaskData
from evflow.core.summary import GONE
from evflow.flow.started_by import StartedBy
from evflow.log.owners import is_owned
from evflow.log.protocol import REQUESTED

if TYPE_CHECKING:
    from evflow.client.code import RunCode
    from evflow.client.flow import Flow


class Run(Parent[Step]):
    """A run. Iterating over it gives its steps, newest first; `run["train"]` is one of them.

    Args:
        pathspec: `FlowName/RunID`.

    Raises:
        EvflowInvalidPathspec: The pathspec has another form.
        EvflowNotFound: There is no such run.
        EvflowNamespaceMismatch: It is not in the namespace in force.
    """

    kind = "Run"
    child = "step"
    depth = 2

    __slots__ = ()

    # --- how it went ----------------------------------------------------------------------------------------

    @property
    def successful(self) -> bool:
        """Whether the end step's task succeeded, without an exception that `@catch` took; as it is now."""
        end = self.end_task
        return end is not None and end.successful

    @property
    def finished(self) -> bool:
        """Whether the end step's task is done. A run that failed or was cancelled never is: see `status`."""
        end = self.end_task
        return end is not None and end.finished

    @property
    def finished_at(self) -> datetime | None:
        """When the end step's task ended, or None."""
        end = self.end_task
        return end.finished_at if end is not None else None

    @property
    def created_at(self) -> datetime:
        """When the run started; of one that has not, when it was asked for."""
        summary = self._history.entry.summary
        return local_time(summary.get("started_us") or self._history.known().started_us or summary.get("requested_us") or 0)

    @property
    def status(self) -> str:
        """`requested`, `running`, `paused`, `succeeded`, `failed`, `cancelled`, or `interrupted` where its owner died.

        `refused` where no scheduler can carry it out, `given-up` where a server lost it. As it is now.
        """
        history = self._history
        state = history.now()
        if state.over:
            return state.status
        if not state.seq and (told := history.told()) in (REQUESTED, *GONE):
            return told
        return state.phase if history.log.ask(lambda log: is_owned(log, history.shard)) else "interrupted"

    @property
    def paused(self) -> bool:
        """Whether nothing of it starts before somebody has said so: it was paused, or it waits with what failed; as it is now."""
        return self._history.now().paused

    @property
    def priority(self) -> int:
        """Its place among runs that wait for the same slots, higher ones first; as it is now."""
        return self._history.now().priority

    @property
    def failure(self) -> str | None:
        """Why the run failed or was cancelled, or None."""
        outcome = self._history.now().outcome
        return outcome.reason if outcome is not None else None

    @property
    def ended_at(self) -> datetime | None:
        """When the run ended, however it ended, or None."""
        ended_us = self._history.now().finished_us
        return local_time(ended_us) if ended_us else None

    # --- what is in it --------------------------------------------------------------------------------------

    @property
    def end_task(self) -> Task | None:
        """The task of the flow's last step, or None where the run has not come so far."""
        history = self._history
        state = history.known()
        end = state.graph.end
        numbers = history.tasks_of(end)
        return Task.of((*self.parts, end, str(numbers[-1])), history) if numbers else None

    @property
    def data(self) -> TaskData | None:
        """The artifacts of the end step's task (`run.data.model`), or None where there is no such task yet."""
        end = self.end_task
        return end.data if end is not None else None

    def steps(self, *tags: str) -> Iterator[Step]:
        """The steps, newest first; with tags, none unless the run has all of them."""
        return self._tagged(tags)

    @property
    def code(self) -> "RunCode | None":
        """The code package of the run, or None where none was made."""
        from evflow.client.code import RunCode

        return RunCode.of(self._history)

    @property
    def parent(self) -> "Flow":
        """The flow."""
        from evflow.client.flow import Flow

        return Flow.of(self.parts[0], self._history.log)

    @property
    def origin_pathspec(self) -> str | None:
        """The run that this one resumes, or None."""
        origin: str | None = self._history.known().header.get("origin")
        return origin

    @property
    def trigger(self) -> StartedBy | None:
        """What started the run: a mapping, with the members `event`, `events`, `run` and `runs`; None for a run in the foreground."""
        trigger: Mapping[str, Any] | None = self._history.known().header.get("trigger")
        return None if trigger is None else StartedBy(trigger)

    # --- tags -----------------------------------------------------------------------------------------------

    def add_tag(self, tag: str) -> None:
        """Give the run a tag.

        Raises:
            EvflowTaggingError: It is no tag, or the run has as many as it may have.
        """
        self.replace_tags((), tagging.listed(tag))

    def add_tags(self, tags: Iterable[str]) -> None:
        """Give the run tags, all or none; errors as for `add_tag`."""
        self.replace_tags((), tags)

    def remove_tag(self, tag: str) -> None:
        """Take a tag from the run; nothing happens where it has not that tag.

        Raises:
            EvflowTaggingError: It is one that evflow gave.
        """
        self.replace_tags(tagging.listed(tag), ())

    def remove_tags(self, tags: Iterable[str]) -> None:
        """Take tags from the run, all or none; errors as for `remove_tag`."""
        self.replace_tags(tags, ())

    def replace_tag(self, tag_to_remove: str, tag_to_add: str) -> None:
        """Take one tag and give another, in one act."""
        self.replace_tags(tagging.listed(tag_to_remove), tagging.listed(tag_to_add))

    def replace_tags(self, tags_to_remove: Iterable[str], tags_to_add: Iterable[str]) -> None:
        """Take tags and give others, in one act; a tag that is both is kept.

        Raises:
            EvflowTaggingError: See `add_tag` and `remove_tag`; or there is nothing to do.
        """
        tagging.change(self._history, remove=tags_to_remove, add=tags_to_add)

    # --- children -------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return self._history.steps()[::-1]

    def _has(self, name: str) -> bool:
        history = self._history
        return name == PARAMETERS or name in history.known().steps or name in history.now().steps

    def _make(self, name: str) -> Step:
        return Step.of((*self.parts, name), self._history)


def run_of(history: RunHistory) -> Run:
    """The run of a history."""
    return Run.of((history.run.flow, str(history.run.number)), history)
