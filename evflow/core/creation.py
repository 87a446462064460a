"""Tasks come into being: by a transition of the task before them, or by the join of a split whose members have all arrived."""

from evflow.core import events as ev, gangs
from evflow.core.state import Counts, Frame, RunState, Split, Task


def is_asked_for(state: RunState, parent: Task, event: ev.TasksCreated) -> bool:
    """Whether these are the next tasks of the first transition, or join, on the agenda."""
    agenda, one = state.agenda, event.count == 1
    if event.op == "join":
        return one and event.size == event.index == 0 and agenda.joins[0] == parent.id and state.splits[parent.id].join == event.step
    if agenda.routes[0] != parent.id or parent.next_kind == "end":
        return False
    if parent.next_kind in ("foreach", gangs.PARALLEL):
        whole = event.index == 0 and event.count == event.size == parent.splits
        return whole and event.op == parent.next_kind and event.step == parent.next_steps[0]
    if parent.next_kind == "split":
        made = state.splits[parent.id].made if parent.id in state.splits else 0
        member = event.index == made and event.size == len(parent.next_steps)
        return one and member and event.op == "split" and event.step == parent.next_steps[made]
    return one and event.size == event.index == 0 and event.op == "linear" and event.step == parent.next_steps[0]


def create(state: RunState, parent: Task, event: ev.TasksCreated) -> None:
    """Make the tasks, for which an event was asked, and strike them off the agenda."""
    visits = {**parent.visits, event.step: parent.visits.get(event.step, 0) + 1}
    tasks, at_us = state.tasks, state.at_us
    if event.op in ("split", "foreach", gangs.PARALLEL):
        split = _split_of(state, parent, event)
        split.made += event.count
        for offset in range(event.count):
            tasks.append(Task(event.first + offset, event.step, event.parent, Frame(split, event.index + offset), visits, at_us))
    else:
        frame = state.splits[parent.id].frame if event.op == "join" else parent.frame
        tasks.append(Task(event.first, event.step, event.parent, frame, visits, at_us))
    if event.step not in state.steps:
        state.steps[event.step] = Counts()
    state.steps[event.step].created += event.count
    agenda = state.agenda
    agenda.created.append((event.first, event.count))
    agenda.asked[event.first] = state.seq
    agenda.promised -= event.count
    if event.index + event.count >= event.size:
        (agenda.joins if event.op == "join" else agenda.routes).popleft()
        del agenda.asked[parent.id]


def _split_of(state: RunState, parent: Task, event: ev.TasksCreated) -> Split:
    """The split whose members these tasks are, made by the first of them."""
    if event.index == 0:
        state.splits[parent.id] = Split(
            parent.id, parent.step, event.op, event.size, parent.frame, parent.visits,
            parent.items, parent.variable, [0] * event.size,
        )  # fmt: skip
    return state.splits[parent.id]
