"""Cards of flows for Metaflow: made, got by a program and seen by a reader, of types that come from the flow and from packages."""

import re
from pathlib import Path
from typing import Any

from tests.metaflow_world import AT_ONCE, asked, flow, run, through
from tests.real_runs import python


def asked_of_cards(folder: Path, flow_name: str, expression: str, setup: str) -> Any:
    """What an expression over the cards of a flow's first run gives; `t` is its first task."""
    begins = f"from metaflow.cards import get_cards\nt = Run('{flow_name}/1')['start'].task\n"
    return asked(folder, expression, begins + setup, **AT_ONCE)


def test_a_card_is_made_and_got(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, card, current, step
        from metaflow.cards import Artifact, Markdown, MetaflowCardComponent, ProgressBar, Table, VegaChart, get_cards
        from metaflow.plugins.cards.card_modules.components import Image

        class Cards(FlowSpec):
            @card(type="blank", id="a")
            @card(type="test_editable_card", id="plain")
            @card(customize=True)
            @step
            def start(self):
                from metaflow.plugins.cards.card_modules.test_cards import TestStringComponent

                current.card["plain"].append(TestStringComponent("<4711>"))
                current.card.append(Markdown("# Hello"))
                current.card["a"].extend([Table([[1, Artifact({"x": 2})]], headers=["n", "v"]), ProgressBar(max=3)])
                current.card.refresh(force=True)
                (live,) = get_cards(current.pathspec, type="default")
                self.live = ["Hello" in live.get(), live.get_data()]
                self.kind = issubclass(Markdown, MetaflowCardComponent)
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Cards()
        """,
    )
    run("flow.py", "--with", "card", **AT_ONCE)
    setup = """
from metaflow.plugins.cards.exception import CardNotPresentException
c = get_cards(t)
def none():
    try:
        return get_cards(t, id="b")
    except CardNotPresentException as error:
        return str(error).splitlines()[0]
"""
    found = asked_of_cards(
        folder,
        "Cards",
        "[len(c), 'Hello' in get_cards(t, type='default')[0].get(), get_cards(t, id='a')[0].type, t.data.kind, t.data.live, none(),"
        " get_cards(t, id='plain')[0].get(), '&lt;4711&gt;' in get_cards(t, id='plain')[0].html]",
        setup,
    )
    none = "'Cards/1/start/1' has no card with id='b': none of its 3 cards fits."
    assert found == [3, True, "blank", True, [True, None], none, "<4711>", True]
    assert "<html" in through("flow.py", "card", "get", "1/end", **AT_ONCE).stdout


def test_types_of_cards_come_from_the_flow_and_from_packages_for_metaflow(folder: Path) -> None:
    package = folder / "metaflow_extensions" / "acme" / "plugins" / "cards" / "shiny"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from metaflow.plugins.cards.card_modules.card import MetaflowCard\n\n\nclass Shiny(MetaflowCard):\n    type = 'shiny'\n\n"
        "    def render(self, task):\n        return 'shiny ' + task.pathspec\n\n\nCARDS = [Shiny]\n"
    )
    flow(
        folder,
        """
        from metaflow import FlowSpec, card, current, step
        from metaflow.cards import BlankCard, DefaultCard, ErrorCard, Markdown, MetaflowCard, MetaflowCardComponent

        class Letters(MetaflowCardComponent):
            def render(self):
                return "<i>letters</i>"

        class Editable(MetaflowCard):
            type = "editable"
            ALLOW_USER_COMPONENTS = True

            def __init__(self, options={"key": "no key"}, components=[], graph=None, flow=None, **kwargs):
                self._key, self._components = options["key"], components

            def render(self, task):
                return self._key + " $&#!!@* ".join(self._components) + task.data.word

        class Types(FlowSpec):
            @card(type="shiny", id="shiny")
            @card(type="editable", options={"key": "a key"})
            @step
            def start(self):
                self.word = "word"
                current.card.extend([Letters(), Letters()])
                self.below = [issubclass(one, MetaflowCard) and one.type for one in (BlankCard, DefaultCard, ErrorCard)]
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Types()
        """,
    )
    run("flow.py", **AT_ONCE)
    found = asked_of_cards(
        folder,
        "Types",
        "[g(type='shiny'), g(type='editable'), 'a key<i>letters</i> $&amp;#!!@* <i>letters</i>word' in get_cards(t, type='editable')[0].html,"
        " t.data.below]",
        "g = lambda **k: get_cards(t, **k)[0].get()",
    )
    assert found == ["shiny Types/1/start/1", "a key<i>letters</i> $&#!!@* <i>letters</i>word", True, ["blank", "default", "error"]]


def test_a_program_gets_what_a_card_s_class_gave_and_a_reader_the_page_where_it_cannot_run(folder: Path) -> None:
    flow(
        folder,
        """
        from metaflow import FlowSpec, card, current, step
        from metaflow.cards import get_cards

        class Plain(FlowSpec):
            @card(type="taskspec_card")
            @card(type="test_pathspec_card", id="random")
            @card(type="test_mock_card", options={"key": "evil"})
            @card(type="test_error_card", save_errors=False)
            @card(type="test_non_editable_card", id="none")
            @card(type="test_component_refresh_card", id="live")
            @card(type="test_refresh_card", id="told")
            @card(type="test_editable_card_2", id="two", customize=True)
            @step
            def start(self):
                from metaflow.plugins.cards.card_modules import test_cards

                self.evil = "<script>alert(1)</script>"
                current.card.append(test_cards.TestStringComponent(self.evil))
                current.card.append(test_cards.TestStringComponent("b"))
                current.card["live"].append(test_cards.TestJSONComponent({"abc": ["x"]}), id="c")
                current.card["live"].refresh(force=True)
                current.card["told"].refresh({"loss": 3}, force=True)
                live, told = [get_cards(current.pathspec, id=name)[0] for name in ("live", "told")]
                token = "runtime-" + test_cards._component_values_to_hash({"c": {"abc": ["x"]}})
                self.live = [token in live.get(), live.get_data()["data"], '"loss": 3' in told.get(), "<script>\\nvar" in told.get()]
                self.next(self.end)

            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Plain()
        """,
    )
    run("flow.py", **AT_ONCE)
    setup = "c = {k.id or k.type: k for k in get_cards(t)}"
    found = asked_of_cards(
        folder,
        "Plain",
        "[sorted(c), c['taskspec_card'].get() == t.pathspec, c['random'].get(), c['test_mock_card'].get(), c['none'].get(), c['two'].get(),"
        " '\"abc\": [\"x\"]' in c['live'].get(), '\"loss\": 3' in c['told'].get(), t.data.live]",
        setup,
    )
    evil = "<script>alert(1)</script>"
    assert found[0] == ["live", "none", "random", "taskspec_card", "test_mock_card", "told", "two"]
    assert found[1] is True
    assert re.fullmatch(r"Plain/1/start/1 [0-9A-Z]{6}", found[2])
    assert found[3:] == [evil, "", f"{evil}$&#!!@*b", True, True, [True, {"c": {"abc": ["x"]}}, True, True]]
    # What people look at is the page, with its policy and without anybody's scripts.
    pages = asked_of_cards(folder, "Plain", "[one for k in c.values() for one in (k.html, k._repr_html_(), open(k.path).read())]", setup)
    assert len(pages) == 21
    assert all("Content-Security-Policy" in page and evil not in page for page in pages)
    assert not any("<script>" in page for page in pages)
    got = through("flow.py", "card", "get", "1/start", "card.html", "--type", "test_mock_card", **AT_ONCE)
    assert [(folder / "card.html").read_text(), "with any scripts in it" in got.stderr] == [evil, True]
    own = python(
        "-m", "evflow.cli", "card", "get", "Plain/1/start", "--type", "test_mock_card", **AT_ONCE
    )  # evflow's own command: the page
    assert ["Content-Security-Policy" in own.stdout, evil in own.stdout] == [True, False]
