"""What is said of jobs that a platform does not start: collected, bounded, said again, and taken back."""

from collections.abc import Sequence

import anyio

from evflow.core.explain_said import MOST_NAMED, UnstartedJob
from evflow.core.ids import AttemptId, FlowName, RunId, RunNumber, TaskId
from evflow.log.said_waits import Unheard
from evflow.testing.virtual_time import run as in_virtual_time
from evflow_executors.remote.unstarted import AGAIN_S, SOON_S, Unstarted

RUN, OTHER = (RunId(FlowName("F"), RunNumber(number)) for number in (7, 8))


def attempt(task: int, run: RunId = RUN) -> AttemptId:
    return AttemptId(run, TaskId(task), 0)


class Heard(Unheard):
    def __init__(self) -> None:
        self.said: list[tuple[RunId, int, Sequence[UnstartedJob]]] = []

    async def say_unstarted(self, run: RunId, executor: str, tasks: int, jobs: Sequence[UnstartedJob]) -> None:
        assert executor == "kubernetes"
        self.said.append((run, tasks, jobs))

    async def unsay_unstarted(self, run: RunId, executor: str) -> None:
        self.said.append((run, 0, ()))

    def take(self) -> list[tuple[RunId, int, Sequence[UnstartedJob]]]:
        said, self.said = self.said, []
        return said


def test_what_changes_is_collected_and_what_waits_is_said_again() -> None:
    in_virtual_time(_told)


async def _told() -> None:
    heard = Heard()
    unstarted = Unstarted("kubernetes", heard)
    async with anyio.create_task_group() as group:
        group.start_soon(unstarted.go_on)
        for task in range(1, 1_001):
            unstarted.note(attempt(task), "No node.")
        unstarted.note(attempt(5), "No image.")
        await anyio.sleep(SOON_S * 1.5)
        [(run, tasks, jobs)] = heard.take()
        assert (run, tasks, len(jobs)) == (RUN, 1_000, MOST_NAMED), "what comes within a moment is said at once"
        assert jobs[:2] == [UnstartedJob(5, 0, "No image."), UnstartedJob(1_000, 0, "No node.")], "the latest one first"

        unstarted.note(attempt(5), "No image.")
        unstarted.note(attempt(1, OTHER), "")
        await anyio.sleep(SOON_S * 2)
        assert heard.take() == [], "nothing has changed"

        await anyio.sleep(AGAIN_S)
        assert [(run, tasks) for run, tasks, _ in heard.take()] == [(RUN, 1_000)], "it is said again while they wait"

        for task in range(2, 1_001):
            unstarted.note(attempt(task), "")
        unstarted.note(attempt(1, OTHER), "No node.")
        await anyio.sleep(SOON_S * 2)
        assert sorted(heard.take()) == [(RUN, 1, [UnstartedJob(1, 0, "No node.")]), (OTHER, 1, [UnstartedJob(1, 0, "No node.")])]

        unstarted.note(attempt(1), "")
        await anyio.sleep(SOON_S * 2)
        assert heard.take() == [(RUN, 0, ())]
        unstarted.note(attempt(1, OTHER), "")
        await anyio.sleep(SOON_S * 2 + AGAIN_S)
        assert heard.take() == [(OTHER, 0, ())], "of runs that are over nothing is said again"
        group.cancel_scope.cancel()


def test_what_waits_is_said_again_also_while_something_of_other_runs_changes() -> None:
    in_virtual_time(_told_beside_others)


async def _told_beside_others() -> None:
    heard = Heard()
    unstarted = Unstarted("kubernetes", heard)
    async with anyio.create_task_group() as group:
        group.start_soon(unstarted.go_on)
        unstarted.note(attempt(1), "No node.")
        for moment in range(10):
            unstarted.note(attempt(1, OTHER), f"No node, {moment} times.")
            await anyio.sleep(AGAIN_S / 2 - 10)
        assert [run for run, _, _ in heard.take()].count(RUN) == 1 + 10 * (AGAIN_S / 2 - 10) // AGAIN_S
        group.cancel_scope.cancel()
