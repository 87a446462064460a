"""Splits, their members and their joins: where a transition may lead.

The rules, in the order in which they are checked:

1. A transition is of a known kind and names steps of the flow: one, or the branches of a split, which are at most
   `MAX_BRANCHES`. A split's branches and a foreach's tasks are neither joins nor the end.
2. A foreach has at least one item and at most `max_splits`; a gang has 1 to `MAX_NODES` nodes, of a step that is `@parallel`, and no other
   transition leads to such a step. A node of a gang leads to the join.
3. A join is reached from inside a split. All members of one split reach the same join; the first one
   that arrives binds it. The join's task is created when all have arrived.
4. The end is reached outside of all splits.
5. The run creates no more tasks than its budget, so that a loop without an exit ends.
6. A step that already ran before the split is not reached from inside of it: that loop would leave the
   split without its join.

A breach fails the run and names both places.
"""

from evflow.core.gangs import MAX_NODES, PARALLEL, gang_of
from evflow.core.state import Ending, RunState, Split, Task

MAX_BRANCHES = 400
"""Branches of one static split: each is an event, and a turn has to fit into one append call."""
GANGS_SINCE = 4
"""The version of the decisions that knows gangs."""


def breach(state: RunState, task: Task) -> Ending | None:
    """What is wrong with the transition that the task's accepted result recorded, or None."""
    kind, steps = task.next_kind, task.next_steps
    if kind == "end":
        return _end(state, task)
    if not steps:
        return Ending("no-transition", f"{_place(task)} did not say which step comes next.", task.id)
    first = steps[0]
    for target in steps:
        if target not in state.graph.nodes:
            reason = f"{_place(task)} leads to '{target}', which is not a step of the flow."
            return Ending("unknown-step", reason, task.id)
    if kind in ("split", "foreach", PARALLEL):
        wrong = _form(state, task) or _into_split(state, task)
    elif kind not in ("linear", "switch") or len(steps) > 1:
        wrong = _form(state, task)
    else:
        wrong = _onward(state, task, first)
    if wrong is not None or len(state.tasks) - 1 + state.agenda.promised + tasks_of(task) <= state.budget:
        return wrong
    reason = (
        f"{_place(task)} leads to '{first}' beyond the run's budget of {state.budget} tasks. "
        "Raise it with --task-budget, or look for a loop that does not end."
    )
    return Ending("task-budget", reason, task.id)


def tasks_of(task: Task) -> int:
    """How many tasks the accepted transition leads to, the shared join of a split's members not counted."""
    if task.next_kind in ("foreach", PARALLEL):
        return task.splits
    return 0 if task.next_kind == "end" else len(task.next_steps)


def arrive(state: RunState, task: Task) -> Split | None:
    """Count the task's arrival at its join; the split, if this was its last member.

    Call only where `breach` found nothing and the target takes inputs.
    """
    frame = task.frame
    assert frame is not None
    split = frame.split
    if split.join is None:
        split.join, split.first_arrival = task.next_steps[0], task.id
    split.arrived[frame.index] = task.id
    split.count += 1
    return split if split.count == split.size else None


def _form(state: RunState, task: Task) -> Ending | None:
    """A worker's report that no worker of this version sends."""
    if task.next_kind not in ("linear", "switch", "foreach", "split", PARALLEL) or (
        task.next_kind == PARALLEL and state.logic < GANGS_SINCE
    ):
        reason = f"{_place(task)} reported a transition of the kind '{task.next_kind}', which this version of evflow does not know."
        return Ending("unknown-transition", reason, task.id)
    count = len(task.next_steps)
    if task.next_kind != "split" and count > 1:
        reason = f"{_place(task)} reported a {task.next_kind} transition to {count} steps ({', '.join(task.next_steps[:5])}); it has one."
        return Ending("unknown-transition", reason, task.id)
    if count > MAX_BRANCHES:
        reason = f"{_place(task)} splits into {count} branches; the most are {MAX_BRANCHES}. Use a foreach."
        return Ending("too-many-branches", reason, task.id)
    return None


def _end(state: RunState, task: Task) -> Ending | None:
    if task.step != state.graph.end:
        return Ending("no-transition", f"{_place(task)} did not say which step comes next.", task.id)
    return None


