"""`ArgoEvent`: an event that is published to evflow's own log, for deployed flows with `@trigger`."""

from typing import Any, Self

from evflow.errors import EvflowError, UsageError


class ArgoEventException(UsageError):
    """An event could not be published; for code that catches it."""


class ArgoEvent:
    """An event in Metaflow's words; `evflow.publish_event` is the same in evflow's.

    Args:
        name: The event's name.
        url: Where Argo listens; there is no Argo here, so it is not used.
        payload: What the event says.
    """

    def __init__(self, name: str, url: str | None = None, payload: dict[str, Any] | None = None) -> None:
        self._name = name
        self._url = url
        self._payload = dict(payload or {})

    def add_to_payload(self, key: str, value: Any) -> Self:
        """Add a key to what the event says."""
        self._payload[key] = value
        return self

    def publish(self, payload: dict[str, Any] | None = None, force: bool = True, ignore_errors: bool = True) -> str | None:
        """Publish the event; returns its id.

        Args:
            payload: More keys of what it says.
            force: Publish it outside of deployed runs, too. Without it, nothing is published there.
            ignore_errors: Return None where it cannot be published.

        Raises:
            ArgoEventException: It cannot be published, and errors are not to be ignored.
        """
        from evflow.client.publishing import publish_event
        from evflow.flow.current import current

        if not force and (not current.is_running_flow or current.trigger is None):
            return None
        try:
            return publish_event(self._name, {**self._payload, **(payload or {})}).id
        except EvflowError as error:
            if ignore_errors:
                import sys

                sys.stderr.write(f"The event '{self._name}' was not published: {error}\n")
                return None
            raise ArgoEventException(error.message, error.hint) from error

    def safe_publish(self, payload: dict[str, Any] | None = None, ignore_errors: bool = True) -> str | None:
        """Publish the event from deployed runs only, as `publish(force=False)`."""
        return self.publish(payload, force=False, ignore_errors=ignore_errors)
