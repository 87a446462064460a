"""A flow's graph as a picture: inline SVG, drawn here, without scripts.

The steps stand in columns by how far they are from the first one, so that an arrow nearly always points to the right; within a column in the
order in which the source comes to them. An arrow back (a loop) runs below. Good for what flows look like, and no more than that: it does not
minimise crossings.
"""

from collections import deque
from typing import Final, NamedTuple

from evflow.cards.component import escape
from evflow.core.graph import Graph, Node

_CHAR: Final = 7.6
"""Width of a character of a step's name, in units of the picture."""
_HEIGHT: Final = 36
_GAP_X: Final = 44
_GAP_Y: Final = 22
_MARGIN: Final = 4
_NAME_CHARS: Final = 28
_MOST_STEPS: Final = 150
_MARKS: Final = {"split": "splits", "parallel": "gang", "foreach": "foreach", "switch": "chooses", "join": "join", "conditional": "chooses"}


class _Box(NamedTuple):
    x: float
    y: float
    width: float


def draw(graph: Graph, current: str) -> str:
    """The picture, in which one step is marked."""
    if len(graph.nodes) > _MOST_STEPS:
        return f"<p>The flow has {len(graph.nodes):,} steps, too many for a picture.</p>"
    columns = _columns(graph)
    boxes = _boxes(columns)
    width = max(box.x + box.width for box in boxes.values()) + _MARGIN
    bottom = max(box.y for box in boxes.values()) + _HEIGHT
    arrows: list[str] = []
    lowest = bottom
    for node in graph.nodes.values():
        for target in node.out:
            if target in boxes and node.name in boxes:
                path, low = _arrow(boxes[node.name], boxes[target], lowest)
                lowest = max(lowest, low)
                arrows.append(f'<path d="{path}" marker-end="url(#tip)"/>')
    steps = "".join(_step(graph.nodes[name], box, marked=name == current) for name, box in boxes.items())
    order = " → ".join(" and ".join(column) for column in columns)
    said = f"The flow's steps: {order}. This card is of a task of {current}."
    height = lowest + _MARGIN
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="Graph"><svg class="dag" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escape(said)}"><defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" '
        f'markerWidth="7" markerHeight="7" orient="auto"><path d="M0,0.8 L7,4 L0,7.2 z"/></marker></defs>'
        f'<g class="arrows">{"".join(arrows)}</g>{steps}</svg></div>'
    )


def _columns(graph: Graph) -> list[list[str]]:
    """The steps by their distance from the first one: the longest way there, loops left out."""
    ahead = _without_loops(graph)
    incoming = dict.fromkeys(graph.nodes, 0)
    for targets in ahead.values():
        for target in targets:
            incoming[target] += 1
    depth = dict.fromkeys(graph.nodes, 0)
    ready = deque(name for name, count in incoming.items() if not count)
    while ready:
        name = ready.popleft()
        for target in ahead[name]:
            depth[target] = max(depth[target], depth[name] + 1)
            incoming[target] -= 1
            if not incoming[target]:
                ready.append(target)
    columns: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in _as_met(graph):
        columns[depth[name]].append(name)
    return [column for column in columns if column]


def _without_loops(graph: Graph) -> dict[str, list[str]]:
    """The arrows but for those that lead back to a step on the way there."""
    ahead: dict[str, list[str]] = {name: [] for name in graph.nodes}
    seen: set[str] = set()
    for root in (graph.start, *graph.nodes):
        if root in seen:
            continue
        path, stack = {root}, [(root, iter(graph[root].out))]
        seen.add(root)
        while stack:
            name, targets = stack[-1]
            target = next(targets, None)
            if target is None:
                stack.pop()
                path.discard(name)
            elif target in graph and target not in path:
                ahead[name].append(target)
                if target not in seen:
                    seen.add(target)
                    path.add(target)
                    stack.append((target, iter(graph[target].out)))
    return ahead


def _as_met(graph: Graph) -> list[str]:
    """The steps in the order in which the source's transitions come to them, so that branches stand as they are named."""
    found: dict[str, None] = {graph.start: None}
    waiting = deque([graph.start])
    while waiting:
        for target in graph[waiting.popleft()].out:
            if target in graph and target not in found:
                found[target] = None
                waiting.append(target)
    return [*found, *(name for name in graph.nodes if name not in found)]


def _boxes(columns: list[list[str]]) -> dict[str, _Box]:
    tallest = max(map(len, columns))
    boxes: dict[str, _Box] = {}
    x = float(_MARGIN)
    for column in columns:
        width = max(len(_short(name)) for name in column) * _CHAR + 28
        top = _MARGIN + (tallest - len(column)) * (_HEIGHT + _GAP_Y) / 2
        for at, name in enumerate(column):
            boxes[name] = _Box(x, top + at * (_HEIGHT + _GAP_Y), width)
        x += width + _GAP_X
    return boxes


def _arrow(source: _Box, target: _Box, lowest: float) -> tuple[str, float]:
    """An arrow's path, and how low it comes."""
    y, to_y = source.y + _HEIGHT / 2, target.y + _HEIGHT / 2
    begin, end = source.x + source.width, target.x
    if end > source.x:
        middle = (begin + end) / 2
        return (f"M{begin:.1f},{y:.1f} C{middle:.1f},{y:.1f} {middle:.1f},{to_y:.1f} {end - 2:.1f},{to_y:.1f}", 0)
    low = lowest + 18
    begin, end = source.x + source.width / 2, target.x + target.width / 2
    begin, end = (begin, end) if source != target else (begin + 14, end - 14)
    path = f"M{begin:.1f},{source.y + _HEIGHT:.1f} C{begin:.1f},{low:.1f} {end:.1f},{low:.1f} {end:.1f},{target.y + _HEIGHT + 2:.1f}"
    return path, low


def _step(node: Node, box: _Box, *, marked: bool) -> str:
    mark = _MARKS.get(node.kind, "")
    mark = "" if mark == node.name else mark
    name = f'<text x="{box.x + box.width / 2:.1f}" y="{box.y + (16 if mark else 22):.1f}">{escape(_short(node.name))}</text>'
    kind = f'<text class="kind" x="{box.x + box.width / 2:.1f}" y="{box.y + 29:.1f}">{mark}</text>' if mark else ""
    looks = "step here" if marked else "step"
    return (
        f'<g class="{looks}"><title>{escape(node.name)}{": " if node.doc else ""}{escape(node.doc)}</title>'
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{_HEIGHT}" rx="8"/>{name}{kind}</g>'
    )


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"
