"""How attempts come to their executors: one by one, or as a gang where the executor takes it as one thing."""

from collections.abc import Iterable

from evflow.core.events import TaskLaunched
from evflow.core.gangs import gang_of, lead_of, nodes_of
from evflow.core.ids import AttemptId
from evflow_executors.protocol import Executor, GangExecutor
from evflow_scheduler.orders import name_of, order_of
from evflow_scheduler.run import OwnedRun


async def launch(executor: Executor, run: OwnedRun, event: TaskLaunched) -> None:
    """Carry out a launch, which the log has.

    The launches of a gang stand in one turn, node 0's first: all nodes go with that one.
    """
    task = run.state.tasks[event.task]
    if gang_of(task) is None or not isinstance(executor, GangExecutor):
        await executor.launch(name_of(run.id, task), order_of(run.state, task))
    elif lead_of(task) == task.id:
        await executor.launch_gang([(name_of(run.id, node), order_of(run.state, node)) for node in nodes_of(run.state, task)])


def gangs_in(run: OwnedRun, attempts: Iterable[AttemptId]) -> list[list[AttemptId]]:
    """The gangs of which some of these attempts are nodes: all nodes of each, in their order."""
    tasks = run.state.tasks
    leads = {lead_of(tasks[attempt.task]): None for attempt in attempts if gang_of(tasks[attempt.task]) is not None}
    return [[name_of(run.id, node) for node in nodes_of(run.state, tasks[lead])] for lead in leads]
