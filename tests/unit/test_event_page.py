"""The reference of the events says what the code says."""

from evflow.core import flow_events
from evflow.core.events import TAGS
from tests.event_page import PAGE, page


def test_the_page_is_up_to_date() -> None:
    """`python -m tests.event_page` writes it."""
    assert PAGE.read_text() == page()


def test_every_event_has_a_section() -> None:
    """In the order of the format."""
    headings = [line.removeprefix("### ") for line in PAGE.read_text().splitlines() if line.startswith("### ")]
    assert headings == [*TAGS, *flow_events.TAGS]
