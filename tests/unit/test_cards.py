"""Cards: what components look like as HTML, what of a user's HTML is left, and what `current.card` does with what it is given."""

import json
import re
import xml.etree.ElementTree as ET
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from evflow.cards import Artifact, CardComponent, Error, EventsTimeline, Image, Markdown, PythonCode, Table, VegaChart
from evflow.cards.amounts import duration, size
from evflow.cards.collector import CardPlan, Cards
from evflow.cards.dag import draw
from evflow.cards.facts import Shown, TaskFacts
from evflow.cards.markdown import as_html, sanitised
from evflow.cards.page import drawn, read_beside
from evflow.cards.render import error_page, render
from evflow.cards.types import NoSuchCardType
from evflow.core.cards import RecordedCard, recorded
from evflow.core.graph import Graph, Node
from evflow.core.values import replaced
from tests.effort import scaled

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000140000000a08060000008d891d0d")
ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    '<a href="javascript:alert(1)">x</a>',
    "[x](javascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    '<form action="https://evil.example"><input name=a></form>',
    '<style>@import "https://evil.example"</style>',
    '<div style="background:url(https://evil.example)">x</div>',
    "![x](https://evil.example/pixel.png)",
    '<img src="https://evil.example/pixel.png">',
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    '<meta http-equiv="refresh" content="0;url=https://evil.example">',
    "<base href=https://evil.example>",
    "</div></main><script>alert(1)</script>",
)
TASK = TaskFacts("TrainFlow", "3", "train", "7", times=[("Started", 1_000_000), ("Ended", 4_200_000)])