def _into_split(state: RunState, task: Task) -> Ending | None:
    for target in task.next_steps:
        if state.graph[target].takes_inputs:
            reason = f"{_place(task)} splits into '{target}', which is a join (it takes inputs). Put a step between the split and its join."
            return Ending("split-into-join", reason, task.id)
        if target == state.graph.end:
            return Ending("end-inside-split", _end_inside(task, task.step, task.id), task.id)
        if state.graph[target].policy.parallel is not (task.next_kind == PARALLEL):
            return _no_gang(task, target)
    if gang_of(task) is not None:
        return _not_joined(task, task.next_steps[0])
    if task.next_kind == "split":
        return _loop(task, task.next_steps)
    if task.next_kind == PARALLEL:
        return _loop(task, task.next_steps) if 0 < task.splits <= MAX_NODES else _gang_size(task)
    limit = int(state.options.get("max_splits", 0))
    if task.splits < 1:
        reason = f"Foreach iterator over {task.variable} in step {task.step} produced zero splits. Check your variable."
        return Ending("empty-foreach", reason, task.id)
    if limit and task.splits > limit:
        reason = (
            f"Foreach in step {task.step} yielded {task.splits} child steps which is more than the "
            f"current maximum of {limit} children. Raise the maximum with --max-num-splits."
        )
        return Ending("too-many-splits", reason, task.id)
    return _loop(task, task.next_steps)


def _onward(state: RunState, task: Task, target: str) -> Ending | None:
    frame, node = task.frame, state.graph.nodes[target]
    if node.policy.parallel:
        return _no_gang(task, target)
    if node.takes_inputs:
        if frame is None:
            reason = f"{_place(task)} leads to the join '{target}', but no split is open there. A join is reached from inside a split only."
            return Ending("join-without-split", reason, task.id)
        split = frame.split
        if split.join not in (None, target):
            first = state.tasks[split.first_arrival]
            reason = (
                f"The members of the split at {_where(state.tasks[split.task])} reach different joins: "
                f"{_where(first)} reached '{split.join}', {_where(task)} reached '{target}'."
            )
            return Ending("different-joins", reason, task.id)
        return None
    if frame is None:
        return None
    if frame.split.kind == PARALLEL:
        return _not_joined(task, target)
    if target == state.graph.end:
        return Ending("end-inside-split", _end_inside(task, frame.split.step, frame.split.task), task.id)
    return _loop(task, (target,))


def _no_gang(task: Task, target: str) -> Ending:
    if task.next_kind == PARALLEL:
        reason = f"{_place(task)} leads to '{target}' with num_parallel, and '{target}' has no @parallel."
        return Ending("gang-not-parallel", reason, task.id)
    reason = f"{_place(task)} leads to '{target}', which is @parallel, without num_parallel: self.next(self.{target}, num_parallel=…)."
    return Ending("parallel-without-gang", reason, task.id)


def _gang_size(task: Task) -> Ending:
    reason = f"{_place(task)} wants a gang of {task.splits} nodes (num_parallel); it has 1 to {MAX_NODES}."
    return Ending("gang-size", reason, task.id)


def _not_joined(task: Task, target: str) -> Ending:
    reason = f"{_place(task)} is @parallel and leads to '{target}', which is no join. The step behind a gang takes its nodes as inputs."
    return Ending("gang-not-joined", reason, task.id)


def _loop(task: Task, targets: tuple[str, ...]) -> Ending | None:
    frame = task.frame
    if frame is None:
        return None
    for target in targets:
        if target in frame.split.visits:
            reason = (
                f"{_place(task)} goes back to '{target}', which ran before the split at step "
                f"'{frame.split.step}' (task {frame.split.task}). Join the split before going back."
            )
            return Ending("loop-out-of-split", reason, task.id)
    return None


def _end_inside(task: Task, split_step: str, split_task: int) -> str:
    return (
        f"{_place(task)} reaches the end before the split at step '{split_step}' (task {split_task}) was joined. Add a join before the end."
    )


def _place(task: Task) -> str:
    return f"S{_where(task)[1:]}"


def _where(task: Task) -> str:
    return f"step '{task.step}' (task {task.id})"
