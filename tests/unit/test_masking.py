"""Secrets are replaced in what is shown: whole, over several writes, as Python, JSON and HTML write them."""

import html
import json
from collections.abc import Callable, Iterable
from urllib.parse import quote_plus

import pytest
from hypothesis import given, strategies as st

from evflow import masking
from evflow.cards.default import sections
from evflow.cards.facts import Shown, TaskFacts
from evflow.masking import ANNOUNCEMENT, MASK, MOST_PIECE_BYTES, Masker, announcement, is_hidden, pieces, taken

WORDS = st.text("ab\"'&<x\\ é", min_size=4, max_size=12)


def in_a_card(form: object) -> object:
    """What a card has of a value: a literal, as HTML."""
    return lambda value: html.escape(form(value))  # type: ignore[operator]


def in_quotes(value: str) -> str:
    """In a text that has both quotation marks."""
    return repr(f'he said "it\'s" {value}')


def masker(*values: str) -> Masker:
    found = Masker()
    found.add(piece for value in values for piece in pieces(value))
    return found


@pytest.mark.parametrize(
    "form",
    [str, repr, in_quotes, json.dumps, html.escape, quote_plus, *map(in_a_card, (repr, in_quotes, json.dumps))],
    ids=["str", "repr", "in_quotes", "json", "html", "url", "repr_in_html", "in_quotes_in_html", "json_in_html"],
)
@given(value=WORDS, before=st.text("ab ", max_size=5))
def test_no_form_of_a_value_is_shown(form: object, value: str, before: str) -> None:
    assert callable(form)
    shown = masker(value).masked(f"{before}{form(value)}".encode())
    if len(value.strip()) >= masking.SHORTEST_CHARS:
        assert value.strip().encode() not in shown.replace(MASK, b"\0")
        assert MASK in shown


@given(st.lists(WORDS.map(str.strip).filter(lambda text: len(text) >= 4), min_size=1, max_size=3), st.binary(max_size=30), st.data())
def test_output_that_is_cut_anywhere_shows_what_is_left_in_one_piece(values: list[str], around: bytes, data: st.DataObject) -> None:
    hidden = masker(*values)
    output = around.join(value.encode() for value in [*values, *values])
    place = data.draw(st.integers(0, len(output)))
    shown, rest = hidden.cut(output[:place])
    shown += hidden.masked(rest + output[place:])
    for value in values:
        assert value.encode() not in shown.replace(MASK, b"\0")
    assert shown.replace(MASK, b"") == hidden.masked(output).replace(MASK, b"")


def test_values_that_overlap_are_replaced_together() -> None:
    assert masker("abcdef", "defghi").masked(b"-abcdefghi-") == b"-***-"


def test_a_value_of_several_lines_is_replaced_line_by_line() -> None:
    value = "-----BEGIN-----\nMIIabc\nx\n"
    hidden = masker(value)
    assert [hidden.masked(line) for line in value.encode().split(b"\n")] == [b"***", b"***", b"x", b""]
    assert hidden.masked(repr(value).encode()) == b"'***'"


@pytest.mark.parametrize(
    ("value", "hidden"), [("", False), ("80", False), ("abc", False), ("abcd", True), ("a\nb\n", False), ("a\nbcde", True)]
)
def test_a_short_value_is_left(value: str, hidden: bool) -> None:
    assert is_hidden(value) is hidden
    assert masker(value).masked(b"80 abc") == b"80 abc"


@given(st.lists(st.text(min_size=1, max_size=40), max_size=4), st.sampled_from(["", "before", "a\n"]))
def test_an_announcement_is_taken_out_of_the_output(values: list[str], before: str) -> None:
    told = [piece for value in values for piece in pieces(value)]
    lines = list(announcement(told))
    heard = Masker()
    assert taken(before.encode() + b"".join(lines) + b"after\n", heard) == f"{before}after\n".encode()
    assert set(heard.pieces) == set(told)


def test_an_announcement_fits_into_what_a_pipe_takes_whole() -> None:
    lines = list(announcement(pieces("k" * 10_001)))
    assert len(lines) == -(-10_001 // MOST_PIECE_BYTES)
    assert max(map(len, lines)) <= 4096
    assert masker("k" * 10_001).masked(b"<" + b"k" * 10_001 + b">").strip(b"<>") == MASK


def test_half_an_announcement_waits() -> None:
    half = ANNOUNCEMENT + b"YWJj"
    heard = Masker()
    assert taken(half, heard) == half
    assert not heard


def test_whoever_announces_is_told_what_is_known_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_here", Masker())
    monkeypatch.setattr(masking, "_announce", None)
    told: list[bytes] = []

    def announce(found: Iterable[bytes]) -> None:
        told.extend(found)

    masking.hide(["hunter2"])
    masking.announce_by(announce)
    masking.hide(["other-one"])
    assert told == [b"hunter2", b"other-one"]
    assert masking.masked("hunter2 and other-one") == "*** and ***"
    assert masking.masked("a lone surrogate \udcff, hunter2") == "a lone surrogate \udcff, ***"


MAKERS: dict[str, Callable[[str], object]] = {
    "str": str,
    "list": lambda text: [text],
    "dict": lambda text: {"key": text},
    "bytes": lambda text: text.encode(),
}


@pytest.mark.parametrize("made", MAKERS.values(), ids=MAKERS)
def test_a_card_does_not_cut_a_value_in_two(made: Callable[[str], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where a long text is cut, nor in the first words of one that is folded away; half of a secret would not be found."""
    monkeypatch.setattr(masking, "_here", masker("correct-horse-battery-staple"))
    for before in range(0, 2_100, 7):
        value = made("x" * before + "correct-horse-battery-staple" + "y" * (4_000 - before))
        shown = masking.masked(sections(TaskFacts("F", "1", "start", "1", artifacts=[Shown("it", "str", 1, value, is_loaded=True)])))
        assert "correct" not in shown
        assert "staple" not in shown
