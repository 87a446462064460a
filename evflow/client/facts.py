"""Facts about a task under the names that Metaflow's users look for."""

from collections.abc import Iterator

from evflow.client.errors import EvflowNotFound
from evflow.client.history import RunHistory
from evflow.client.objects import find_run
from evflow.core.gangs import gang_of, lead_of
from evflow.core.state import Task

Fact = tuple[str, str, int, str]
"""Name, value, milliseconds since 1970, type."""


def facts_of(history: RunHistory, task: Task) -> Iterator[Fact]:
    """All facts, the oldest first."""
    state = history.known()
    header = state.header
    created_ms = task.created_us // 1_000

    def fact(name: str, value: object, at_ms: int = created_ms, kind: str = "") -> Fact:
        return name, str(value), at_ms, kind or name

    for tag in sorted(history.system_tags):
        name, _, value = tag.partition(":")
        yield fact(name, value)
    file: str = history.code().get("file") or ""
    if file:
        yield fact("script-name", file.rpartition("/")[2])
    store: str = header.get("store") or ""
    if store:
        kind = store.partition("://")[0] if "://" in store else "file"
        yield fact("ds-type", "local" if kind == "file" else kind)  # as Metaflow calls a folder
        yield fact("ds-root", store)
    if header.get("origin"):
        yield fact("origin-run-id", header["origin"].rpartition("/")[2])
    if task.reused:
        yield fact("origin-task-id", task.reused.rpartition("/")[2])
    if task.attempts and task.attempts[-1].cached_from:
        yield fact("cached-from", task.attempts[-1].cached_from)
    if not task.id:
        yield fact("start_step", state.graph.start)
        yield fact("end_step", state.graph.end)
    if gang_of(task) is not None and lead_of(task) == task.id:
        yield fact("internal_task_type", "control_task")
    frames = [frame for frame in task.frames() if frame.split.kind in ("foreach", "parallel")]
    if frames:
        path = [f"{state.tasks[frame.split.task].next_steps[0]}:{frame.index}" for frame in frames]
        yield fact("foreach-execution-path", ",".join(path))
    for attempt in task.attempts:
        if attempt.launched_us:
            at_ms = attempt.launched_us // 1_000
            yield fact("attempt", attempt.number, at_ms)
            yield fact("executor", attempt.executor, at_ms)
        if attempt.host:
            yield fact("host", attempt.host, attempt.started_us // 1_000)
            yield fact("pid", attempt.pid, attempt.started_us // 1_000)
        if attempt.outcome:
            ended_ms = attempt.ended_us // 1_000
            yield fact("attempt_ok", attempt.outcome == "succeeded", ended_ms, "internal_attempt_status")
            yield fact("attempt-done", attempt.number, ended_ms)


def facts_there(pathspec: str) -> Iterator[Fact]:
    """The facts about a task of another run, of each name the last one; none where that run is gone."""
    flow, run, _, number = pathspec.split("/")
    try:
        history = find_run(flow, run)
    except EvflowNotFound:
        return
    yield from {fact[0]: fact for fact in facts_of(history, history.task(int(number)))}.values()