class Seen(HTMLParser):
    """The elements of a page and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def named(self, tag: str) -> int:
        """How many elements have this name."""
        return sum(1 for name, _ in self.elements if name == tag)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def is_harmless(html: str) -> bool:
    """Whether nothing in a fragment acts, or asks a server for anything."""
    for tag, attributes in Seen(html).elements:
        if tag in ("script", "style", "iframe", "form", "object", "embed", "meta", "base", "link", "svg", "math", "input"):
            return False
        for name, value in attributes.items():
            if name.startswith("on") or (
                name == "style" and set(value or "") & set("():\\") and not re.fullmatch(r"text-align: ?\w+;?", value or "")
            ):
                return False
            if name in ("href", "src") and re.match(r"\s*(javascript|vbscript|data:(?!image/))", value or "", re.IGNORECASE):
                return False
            if name == "src" and not (value or "").startswith("data:image/"):
                return False
    return True


# --- what users write is harmless --------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
def test_markdown_and_html_of_users_do_nothing(attack: str) -> None:
    assert is_harmless(as_html(attack))
    assert is_harmless(as_html(f"text before {attack} text behind"))
    assert is_harmless(sanitised(attack))


@settings(max_examples=scaled(1_000), deadline=None)
@given(st.text(alphabet="<>/\"'=&;:()[]!ascriptonimgdhef \n#`-", max_size=80))
def test_no_text_becomes_something_that_acts(text: str) -> None:
    assert is_harmless(as_html(text))
    assert is_harmless(Table([[text]], headers=[text]).render())
    assert is_harmless(Artifact({text: text}, text).render())
    assert is_harmless(Error(ValueError(text), text).render())
    assert is_harmless(Image(b"GIF89a", text).render())


def test_a_page_allows_no_script_and_no_address() -> None:
    page = render(CardPlan("blank"), TASK)
    [policy] = [
        attributes["content"] or "" for _, attributes in Seen(page).elements if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["script-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert not [tag for tag, _ in Seen(page).elements if tag in ("script", "link", "iframe")]


def test_markdown_keeps_what_only_looks() -> None:
    html = as_html("# Title\n\n**bold** and `code`\n\n| a | b |\n|--|--:|\n| 1 | 2 |\n\n~~gone~~ ![dot](data:image/gif;base64,R0lGOD)")
    for part in ("<h1>Title</h1>", "<strong>bold</strong>", "<code>code</code>", "text-align", "<s>gone</s>", 'src="data:image/gif'):
        assert part in html, part


def test_indented_markdown_is_no_code() -> None:
    text = """
        # Title

        A paragraph.
    """
    assert "<h1>Title</h1>" in Markdown(text).render()
    assert "<pre>" not in Markdown("First line\n            second line").render()


# --- components --------------------------------------------------------------------------------------------


def test_a_table_has_numbers_on_the_right_and_shows_components() -> None:
    html = Table([["a", 1.23456789, None], [Markdown("**b**"), 2, 3]], headers=["name", "x", "y"]).render()
    assert '<th scope="col">name</th><th scope="col" class="number">x</th>' in html
    assert '<span title="1.23456789">1.23457</span>' in html
    assert "<strong>b</strong>" in html
    assert 'aria-label="nothing"' in html


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_the_table_of_a_data_frame_says_what_it_leaves_out(library: str) -> None:
    frame = pytest.importorskip(library).DataFrame({"carrier": [f"c{n}" for n in range(30)], "Index": range(30)})
    short, whole = Table.from_dataframe(frame).render(), Table.from_dataframe(frame, truncate=False).render()
    assert "The first 10 of 30 rows" in short
    assert "c9" in short
    assert "c10" not in short
    assert "c29" in whole
    assert "The first" not in whole


def test_a_frame_with_two_columns_of_one_name_is_shown() -> None:
    pandas = pytest.importorskip("pandas")
    html = Table.from_dataframe(pandas.DataFrame([[1, 2]], columns=["a", "a"])).render()
    assert html.count(">a</th>") == 2


def test_what_cannot_be_shown_says_so_in_its_place() -> None:
    class Worse:
        def __repr__(self) -> str:
            raise OSError("no text")

        __str__ = __repr__

    wrong: list[CardComponent] = [
        Table(5),  # type: ignore[arg-type]
        Table.from_dataframe("no frame"),
        Image(b"no picture"),
        Image("https://example.org/picture.png"),
        Image.from_matplotlib(5),
        Image.from_pil_image(5),
        Markdown(5),
        PythonCode(code_func=print),
    ]
    for component in wrong:
        assert 'class="problem"' in component.render(), component
    assert "OSError" in Artifact(Worse(), "w").render()
    assert "OSError" in Table([[Worse()]]).render()
    for compressed in (True, False):
        assert "ValueError" in Artifact(10**10_000, compressed=compressed).render()
    assert 'class="problem"' in Table([[1]], headers=5).render()  # type: ignore[arg-type]
    assert "OSError" in VegaChart({"description": Worse()}).render()
    events = EventsTimeline(max_events="many")  # type: ignore[arg-type]
    events.update("no names", [], payloads=5)  # type: ignore[arg-type]
    assert "no names" in events.render()


def test_a_component_shows_what_it_was_given_not_what_became_of_it() -> None:
    rows, values = [["before"]], ["before"]
    table, artifact = Table(rows), Artifact(values)
    rows[0][0] = "after"
    values[0] = "after"
    assert "before" in table.render()
    assert "before" in artifact.render()


def test_a_picture_has_its_size_and_its_words() -> None:
    html = Image(PNG, "A <dot>").render()
    assert 'width="20" height="10"' in html
    assert 'alt="A &lt;dot&gt;"' in html
    assert html.count("A &lt;dot&gt;") == 2


def test_a_large_value_is_cut() -> None:
    assert len(Artifact(["x" * 100] * 100_000).render()) < 10_000


def test_a_component_that_raises_leaves_the_others() -> None:
    class Broken(CardComponent):
        def render(self) -> str:
            raise RuntimeError("broken <b>")

    html = drawn([Markdown("before"), Broken(), Markdown("behind")])
    assert "before" in html
    assert "behind" in html
    assert "broken &lt;b&gt;" in html


@pytest.mark.parametrize("given", [None, b"<p>x</p>", 5])
def test_a_component_that_renders_no_text_leaves_the_others(given: object) -> None:
    class Odd(CardComponent):
        def render(self) -> Any:
            return given

    html = drawn([Markdown("before"), Odd(), Table([["in a table", Odd(), CardComponent()]])])
    assert "before" in html
    assert html.count("Odd cannot be shown") == 2
    assert "not a text of HTML" in html
    assert "in a table" in html
    assert "CardComponent has no `render`" in html


def test_a_page_has_one_title_and_a_step_may_give_it() -> None:
    plan = CardPlan()
    assert Seen(render(plan, TASK)).named("h1") == 1
    plan.add(Markdown("# Its own"))
    html = render(plan, TASK)
    assert Seen(html).named("h1") == 1
    assert "<h1>Its own</h1>" in html
    assert '<p class="title">TrainFlow: train</p>' in html


# --- current.card ------------------------------------------------------------------------------------------


def plans(*cards: tuple[str, str | None, bool]) -> Cards:
    return Cards([CardPlan(kind, name, customize=customize) for kind, name, customize in cards])


def shown(cards: Cards) -> list[list[str]]:
    return [[component.render() for component in plan.components] for plan in cards.plans]


@pytest.mark.parametrize(
    ("cards", "meant"),
    [
        ([("default", None, False)], 0),
        ([("default", "a", False)], 0),
        ([("default", "a", False), ("blank", None, False)], 1),
        ([("default", "a", False), ("blank", "b", True)], 1),
        ([("default", None, False), ("blank", "b", True)], 1),
        ([("error", None, False), ("blank", "b", False)], 1),
        ([("default", "a", False), ("blank", "b", False)], None),
        ([("default", None, False), ("blank", None, False)], None),
        ([("error", None, False)], None),
    ],
)
def test_current_card_means_the_one_card_that_can_be_meant(
    cards: list[tuple[str, str | None, bool]], meant: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    made = plans(*cards)
    made.append(Markdown("x"))
    made.append(Markdown("y"))
    assert [len(plan.components) for plan in made.plans] == [2 if at == meant else 0 for at in range(len(cards))]
    assert capsys.readouterr().err.count("[@card]") == (0 if meant is not None else 1)


def test_cards_are_edited_by_their_ids() -> None:
    cards = plans(("default", "a", False), ("blank", "b", False))
    cards["a"].append(Markdown("one"))
    cards["a"].extend([Markdown("two"), Markdown("three")])
    cards["b"] = [Markdown("four")]
    cards["b"] = [Markdown("five")]
    assert [[re.sub("<[^>]+>", "", html).strip() for html in card] for card in shown(cards)] == [["one", "two", "three"], ["five"]]
    cards["a"].clear()
    assert shown(cards)[0] == []
    assert "a" in cards
    assert "c" not in cards
    assert [len(components) for components in cards.get(type="blank")] == [1]


def test_a_component_with_an_id_is_found_and_changed() -> None:
    cards = plans(("default", None, False))
    cards.append(Markdown("before"), id="text")
    cards.append(Table([["a"]]), id="table")
    cards.components["text"].update("after")
    cards.components["table"].update([["b"]])
    assert "after" in shown(cards)[0][0]
    assert "<td>b</td>" in shown(cards)[0][1]
    cards.append(Markdown("in its place"), id="text")
    assert [*cards.components] == ["text", "table"]
    assert "in its place" in shown(cards)[0][0]


def test_an_id_that_is_a_number_takes_no_other_components_place() -> None:
    cards = plans(("default", None, False))
    for text in ("first", "second"):
        cards.append(Markdown(text))
    cards.append(Markdown("third"), id=1)  # type: ignore[arg-type]
    cards.append(Markdown("fourth"), id=[1])  # type: ignore[arg-type]
    assert len(shown(cards)[0]) == 4
    assert [*cards.components] == ["1", "[1]"]
    assert 1 in cards.components


def test_two_cards_of_one_id_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    cards = plans(("default", "same", False), ("blank", "same", False))
    for text in ("first", "second"):
        cards["same"].append(Markdown(text))
    assert list(map(len, shown(cards))) == [2, 0]
    assert capsys.readouterr().err.count("2 cards with the id 'same'") == 1


def test_the_cards_of_a_step_can_be_gone_through() -> None:
    assert [*plans(("default", None, False), ("blank", "mine", False))] == ["mine"]


def test_what_makes_no_sense_is_said_and_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    cards = plans(("default", None, False))
    cards.append(5)
    cards.extend(7)  # type: ignore[arg-type]
    cards["nobody"].append(Markdown("x"))
    cards.components["nothing"].update(3)
    cards.refresh()
    assert shown(cards) == [[]]
    said = capsys.readouterr().err
    for part in ("int is no component", "'nobody'", "'nothing'"):
        assert part in said


def test_a_component_of_another_class_is_sanitised() -> None:
    class Theirs:
        def render(self) -> str:
            return "<b>fine</b><script>alert(1)</script>"

    cards = plans(("default", None, False))
    cards.append(Theirs())
    assert shown(cards) == [["<b>fine</b>"]]


# --- pages -------------------------------------------------------------------------------------------------


def test_the_default_card_has_everything_as_text() -> None:
    graph = Graph({"start": Node("start", "linear", ("train",)), "train": Node("train", "linear", ("end",)), "end": Node("end", "end")})
    task = TaskFacts(
        "TrainFlow", "3", "train", "7", attempt=1, user="ada", graph=graph, code="def train(self):\n    pass\n", file="flow.py", line=12,
        parameters=[Shown("alpha", "float", 9, 0.1, is_loaded=True)],
        artifacts=[Shown("big", "list", 5_000_000), Shown("score", "float", 9, 0.75, is_loaded=True)], more_artifacts=3,
        times=[("Created", 1_000_000), ("Queued", 1_000_000), ("Granted", 2_000_000), ("Started", 2_000_500), ("Ended", 62_000_500)],
    )  # fmt: skip
    plan = CardPlan("default", "mine")
    plan.add(Markdown("# Mine"))
    html = render(plan, task)
    text = " ".join(re.sub(r"<(style|title)>.*?</\1>|<[^>]+>", " ", html, flags=re.DOTALL).split())
    for part in (
        "Mine",
        "TrainFlow / run 3",
        "alpha float 0.1",
        "score float 9 B 0.75",
        "5.0 MB not loaded",
        "And 3 more",
        "1 min 0 s",
        "ada",
    ):
        assert part.replace(" / ", " ") in text, (part, text)
    places = [html.index(f"<h2>{title}</h2>") for title in ("Parameters", "Artifacts", "Place in the flow", "Times", "Code", "About")]
    assert html.index(">Mine<") < places[0]
    assert places == sorted(places)


def test_cards_of_metaflows_other_types_say_what_the_task_is() -> None:
    assert "<p>TrainFlow/3/train/7</p>" in render(CardPlan("taskspec_card"), TASK)
    task = replaced(TASK, artifacts=[Shown("score", "float", 8, float("nan"), is_loaded=True), Shown("model", "Net", 10**9)])
    text = unescape(render(CardPlan("default_json"), task).partition("<main>")[2])
    said = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert said["pathspec"] == "TrainFlow/3/train/7"
    assert [(one["name"], one["value"]) for one in said["artifacts"]] == [("score", "nan"), ("model", None)]


def test_a_type_that_is_not_known_names_those_that_are() -> None:
    with pytest.raises(NoSuchCardType, match=r"(?s)'defalt'.*The types are: default, blank, error.*'default'"):
        render(CardPlan("defalt"), TASK)


def test_the_page_of_a_failure_says_what_failed() -> None:
    html = error_page(CardPlan("default"), TASK, ValueError("<what>"))
    assert "ValueError: &lt;what&gt;" in html
    assert "The task itself is not touched" in html


@settings(max_examples=scaled(300), deadline=None)
@given(st.data())
def test_any_graph_can_be_drawn(data: st.DataObject) -> None:
    names = ["start", *(f"s{n}<&" for n in range(data.draw(st.integers(0, 12)))), "end"]
    nodes: dict[str, Node] = {}
    for name in names:
        out = tuple(data.draw(st.lists(st.sampled_from(names), max_size=4, unique=True)))
        nodes[name] = Node(name, data.draw(st.sampled_from(["linear", "split", "foreach", "switch", "join", "end"])), out, doc="<doc>")
    picture = draw(Graph(nodes), "end")
    root = ET.fromstring(picture)
    steps = root.findall(".//g[@class='step']") + root.findall(".//g[@class='step here']")
    assert len(steps) == len(names)
    assert len(root.findall(".//g[@class='arrows']/path")) == sum(len(node.out) for node in nodes.values())
    boxes = [(float(rect.get("x", "")), float(rect.get("y", ""))) for rect in root.iter("rect")]
    assert len({*boxes}) == len(names)


def test_amounts_are_read_by_people() -> None:
    assert [size(count) for count in (0, 999, 3_400, 1_234_567, 250_000_000_000)] == ["0 B", "999 B", "3.4 kB", "1.2 MB", "250 GB"]
    spans = (40, 12_000, 4_200_000, 200_000_000, 7_500_000_000, 180_000_000_000)
    assert [duration(span) for span in spans] == ["40 µs", "12 ms", "4.2 s", "3 min 20 s", "2 h 5 min", "2 d 2 h"]


# --- in the log --------------------------------------------------------------------------------------------


def test_cards_of_a_later_version_are_read_as_far_as_they_are_known() -> None:
    page = b"p" * 32
    plain: list[tuple[Any, ...]] = [
        ("default", "a", page, 5, True, b"r" * 32, "new"),
        ("blank", "", page),
        (1, 2),
        ("default", "b", "text", 1, False),
        (),
    ]
    assert [*recorded(plain)] == [RecordedCard("default", "a", page, 5, True, b"r" * 32), RecordedCard("blank", "", page)]


def _luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    digits = colour if len(colour) == 6 else "".join(digit * 2 for digit in colour)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("looks", ["light", "dark", "print"])
def test_text_stands_out_from_its_ground(looks: str) -> None:
    """WCAG 2.2, level AA: a contrast of 4.5 to 1."""
    roots = re.findall(r":root \{(.*?)\}", read_beside("page.css"), re.DOTALL)
    assert len(roots) == 3
    colours: dict[str, str] = {}
    for root in roots[: 1 + ["light", "dark", "print"].index(looks)]:
        colours |= re.findall(r"--([\w-]+): #([0-9a-f]+)", root)
    plain = ("text", "soft", "link", "accent", "good", "bad", "warn", "keyword", "string", "number", "comment", "name")
    pairs = [(text, ground) for text in plain for ground in ("ground", "raised")]
    pairs += [(text, f"{ground}-ground") for ground in ("good", "bad", "warn", "accent") for text in ("text", ground)]
    for text, ground in pairs:
        low, high = sorted((_luminance(colours[text]), _luminance(colours[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
