"""Values and entities: what they are equal to, how they are built, and what building the first one costs nobody."""

import dataclasses
import gc
from typing import ClassVar

import pytest

from evflow.collector import paused
from evflow.core import values
from evflow.core.values import compile_all, entity, field, value


@value
class Place:
    """A value with every kind of field."""

    kind: ClassVar[str] = "place"
    step: str
    index: int = 0
    seen: list[str] = field(default_factory=list[str])


@entity
class Counter:
    """An entity."""

    count: int = 0


def test_values_are_equal_and_hash_by_their_fields_and_entities_by_themselves() -> None:
    @value
    class Point:
        x: int
        y: int = 0

    assert Point(1) == Point(1, 0) != Point(2)
    assert len({Point(1), Point(1, 0)}) == 1
    one, other = Counter(), Counter()
    assert one != other
    assert len({one, other}) == 2


def test_an_entity_changes() -> None:
    counter = Counter()
    counter.count += 1
    assert repr(counter) == "Counter(count=1)"


def test_a_default_that_is_made_anew_is_shared_by_nobody() -> None:
    Place("a").seen.append("x")
    assert Place("b") == Place("b", 0, [])
    assert Place.kind == "place"


def test_the_first_one_is_built_as_every_other_and_refuses_what_they_refuse() -> None:
    @value
    class Fresh:
        name: str

    for wrong in ((), ("a", "b")):
        with pytest.raises(TypeError, match=r"Fresh\.__init__\(\)"):
            Fresh(*wrong)
    assert Fresh(name="a") == Fresh("a")


def test_nothing_is_left_to_compile_before_forks() -> None:
    @value
    class Late:
        name: str

    assert Late in values._uncompiled
    compile_all()
    assert not values._uncompiled
    assert Late("a").name == "a"


def test_the_tools_of_dataclasses_know_them() -> None:
    assert dataclasses.replace(Place("a"), index=3) == Place("a", 3)
    assert [one.name for one in dataclasses.fields(Place)] == ["step", "index", "seen"]


def test_the_collector_is_paused_and_goes_on_as_it_was() -> None:
    with paused(), paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
