"""Random values through the store and the client: what comes back is what went in, to the type and the bit."""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

from evflow import Task
from tests.client_world import ClientWorld, client_world
from tests.effort import rng, scaled

AT_ONCE = 100
DTYPES = ("bool", "int8", "uint16", "int64", "float16", "float32", "float64", "complex128", "datetime64[us]", "S5", "U3")


@pytest.fixture
def world(evflow_home: Path) -> Iterator[ClientWorld]:
    """Answer an empty log; the global namespace is in force."""
    with client_world(evflow_home) as made:
        yield made


def text(random: Random) -> str:
    return "".join(chr(random.choice((random.randrange(32, 127), random.randrange(0xD7FF), 0x1F600))) for _ in range(random.randrange(12)))


def array(random: Random) -> Any:
    """Of any type, with no dimension or four, empty ones among them, in either order, contiguous or not."""
    shape = tuple(random.randrange(4) for _ in range(random.randrange(5)))
    made = np.frombuffer(random.randbytes(math.prod(shape) * 16), "u1").reshape(*shape, 16)
    made = made[..., : np.dtype("i8").itemsize].copy().view("i8").reshape(shape) % 1_000
    made = made.astype(random.choice(DTYPES))
    made = np.asfortranarray(made) if random.random() < 0.5 and made.ndim else made
    return made[::-1] if made.ndim and random.random() < 0.3 else made


def frame(random: Random) -> Any:
    rows = random.randrange(30)
    columns = {name: [random.choice((random.random(), math.nan, text(random), None)) for _ in range(rows)] for name in "abc"}
    return pd.DataFrame({**columns, "at": pd.Timestamp("2026-11-23", tz="UTC"), "n": range(rows)}).astype({"n": "int32"})


LEAVES: tuple[Callable[[Random], Any], ...] = (
    lambda random: random.choice((None, True, False, ..., NotImplemented)),
    lambda random: random.randrange(-(2**70), 2**70),
    lambda random: random.choice((random.gauss(0, 1e300), -0.0, math.inf, math.nan, 5e-324)),
    lambda random: complex(random.random(), math.nan),
    text,
    lambda random: random.choice((bytes, bytearray))(random.randbytes(random.randrange(3_000))),
    lambda random: Decimal(random.randrange(10**30)).scaleb(-random.randrange(30)),
    lambda random: Fraction(random.randrange(10**9), random.randrange(1, 10**9)),
    lambda random: UUID(bytes=random.randbytes(16)),
    lambda random: datetime.fromtimestamp(random.randrange(2**32), UTC) + timedelta(microseconds=random.randrange(10**6)),
    lambda random: date.fromordinal(random.randrange(1, 3_000_000)),
    lambda random: PurePosixPath(f"/{random.randrange(99)}/x"),
    lambda random: range(random.randrange(9), random.randrange(99), random.randrange(1, 5)),
    array,
    frame,
    lambda random: np.float32(random.random()),
    lambda random: pd.Series([random.random() for _ in range(random.randrange(9))], name=text(random)),
)


def value(random: Random, depth: int = 3) -> Any:
    """A value of any kind, nested as deep as that."""
    kind = random.randrange(9) if depth else 0
    if kind < 5:
        return random.choice(LEAVES)(random)
    members = [value(random, depth - 1) for _ in range(random.randrange(5))]
    if kind == 5:
        return members
    if kind == 6:
        return tuple(members)
    if kind == 7:
        return {random.choice((LEAVES[1], LEAVES[4], LEAVES[8]))(random): member for member in members}
    return random.choice((set, frozenset))(random.choice((LEAVES[1], LEAVES[4]))(random) for _ in range(5))


def same(found: Any, made: Any) -> bool:
    """Whether two values are one: the type, each part, the bits of numbers."""
    if type(found) is not type(made):
        return False
    if isinstance(made, list | tuple):
        return len(found) == len(made) and all(map(same, found, made))
    if isinstance(made, dict):
        return list(found) == list(made) and all(map(same, found.values(), made.values()))
    if isinstance(made, np.ndarray):
        return bool(found.dtype == made.dtype and found.shape == made.shape and found.tobytes() == made.tobytes())
    if isinstance(made, pd.DataFrame):
        pd.testing.assert_frame_equal(found, made)
        return True
    if isinstance(made, pd.Series):
        pd.testing.assert_series_equal(found, made)
        return True
    if isinstance(made, set | frozenset):
        return bool(found == made)
    return repr(found) == repr(made) and (bool(found == made) or "nan" in repr(made))


@pytest.mark.parametrize("block", range(scaled(20)))  # 2,000 values in CI
def test_a_value_comes_back_as_it_went_in(world: ClientWorld, block: int) -> None:
    random = rng("artifacts", block)
    values = {f"x{number}": value(random) for number in range(AT_ONCE)}
    run = world.run().succeed(1, "end", values=values).publish()
    task = Task(f"{run.pathspec}/start/1")
    assert [name for name, made in values.items() if not same(task[name].data, made)] == []
