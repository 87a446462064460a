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
    from evflow.cards.types import BlankCard as BlankCard, CardType as CardType, DefaultCard as DefaultCard, ErrorCard as ErrorCard
    from evflow.cards.valuebox import ValueBox as ValueBox
    from evflow.cards.vega import VegaChart as VegaChart
    from evflow.cards.viewer import JSONViewer as JSONViewer, YAMLViewer as YAMLViewer

    # Metaflow's names.
    MetaflowCard = CardType
    MetaflowCardComponent = CardComponent
    get_cards: Callable[..., Any]

__all__ = [
    "Artifact",
    "BlankCard",
    "CardComponent",
    "CardType",
    "DefaultCard",
    "Error",
    "ErrorCard",
    "EventsTimeline",
    "Image",
    "JSONViewer",
    "Markdown",
    "MetaflowCard",
    "MetaflowCardComponent",
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
    "BlankCard": "evflow.cards.types",
    "CardComponent": "evflow.cards.component",
    "CardType": "evflow.cards.types",
    "DefaultCard": "evflow.cards.types",
    "Error": "evflow.cards.error",
    "ErrorCard": "evflow.cards.types",
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


_METAFLOWS = {"MetaflowCard": "CardType", "MetaflowCardComponent": "CardComponent"}
"""Metaflow's name for something to ours."""


def __getattr__(name: str) -> Any:
    from evflow.imports import public

    return public(globals(), _HOMES, _METAFLOWS.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_METAFLOWS})
