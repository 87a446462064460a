"""The default card, behind what the step put into it: parameters, artifacts, the task's place in the flow, its times, its code."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from evflow.cards.amounts import duration, moment, size
from evflow.cards.artifact import looks, short
from evflow.cards.code import python
from evflow.cards.component import escape
from evflow.cards.dag import draw
from evflow.cards.error import Error
from evflow.cards.facts import Shown, TaskFacts
from evflow.cards.page import section

_SHORT_CHARS: Final = 400
"""A value's text in a table; longer ones are folded away."""


def sections(task: TaskFacts) -> str:
    """The sections of a task."""
    return "\n".join(
        part
        for part in (
            section("What went wrong", Error(task.error, "The step failed").render()) if task.error else "",
            section("Parameters", _table(task.parameters, sizes=False)),
            section("Artifacts", _table(task.artifacts, sizes=True) + _more(task.more_artifacts)),
            section("Place in the flow", _place(task)),
            section("Times", _times(task)),
            section("Code", _code(task)),
            section("About", _about(task)),
        )
        if part
    )


def _table(shown: Sequence[Shown], *, sizes: bool) -> str:
    if not shown:
        return ""
    head = '<th scope="col">Name</th><th scope="col">Type</th>' + ('<th scope="col" class="number">Size</th>' if sizes else "")
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(one.name)}</code></th><td class="type">{escape(one.type)}</td>'
        + (f'<td class="number">{escape(size(one.size_bytes))}</td>' if sizes else "")
        + f"<td>{_value(one)}</td></tr>"
        for one in shown
    )
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="Values"><table class="values">'
        f'<thead><tr>{head}<th scope="col">Value</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _value(one: Shown) -> str:
    if not one.is_loaded:
        return '<span class="none">not loaded</span>'
    better = looks(one.value)
    if better is not None:
        return f"<details><summary>{escape(one.type)}</summary>{better.render()}</details>"
    text = short(one.value)
    if len(text) <= _SHORT_CHARS:
        return f'<code class="plain">{escape(text)}</code>'
    return f"<details><summary>{escape(text[:80])}…</summary><pre>{escape(text)}</pre></details>"


def _more(count: int) -> str:
    return f"<p>And {count:,} more.</p>" if count else ""


def _place(task: TaskFacts) -> str:
    if task.graph is None:
        return ""
    doc = f"<p>{escape(task.doc)}</p>" if task.doc else ""
    return doc + draw(task.graph, task.step)


def _times(task: TaskFacts) -> str:
    """The stages as a bar each, from when the task came into being."""
    stages = [*_stages(task)]
    if not stages:
        return ""
    first, last = stages[0][1], max(end for _, _, end in stages)
    span = max(1, last - first)
    width, height, left = 480, 26, 104
    rows: list[str] = []
    for at, (name, begun, ended) in enumerate(stages):
        x = left + (begun - first) / span * (width - left - 90)
        wide = max(2.0, (ended - begun) / span * (width - left - 90))
        y = at * height
        rows.append(
            f'<text x="0" y="{y + 17}" class="label">{escape(name)}</text><rect x="{x:.1f}" y="{y + 5}" width="{wide:.1f}" height="16" rx="3" '
            f'class="bar {"run" if name == "Running" else ""}"/><text x="{x + wide + 8:.1f}" y="{y + 17}">{escape(duration(ended - begun))}</text>'
        )
    said = "; ".join(f"{name.lower()} for {duration(end - begin)}" for name, begin, end in stages)
    return (
        f'<svg class="times" viewBox="0 0 {width} {len(stages) * height}" width="{width}" role="img" aria-label="{escape(said)}">{"".join(rows)}</svg>'
        f'<p class="about">Created {moment(first, seconds=True)}, ended {moment(last, seconds=True)}.</p>'
    )


def _stages(task: TaskFacts) -> Iterator[tuple[str, int, int]]:
    """What the task did from one instant to the next: name, begin, end."""
    names = {"Queued": "Waiting", "Granted": "Getting ready", "Launched": "Starting", "Started": "Running"}
    known = [(name, at) for name, at in task.times if name in names or name == "Ended"]
    for (name, begun), (_, ended) in pairwise(known):
        yield names.get(name, name), begun, max(begun, ended)


def _code(task: TaskFacts) -> str:
    if not task.code:
        return ""
    return f'<p class="about"><code>{escape(task.file)}</code> <span class="type">line {task.line:,}</span></p>{python(task.code)}'


def _about(task: TaskFacts) -> str:
    facts = [("Host", task.host), ("Python", task.python), ("User", task.user), ("Tags", ", ".join(task.tags))]
    rows = "".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts if text)
    return f'<dl class="facts">{rows}</dl>' if rows else ""
