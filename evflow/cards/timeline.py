"""What happened, in its order."""

from collections.abc import Mapping
from typing import Any, Final

from evflow.cards.amounts import moment
from evflow.cards.component import CardComponent, escape
from evflow.clock import now_us

STYLES: Final = {"success": "good", "warning": "warn", "error": "bad", "info": "", "primary": "", "secondary": ""}

MOST_EVENTS: Final = 100


class EventsTimeline(CardComponent):
    """Events, the newest first.

    Args:
        title: A line above them.
        max_events: How many of them are kept, the newest ones.
        relative_time: Accepted as in Metaflow; times are shown as they were.
    """

    def __init__(self, title: str | None = None, max_events: int = MOST_EVENTS, relative_time: bool = True) -> None:
        self._title = title
        most: Any = max_events
        self._most = max(1, most) if isinstance(most, int) else MOST_EVENTS
        self._events: list[tuple[int, dict[str, Any], dict[str, Any], str]] = []
        self._count = 0

    def update(
        self,
        event_data: Mapping[str, Any] | None = None,
        style_theme: str | None = None,
        priority: str | None = None,
        payloads: Mapping[str, Any] | None = None,
        finished: bool | None = None,
    ) -> None:
        """Add an event.

        Args:
            event_data: Names and values of what happened.
            style_theme: `success`, `warning`, `error`, `info`, ...
            priority: Accepted as in Metaflow.
            payloads: Components that belong to it, by name.
            finished: Accepted as in Metaflow.
        """
        if event_data is None:
            return
        self._count += 1
        self._events.append((now_us(), _named(event_data), _named(payloads or {}), STYLES.get(str(style_theme), "")))
        del self._events[: -self._most]

    def render(self) -> str:
        """See `CardComponent`."""
        if not self._events:
            return ""
        from evflow.cards.page import drawn

        title = f"<h3>{escape(self._title)}</h3>" if self._title else ""
        rows: list[str] = []
        for at_us, data, payloads, kind in reversed(self._events):
            facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in data.items())
            more = drawn([component for component in payloads.values() if isinstance(component, CardComponent)])
            rows.append(f'<li class="{kind}">{moment(at_us, seconds=True)}<dl class="facts">{facts}</dl>{more}</li>')
        left = self._count - len(self._events)
        older = f'<p class="about">And {left:,} before these.</p>' if left else ""
        return f'{title}<ol class="timeline">{"".join(rows)}</ol>{older}'


def _named(given: Any) -> dict[str, Any]:
    """Names and values; what has no names stands without one."""
    return {**given} if isinstance(given, Mapping) else {"": given}
