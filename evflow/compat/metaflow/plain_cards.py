"""The plain components and types of cards that Metaflow ships for flows that try cards out (`card_modules.test_cards`).

The types are known by their names in every flow for Metaflow (`evflow.cards.types`). Their texts are exact, since programs compare them.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from evflow.cards.component import CardComponent, escape
from evflow.cards.types import RELOAD_MARK, CardType

_UPDATED_PAGE = f"""<html>
<script>
var METAFLOW_RELOAD_TOKEN = "{RELOAD_MARK}"
window.metaflow_card_update = (data) => {{ document.querySelector("h1").textContent = JSON.stringify(data); }}
</script>
<h1>%s</h1>
<h1>%s</h1>
</html>
"""
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABRDE8UwAAAABJRU5ErkJggg=="


class TestStringComponent(CardComponent):
    """A text."""

    REALTIME_UPDATABLE: ClassVar[bool] = True

    def __init__(self, text: object) -> None:
        self._text = str(text)

    def render(self) -> str:
        """It as HTML."""
        return escape(self._text)

    def plain(self) -> str:
        """It as it is."""
        return self._text


class TestJSONComponent(CardComponent):
    """Data like JSON's."""

    REALTIME_UPDATABLE: ClassVar[bool] = True

    def __init__(self, data: Any) -> None:
        self._data = data

    def render(self) -> str:
        """It as HTML."""
        return escape(json.dumps(self._data, default=str))

    def plain(self) -> Any:
        """It as it is."""
        return self._data


class _Listing(CardType):
    """A card that is its components and nothing else."""

    separator: ClassVar[str] = "$&#!!@*"

    def __init__(self, components: Sequence[Any] = (), **_: Any) -> None:
        self._components = [*components]

    def render(self, task: Any) -> str:
        """Its components, with a mark between them."""
        return self.separator.join(map(str, self._components))


class TestEditableCard(_Listing):
    """One that takes components."""

    type = "test_editable_card"
    ALLOW_USER_COMPONENTS = True


class TestEditableCard2(_Listing):
    """Another one."""

    type = "test_editable_card_2"
    ALLOW_USER_COMPONENTS = True


class TestNonEditableCard(_Listing):
    """One that takes none."""

    type = "test_non_editable_card"


class TestPathSpecCard(CardType):
    """The task's name and something random."""

    type = "test_pathspec_card"

    def render(self, task: Any) -> str:
        """The name, and six characters."""
        return f"{task.pathspec} {secrets.token_hex(3).upper()}"


class TestMockCard(CardType):
    """One artifact of the task: that which `options` name as `key`."""

    type = "test_mock_card"

    def __init__(self, options: Mapping[str, Any] = {"key": "dummy_key"}, **_: Any) -> None:
        self._key = options["key"]

    def render(self, task: Any) -> str:
        """The artifact's text."""
        return str(task[self._key].data)


class TestErrorCard(CardType):
    """One that cannot be rendered."""

    type = "test_error_card"

    def render(self, task: Any) -> str:
        """Fail."""
        raise Exception("Unknown Things Happened")  # noqa: TRY002 - of no class of anybody's, as there


class TestTimeoutCard(CardType):
    """One that takes so many seconds as `options` say as `timeout`."""

    type = "test_timeout_card"

    def __init__(self, options: Mapping[str, Any] = {"timeout": 50}, **_: Any) -> None:
        self._timeout_s = options.get("timeout", 10)

    def render(self, task: Any) -> str:
        """The task's name, late."""
        time.sleep(self._timeout_s)
        return str(task.pathspec)


class TestRefreshCard(CardType):
    """One that shows what `current.card.refresh` is told."""

    type = "test_refresh_card"
    ALLOW_USER_COMPONENTS = True
    RUNTIME_UPDATABLE = True
    RELOAD_POLICY = CardType.RELOAD_POLICY_ALWAYS

    def render(self, task: Any) -> str:
        """A page."""
        return self.render_runtime(task, self.runtime_data or {})

    def render_runtime(self, task: Any, data: Mapping[str, Any]) -> str:
        """A page."""
        return _UPDATED_PAGE % (task.pathspec, json.dumps(data.get("user")))

    def refresh(self, task: Any, data: Mapping[str, Any]) -> Any:
        """What it was told."""
        return data


class TestRefreshComponentCard(CardType):
    """One that shows its components while they change."""

    type = "test_component_refresh_card"
    ALLOW_USER_COMPONENTS = True
    RUNTIME_UPDATABLE = True
    RELOAD_POLICY = CardType.RELOAD_POLICY_ONCHANGE

    def __init__(self, components: Sequence[Any] = (), **_: Any) -> None:
        self._components = [*components]

    def render(self, task: Any) -> str:
        """A page."""
        return _UPDATED_PAGE % (task.pathspec, json.dumps(self._components))

    def render_runtime(self, task: Any, data: Mapping[str, Any]) -> str:
        """A page."""
        return self.render(task)

    def refresh(self, task: Any, data: Mapping[str, Any]) -> Any:
        """The components."""
        return data["components"]

    def reload_content_token(self, task: Any, data: Mapping[str, Any]) -> str:
        """Another one when the components are others."""
        return "final" if task.finished else f"runtime-{_component_values_to_hash(data['components'])}"


def _component_values_to_hash(components: Mapping[str, Any]) -> str:
    texts = ["".join(text) for component in components.values() for text in component]
    return hashlib.sha256(",".join(texts).encode()).hexdigest()


class TestImageCard(CardType):
    """A picture of one point."""

    type = "test_image_card"

    def render(self, task: Any) -> str:
        """It in HTML."""
        return f"<html><img src='data:image/png;base64,{_PIXEL}' /></html>"
