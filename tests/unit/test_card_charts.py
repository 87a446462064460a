"""Charts and nested data in cards."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from evflow.cards import EventsTimeline, JSONViewer, Markdown, ProgressBar, ValueBox, VegaChart, YAMLViewer
from evflow.cards.collector import CardPlan
from evflow.cards.facts import TaskFacts
from evflow.cards.page import drawn
from evflow.cards.render import render
from tests.effort import scaled

yaml: Any = pytest.importorskip("yaml")
TASK = TaskFacts("TrainFlow", "3", "train", "7")
SPEC: dict[str, Any] = {
    "title": "Bars </script>",
    "data": {"values": [{"a": "</script><script>alert(1)</script>", "b": float("nan")}]},
    "mark": "bar",
}
OF_THE_PACKAGES = {
    "vega.min.js": "8f6a3587cf8d4f42c7e08120e3eb05d067e746d554e39d2dcf52acc0bd5ba28f",
    "vega-lite.min.js": "35a9821df838825b05a6a73e9414b58747a1b18321583858ed903c66393a5c7e",
    "vega-interpreter.js": "a184ef14ca1c32edd62052e9cb084bc86050568c28eb38e63e14623fdd03580a",
}
"""SHA-256 of what `scripts/vega` writes; nothing else may change these files."""

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def text_of(html: str) -> str:
    from html import unescape

    return unescape(re.sub(r"<[^>]+>", "", html))


@pytest.mark.parametrize(("name", "digest"), OF_THE_PACKAGES.items())
def test_the_scripts_are_those_of_the_packages(name: str, digest: str) -> None:
    data = (files("evflow.cards") / "vega_js" / name).read_bytes()
    assert sha256(data).hexdigest() == digest
    assert b"</script" not in data.lower()


def test_a_page_with_a_chart_names_its_scripts_by_hash_and_nothing_else() -> None:
    plan = CardPlan("blank")
    plan.add(VegaChart(SPEC))
    page = render(plan, TASK)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 4
    rule = re.search(r"script-src ([^;&\"]*(?:&#x27;[^;\"]*)*)", page)
    assert rule is not None
    named = {*re.findall(r"sha256-[\w+/=]+", page)}
    assert named == {f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}" for script in scripts}
    assert "unsafe-eval" not in page[: page.index("<style>")]


def test_the_data_of_a_chart_cannot_leave_its_element() -> None:
    html = VegaChart(SPEC).render()
    assert html.count("<script") == html.count("</script>") == 1
    held = re.search(r'<script type="application/json">(.*)</script>', html, re.DOTALL)
    assert held is not None
    assert json.loads(held[1])["data"]["values"] == [{"a": "</script><script>alert(1)</script>", "b": None}]
    assert 'aria-label="Bars &lt;/script&gt;"' in html


def test_what_is_no_chart_says_so() -> None:
    for wrong in (VegaChart(None), VegaChart("bar"), VegaChart.from_altair_chart(5)):  # type: ignore[arg-type]
        assert 'class="problem"' in wrong.render()


def test_boxes_stand_beside_each_other_and_others_do_not() -> None:
    html = drawn([ValueBox("a", 1), ValueBox("b", 1234567), Markdown("between"), ValueBox("c", 0.123456, theme="success")])
    assert html.count('<div class="beside">') == 2
    assert "1,234,567" in html
    assert "0.1235" in html
    assert 'class="box good"' in html


@pytest.mark.parametrize(
    ("most", "value", "said"),
    [(40, 31, "31 of 40 (78%)"), (0, 5, "5 of 0"), (100, 250, "250 of 100 (250%)"), ("x", None, "0 of 0"), (1, 0.5, "0.5 of 1 (50%)")],
)
def test_a_bar_says_how_far_it_is(most: Any, value: Any, said: str) -> None:
    bar = ProgressBar(max=most, label="Work")
    bar.update(value)
    assert said in text_of(bar.render())


@settings(max_examples=scaled(500), deadline=None)
@given(plain)
def test_yaml_means_what_the_data_is(data: Any) -> None:
    assert yaml.safe_load(YAMLViewer(data if not isinstance(data, str) else [data])._text) == (
        data if not isinstance(data, str) else [data]
    )


@settings(max_examples=scaled(300), deadline=None)
@given(st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=8), plain, max_size=4))
def test_a_tree_holds_every_leaf_and_name(data: Any) -> None:
    text = text_of(JSONViewer(data).render())

    def visit(one: Any) -> None:
        if isinstance(one, dict):
            for name, item in one.items():
                assert name in text
                visit(item)
        elif isinstance(one, list):
            for item in one:
                visit(item)
        else:
            assert json.dumps(one, ensure_ascii=False) in text

    visit(data)


def test_data_that_is_no_json_says_so() -> None:
    assert 'class="problem"' in JSONViewer("{no json").render()
    loop: list[Any] = []
    loop.append(loop)
    assert 'class="problem"' in JSONViewer(loop).render()
    assert 'class="problem"' in YAMLViewer(loop).render()


def test_a_timeline_keeps_the_newest_events() -> None:
    line = EventsTimeline("What happened", max_events=2)
    for number in range(5):
        line.update({"call": f"<{number}>"}, style_theme="error", payloads={"more": Markdown(f"**m{number}**")})
    html = line.render()
    assert [f"&lt;{number}&gt;" in html for number in range(5)] == [False, False, False, True, True]
    assert html.index("&lt;4&gt;") < html.index("&lt;3&gt;")
    assert "<strong>m4</strong>" in html
    assert "And 3 before these." in html
