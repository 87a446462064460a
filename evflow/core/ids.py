"""Names of things: flows, runs, tasks, attempts, events.

Numbers count from 1 and are sequential: runs within a flow, tasks within a run, events within a log.
Attempts count from 0, as Metaflow's `retry_count` does.

Names of runs and attempts are named tuples, and no values as the rest of the core has them: a scheduler looks things up by them some fifty
times for each task, and a tuple is compared and hashed without a call of a function in Python.
"""

from typing import NamedTuple, NewType

from evflow.errors import UsageError

FlowName = NewType("FlowName", str)
RunNumber = NewType("RunNumber", int)
TaskId = NewType("TaskId", int)
Seq = NewType("Seq", int)
"""Position of an event in its log: dense, from 1."""
Micros = NewType("Micros", int)
"""An instant, in microseconds since 1970-01-01T00:00:00Z."""
Digest = NewType("Digest", bytes)
"""A SHA-256, 32 bytes."""


class RunId(NamedTuple):
    """A run's name: its flow and its number."""

    flow: FlowName
    number: RunNumber

    def __str__(self) -> str:
        return f"{self.flow}/{self.number}"

    @classmethod
    def parse(cls, text: str) -> "RunId":
        """Read `Flow/3`.

        Raises:
            UsageError: The text is not a flow's name, a slash and a positive number.
        """
        flow, slash, number = text.partition("/")
        if not (slash and flow.isidentifier() and number.isdecimal() and int(number) > 0):
            raise UsageError(f"'{text}' does not name a run.", "A run is named like 'TrainFlow/3'.")
        return cls(FlowName(flow), RunNumber(int(number)))


class AttemptId(NamedTuple):
    """One attempt of one task of one run; also the executor's deterministic external name."""

    run: RunId
    task: TaskId
    attempt: int

    def __str__(self) -> str:
        return f"{self.run}/{self.task}.{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> "AttemptId":
        """Read `Flow/3/17.0`.

        Raises:
            UsageError: The text is not of that form.
        """
        run, _, rest = text.rpartition("/")
        task, dot, attempt = rest.partition(".")
        if not (dot and task.isdecimal() and attempt.isdecimal()):
            raise UsageError(f"'{text}' does not name an attempt.", "An attempt is named like 'TrainFlow/3/17.0'.")
        return cls(RunId.parse(run), TaskId(int(task)), int(attempt))
