"""An exception, as a card shows it."""

from evflow.cards.component import CardComponent, escape, ours


class Error(CardComponent):
    """An exception with its traceback.

    Args:
        exception: The exception, or a text that takes its place.
        title: What failed; the exception's class if it is not given.
    """

    def __init__(self, exception: BaseException | str, title: str | None = None) -> None:
        self._title = title or (type(exception).__name__ if isinstance(exception, BaseException) else "Error")
        self._text = _said(exception)
        self._trace = _traceback(exception) if isinstance(exception, BaseException) else ""

    def update(self, exception: BaseException | str, title: str | None = None) -> None:
        """Show another exception."""
        self.__init__(exception, title or self._title)  # type: ignore[misc]

    def render(self) -> str:
        """See `CardComponent`."""
        trace = f"<details><summary>Traceback</summary><pre>{escape(self._trace)}</pre></details>" if self._trace else ""
        return (
            f'<div class="error" role="group" aria-label="Error"><h3>{escape(self._title)}</h3><pre>{escape(self._text)}</pre>{trace}</div>'
        )


def _said(exception: BaseException | str) -> str:
    if isinstance(exception, str):
        return exception
    try:
        text = str(exception)
    except Exception as error:  # noqa: BLE001 - a class of the user's
        text = f"(its text cannot be had: {type(error).__name__})"
    return f"{type(exception).__name__}: {text}" if text else type(exception).__name__


def _traceback(exception: BaseException) -> str:
    if exception.__traceback__ is None:
        return ""
    format_exception = ours("traceback").format_exception

    try:
        return "".join(format_exception(exception))
    except Exception as error:  # noqa: BLE001 - as above
        return f"(it cannot be shown: {type(error).__name__})"
