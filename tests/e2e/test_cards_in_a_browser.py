"""A card as a browser has it: its charts are drawn under its own policy, and nothing that was smuggled in runs."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from evflow.cards import CardComponent, CardType, Markdown, Table, VegaChart
from evflow.cards.collector import CardPlan
from evflow.cards.facts import Around, TaskFacts
from evflow.cards.render import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SPEC = {"mark": "bar", "data": {"values": [{"a": "A", "b": 28}, {"a": "B", "b": 55}, {"a": "C", "b": 5}]}, "transform": [{"filter": "datum.b > 20"}],
        "encoding": {"x": {"field": "a", "type": "nominal"}, "y": {"field": "b", "type": "quantitative"}}}  # fmt: skip
PLAIN = {"$schema": "https://vega.github.io/schema/vega/v6.json", "width": 50, "height": 50, "signals": [{"name": "r", "update": "width * 2"}],
         "marks": [{"type": "symbol", "encode": {"enter": {"x": {"value": 20}, "y": {"value": 20}, "size": {"signal": "r"}}}}]}  # fmt: skip
ELSEWHERE = {"mark": "bar", "data": {"url": "https://example.org/data.json"}, "encoding": {"x": {"field": "a", "type": "nominal"}}}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


class Smuggled(CardComponent):
    """What a hole in the sanitising would let through; the policy stands behind it."""

    def render(self) -> str:
        return (
            '<p id="mark">untouched</p><script>document.getElementById("mark").textContent = "touched"</script>'
            "<img src=x onerror=\"document.getElementById('mark').textContent = 'touched'\">"
            '<META http-equiv="refresh" content="0;url=about:blank">'
        )


class Shown(CardType):
    """A page that tries what pages of others do."""

    type = "shown-in-a-browser"
    ALLOW_USER_COMPONENTS = True

    def __init__(self, components: Sequence[str] = ()) -> None:
        self.components = components

    def render(self, task: object) -> str:
        return (
            "<html><head><style>#mark { color: rgb(1, 2, 3) } @import url(https://evil.example/)</style></head><body onload='hit()'>"
            '<p id="mark">untouched</p><script>document.getElementById("mark").textContent = "touched"</script>'
            f"<svg viewBox='0 0 9 9'><circle r='4'/></svg><div class='chart'>mine</div>{''.join(self.components)}</body></html>"
        )


def html(*components: CardComponent, kind: str = "default") -> str:
    """The page as it is written."""
    plan = CardPlan(kind)
    for component in components:
        plan.add(component)
    return render(plan, TaskFacts("TrainFlow", "3", "train", "7"), around=Around(str, dict, str))


def dom(root: Path, *components: CardComponent, kind: str = "default") -> str:
    """The page as Chromium has it after its scripts have run."""
    return opened(root, html(*components, kind=kind))


def opened(root: Path, page: str) -> str:
    """What Chromium makes of a page, but for the scripts in it."""
    file = root / "card.html"
    file.write_text(page)
    assert CHROMIUM is not None
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        f"--user-data-dir={root / 'profile'}",
        "--dump-dom",
    ]
    done = subprocess.run([CHROMIUM, *options, file.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    assert "</html>" in done.stdout, done.stderr
    return re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)


def test_charts_are_drawn_as_svg_under_the_policy(root: Path) -> None:
    page = dom(root, VegaChart(SPEC), VegaChart(PLAIN))
    assert page.count('data-drawn=""') == 2
    assert len(re.findall(r'aria-roledescription="bar"', page)) == 2
    assert "a: A; b: 28" in page
    assert "cannot be drawn" not in page


def test_a_chart_loads_nothing_from_elsewhere_and_leaves_the_others(root: Path) -> None:
    page = dom(root, VegaChart({"mark": "nonsense"}), VegaChart(ELSEWHERE), VegaChart(SPEC))
    assert page.count("This chart cannot be drawn.") >= 1
    assert "a: A; b: 28" in page


def test_a_type_of_one_s_own_keeps_its_looks_and_its_charts_and_runs_no_script(root: Path) -> None:
    page = dom(root, VegaChart(SPEC), kind=str(Shown.type))
    assert '<p id="mark">untouched</p>' in page
    assert '<svg viewBox="0 0 9 9"><circle r="4"></circle></svg>' in page
    assert "color: rgb(1, 2, 3)" in page
    assert "a: A; b: 28" in page
    assert '<div class="chart">mine</div>' in page


def test_scripts_that_were_smuggled_in_do_not_run(root: Path) -> None:
    page = dom(root, Smuggled(), Table([["x"]]), Markdown("text"))
    assert '<p id="mark">untouched</p>' in page
    assert "&lt;META http-equiv" in page  # the reader is still here, and sees what was tried


def test_a_table_of_many_columns_is_printed_whole(root: Path) -> None:
    many = Table([range(1000, 1030)], headers=[f"column {number}" for number in range(30)])
    page = html(many).replace("@media print", "@media all").replace("Content-Security-Policy", "x-none")
    measure = "<script>const table = document.querySelector('table');"
    measure += "document.title = table.getBoundingClientRect().right <= 720 ? 'whole' : 'cut';</script>"
    narrow = page.replace("<body>", '<body style="width: 720px; margin: 0">').replace("</body>", f"{measure}</body>")
    assert "<title>whole</title>" in opened(root, narrow)
