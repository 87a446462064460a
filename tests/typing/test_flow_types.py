"""The file that the type checkers read is a sound flow, too."""

from evflow.flow.checks import check
from tests.typing.flow_types import Typed


def test_the_typed_flow_is_sound() -> None:
    assert check(Typed) == []
