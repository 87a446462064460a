"""Types of cards of one's own: how their classes are found, what they are told, and what of their HTML is left."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from evflow.cards import BlankCard, CardComponent, CardType, DefaultCard, Markdown, ProgressBar, Table
from evflow.cards.collector import CardPlan, Cards
from evflow.cards.facts import Around, TaskFacts
from evflow.cards.own import OwnCard, safe
from evflow.cards.render import render
from evflow.cards.types import NoSuchCardType, known, own_type, takes_components
from evflow.core.values import replaced
from tests.effort import scaled
from tests.unit.test_cards import ATTACKS, TASK, is_harmless

AROUND = Around(lambda: "the task", lambda: {"start": {}, "end": {}}, lambda: "the flow")


class Told(CardType):
    type = "told"
    ALLOW_USER_COMPONENTS = True

    def __init__(
        self,
        options: Mapping[str, Any] = {"color": "none said"},
        components: Sequence[str] = (),
        graph: Mapping[str, Any] | None = None,
        flow: object = None,
    ) -> None:
        self.said = (options["color"], len(components), sorted(graph or ()), flow)
        self.components = components

    def render(self, task: object) -> str:
        return f"<p>{self.said} {task} {self.runtime_data}</p>{''.join(self.components)}"


class Live(CardType):
    type = "live"
    ALLOW_USER_COMPONENTS = True
    RUNTIME_UPDATABLE = True
    RELOAD_POLICY = CardType.RELOAD_POLICY_ONCHANGE

    def __init__(self, **given: Any) -> None:
        self.components = given["components"]

    def render(self, task: object) -> str:
        assert self.runtime_data is not None
        return f"<p>at last {self.runtime_data['user']}, [METAFLOW_RELOAD_TOKEN]</p>"

    def render_runtime(self, task: object, data: Mapping[str, Any]) -> str:
        return f"<p>{data['user']} of {task}, {data['mode']} {data['render_seq']}, [METAFLOW_RELOAD_TOKEN]</p>{data['components']['bar']}"

    def refresh(self, task: object, data: Mapping[str, Any]) -> object:
        return {"epoch": data["user"]}

    def reload_content_token(self, task: object, data: Mapping[str, Any]) -> str:
        return f"decade-{data['user'] // 10}"


class OnTop(DefaultCard):
    type = "on-top"

    def render(self, task: object) -> str:
        return f"<h1>Mine</h1>{super().render(task)}"


class Renamed(BlankCard):
    type = "renamed"


class NoComponents(CardType):
    type = "no-components"

    def render(self, task: object) -> str:
        return "<p>plain</p>"


class NoText(CardType):
    type = "no-text"

    def render(self, task: object) -> str:
        return 5  # type: ignore[return-value]


def plan(kind: str, *components: CardComponent, **fields: Any) -> CardPlan:
    made = CardPlan(kind, **fields)
    for component in components:
        made.add(component)
    return made


def acts_not(html: str) -> bool:
    """Whether nothing acts in what is one element of styles, which can hold anything but its end, and what is sanitised behind it: shapes may be there."""
    styles, end, rest = html.partition("</style>\n") if html.startswith("<style>") else ("", "", html)
    return "</" not in styles.replace("<\\/", "") and bool(end) == bool(styles) and is_harmless(rest.replace("<svg", "<g"))


def main_of(page: str) -> str:
    return page.partition("<main>\n")[2].partition("\n</main>")[0]


def test_a_class_is_told_what_it_asks_for() -> None:
    bare = main_of(render(plan("told"), TASK, around=AROUND))
    assert bare.startswith("<p>('none said', 0, ['end', 'start'], 'the flow') the task {'user': None")
    more = main_of(render(plan("told", Markdown("*one*"), Table([[1]]), options={"color": "red"}), TASK, around=AROUND))
    assert more.startswith("<p>('red', 2, ")
    assert '<div class="prose"><p><em>one</em></p>' in more
    assert '<table><tbody><tr><td class="number">1</td>' in more


def test_a_class_below_one_of_evflow_s_has_its_content() -> None:
    task = replaced(TASK, user="ada", host="home")
    assert main_of(render(plan("on-top", Markdown("text")), task, around=AROUND)) == "<h1>Mine</h1>" + main_of(
        render(plan("default", Markdown("text")), task)
    )
    assert main_of(render(plan("renamed", Markdown("text")), task, around=AROUND)) == main_of(render(plan("blank", Markdown("text")), task))
    assert main_of(render(plan("renamed", options={"title": "A <b>title"}), task, around=AROUND)) == "<h1>A &lt;b&gt;title</h1>\n"


def test_a_type_says_whether_its_cards_take_components(capsys: pytest.CaptureFixture[str]) -> None:
    assert [takes_components(name) for name in ("told", "no-components", "default", "error", "nobody-s")] == [
        True,
        False,
        True,
        False,
        True,
    ]
    cards = Cards([CardPlan("no-components")])
    cards.append(Markdown("x"))
    assert cards.plans[0].components == []
    assert "no card that takes components" in capsys.readouterr().err


def test_the_names_of_evflow_s_types_stay_its_own() -> None:
    class Taken(CardType):
        type = "default"

    assert own_type("default") is None
    assert known().count("default") == 1
    with pytest.raises(NoSuchCardType, match=r"'tolt'(?s:.)*Did you mean 'told'\?"):
        render(plan("tolt"), TASK, around=AROUND)
    assert Taken.type == "default"


def test_an_attempt_that_failed_shows_why_and_asks_no_class() -> None:
    page = render(plan("no-text"), replaced(TASK, status="failed", error="ValueError: no"), around=AROUND)
    assert "ValueError: no" in page
    with pytest.raises(TypeError, match=r"NoText\.render gave int"):
        render(plan("no-text"), TASK, around=AROUND)


def test_a_card_is_drawn_meanwhile_when_its_token_is_another_one() -> None:
    made = plan("live")
    bar = ProgressBar(max=20)
    made.add(bar, "bar")

    def card(number: int) -> OwnCard:
        made.data = number
        bar.update(number)
        return OwnCard(made, AROUND, lambda _: "")

    first, token = card(3).meanwhile(1, None)
    assert first is not None
    assert first.startswith("<p>3 of the task, render_runtime 1, decade-0</p>")
    assert "3" in re.sub("<[^>]+>", "", first.partition("</p>")[2])
    assert card(4).meanwhile(2, token) == (None, "decade-0")
    later, token = card(14).meanwhile(3, token)
    assert later is not None
    assert token == "decade-1"
    news = card(14).news(3)
    assert news is not None
    assert json.loads(news) == {"data": {"epoch": 14}, "reload_token": "decade-1", "render_seq": 3}
    assert main_of(render(made, TASK, around=AROUND)) == "<p>at last 14, final</p>"
    assert OwnCard(plan("told"), AROUND, lambda _: "").news(1) is None


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_class_renders_does_nothing(attack: str) -> None:
    assert acts_not(safe(attack, []))
    assert acts_not(safe(f"<div title='{attack}'>{attack}</div><style>{attack}</style>", []))
    part = Markdown(attack).render()
    for around in (
        "<div>%s</div>",
        "<div title='%s'>x</div>",
        '<p title="%s">x</p>',
        "<style>%s</style>",
        "<textarea>%s</textarea>",
        "<!-- %s -->",
    ):
        assert acts_not(safe(around % part, [part]))


@settings(max_examples=scaled(300), deadline=None)
@given(st.text(), st.text())
def test_no_text_of_a_class_or_in_its_components_acts(text: str, inner: str) -> None:
    part = Markdown(inner).render()
    assert acts_not(safe(f"<svg><style>{text}{part}</style><title>{text}</title></svg><p class='{part}'>{text}{part}", [part]))


def test_looks_are_kept() -> None:
    html = "<style>p { color: red }</style><section class='a' id='b'><p style='margin: 0'>x</p><svg viewBox='0 0 1 1'><path d='M0 0'/></svg></section>"
    assert safe(html, []) == (
        "<style>p { color: red }</style>\n"
        '<section class="a" id="b"><p style="margin: 0">x</p><svg viewBox="0 0 1 1"><path d="M0 0"></path></svg></section>'
    )


def test_a_picture_refers_to_its_own_parts_alone() -> None:
    svg = "<svg><defs><path id='glyph' d='M0 0'/></defs><use xlink:href='%s' x='1'/><use href='%s'/><rect fill='%s' clip-path='%s'/></svg>"
    drawn = safe(svg % ("#glyph", "#glyph", "url(#paint)", "url(#clip)"), [])
    assert '<use xlink:href="#glyph" x="1"></use><use href="#glyph"></use><rect fill="url(#paint)" clip-path="url(#clip)"></rect>' in drawn
    for far in (
        "https://evil.example/a.svg#g",
        "//evil.example/#g",
        "data:image/svg+xml,a#g",
        "javascript:alert(1)",
        "url(#a) url(//evil.example)",
    ):
        assert "<use></use><use></use><rect></rect>" in safe(svg % (far, far, f"url({far})", f"url({far})"), []).replace(' x="1"', ""), far


def test_a_component_that_is_a_word_replaces_no_other_word() -> None:
    assert safe("<p>p</p>", ["p", ""]) == "<p>p</p>"


@pytest.fixture
def extensions(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = root / "site"
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.startswith("metaflow_extensions")]:
        del sys.modules[name]


def test_card_packages_for_metaflow_are_found(extensions: Path) -> None:
    source = "from evflow.cards import CardType\nclass Made(CardType):\n    type = None\n    def render(self, task):\n        return ''\nMade.type = '%s'\nCARDS = [Made, 5]\n"
    for place, name in (("one/plugins/cards", "from-one"), ("two/plugins/cards/inner", "from-two")):
        package = extensions / "metaflow_extensions" / place
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(source % name)
    broken = extensions / "metaflow_extensions" / "bad" / "plugins" / "cards"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("import nothing_of_this_name\n")
    assert [own_type(name) is not None for name in ("from-one", "from-two", "from-three")] == [True, True, False]


def test_metaflow_s_names_are_ours() -> None:
    import evflow.cards

    assert evflow.cards.MetaflowCard is CardType
    assert evflow.cards.MetaflowCardComponent is CardComponent
    with pytest.raises(NotImplementedError, match="put @card on the step"):
        DefaultCard().render(TaskFacts("F", "1", "s", "1"))
