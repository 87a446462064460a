"""Cards: pages for people that a task makes of itself (`@card`, `current.card`), and what they are made of.

What is here is loaded at its first use: a step that only names a component pays for that one alone. This package knows
nothing of logs, stores and flows; what a page says of its task comes to it as values.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from evflow.cards.artifact import Artifact as Artifact
    from evflow.cards.code import PythonCode as PythonCode
    from evflow.cards.component import CardComponent as CardComponent
    from evflow.cards.error import Error as Error
    from evflow.cards.image import Image as Image
    from evflow.cards.markdown import Markdown as Markdown
    from evflow.cards.progress import ProgressBar as ProgressBar
    from evflow.cards.table import Table as Table
    from evflow.cards.timeline import EventsTimeline as EventsTimeline
    from evflow.cards.valuebox import ValueBox as ValueBox
    from evflow.cards.vega import VegaChart as VegaChart
    from evflow.cards.viewer import JSONViewer as JSONViewer, YAMLViewer as YAMLViewer

    get_cards: Callable[..., Any]

__all__ = [
    "Artifact",
    "CardComponent",
    "Error",
    "EventsTimeline",
    "Image",
    "JSONViewer",
    "Markdown",
    "ProgressBar",
    "PythonCode",
    "Table",
    "ValueBox",
    "VegaChart",
    "YAMLViewer",
    "get_cards",
]

_HOMES = {
    "Artifact": "evflow.cards.artifact",
    "CardComponent": "evflow.cards.component",
    "Error": "evflow.cards.error",
    "EventsTimeline": "evflow.cards.timeline",
    "Image": "evflow.cards.image",
    "JSONViewer": "evflow.cards.viewer",
    "Markdown": "evflow.cards.markdown",
    "ProgressBar": "evflow.cards.progress",
    "PythonCode": "evflow.cards.code",
    "Table": "evflow.cards.table",
    "ValueBox": "evflow.cards.valuebox",
    "VegaChart": "evflow.cards.vega",
    "YAMLViewer": "evflow.cards.viewer",
    # By name: the client stands above in the layers, and only this asks upwards.
    "get_cards": "evflow.client.cards",
}
"""Public name to the module that defines it."""


def __getattr__(name: str) -> Any:
    from evflow.imports import public

    return public(globals(), _HOMES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
