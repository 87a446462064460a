"""Artifacts that nobody set and that Metaflow's users ask for by name: `task["_graph_info"].data`, made of what the log has of the task."""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from evflow.client.artifact import DataArtifact
from evflow.client.history import RunHistory
from evflow.core.graph import Graph, Node
from evflow.core.ids import Digest
from evflow.core.state import Task
from evflow.flow.foreach_frame import ForeachFrame
from evflow.store.manifests import Entry
from evflow.store.serializers import serialize

NAMES: Final = frozenset(
    {"_current_step", "_exception", "_foreach_stack", "_graph_info", "_iteration_stack", "_success", "_task_ok", "_transition"}
)
_TYPES: Final = {"split": "split-static", "foreach": "split-foreach", "switch": "split-switch"}


class RecordedArtifact(DataArtifact):
    """One of them. It has a value and no bytes of its own in the store."""

    __slots__ = ()

    @property
    def data(self) -> Any:
        """The value."""
        history = self._history
        if self.id == "name":  # public, unlike the others, and there under Metaflow's rules alone
            return self.parts[0]
        task = history.task(int(self.parts[3]))
        if self.id == "_graph_info":
            return _graph_info(history)
        if self.id == "_foreach_stack":
            return _foreach_stack(history, task)
        if self.id == "_transition":
            node = history.known().graph.nodes.get(task.step)
            return (list(task.next_steps), node.foreach if node else None) if task.next_steps else None
        if self.id == "_current_step":
            return task.step
        if self.id == "_exception":
            from evflow.client.task import Task as TaskOfClient

            return TaskOfClient.of(self.parts[:4], history, self._attempt).exception
        if self.id == "_iteration_stack":
            node = history.known().graph.nodes.get(task.step)
            return [task.iteration] if node is not None and task.step in node.out else []
        return task.status == "succeeded" and (self.id == "_task_ok" or task.caught is None)

    @property
    def _entry(self) -> Entry:
        """What it would be if it were kept."""
        value = self.data
        made = serialize(self.id, value)
        content = b"".join(made.chunks)
        digest = Digest(hashlib.sha256(content).digest())
        return Entry(digest, made.serializer, type(value).__name__, len(content), digest, 0, len(content))


def _foreach_stack(history: RunHistory, task: Task) -> list[ForeachFrame]:
    frames = [frame for frame in task.frames() if frame.split.kind == "foreach"]
    nodes = history.known().graph.nodes
    return [
        ForeachFrame(
            nodes[frame.split.step].out[0],  # the step that runs for each item, as in Metaflow
            frame.split.variable,
            frame.split.size,
            frame.index,
            history.data.item(frame.split.items, frame.index) if frame.split.items else None,
        )
        for frame in frames
    ]


def _graph_info(history: RunHistory) -> dict[str, Any]:
    """The graph as the run recorded it, under the names of Metaflow's."""
    state = history.known()
    graph: Graph = state.graph
    parameters: dict[str, str] = state.header.get("parameters_shown") or {}
    return {
        "file": str(history.code().get("file") or "").rpartition("/")[2],
        "start_step": graph.start,
        "end_step": graph.end,
        "parameters": [{"name": name, "type": "Parameter"} for name in parameters],
        "steps": {name: _step_info(graph, node) for name, node in graph.nodes.items()},
        "doc": graph.doc,
        "decorators": _decorators(state.header["options"].get("decorators", ())),
        "extensions": {},
    }


def _decorators(texts: Sequence[str]) -> list[dict[str, str]]:
    return [{"name": text.removeprefix("@").partition("(")[0], "text": text} for text in texts]


def _step_info(graph: Graph, node: Node) -> dict[str, Any]:
    kind = "start" if node.name == graph.start and node.kind == "linear" else node.kind
    info: dict[str, Any] = {
        "name": node.name,
        "type": _TYPES.get(kind, kind),
        "line": node.line,
        "source_file": node.file,
        "doc": node.doc,
        "decorators": _decorators(node.decorators),
        "next": list(node.out),
    }
    if node.foreach is not None:
        info["foreach_artifact"] = node.foreach
    if node.condition is not None:
        info["condition"], info["switch_cases"] = node.condition, dict(node.cases)
    return info
