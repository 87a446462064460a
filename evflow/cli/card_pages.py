"""The pages of `card server`: a run's cards, over HTTP on this machine."""

import sys
from collections.abc import Callable
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import quote, unquote

from evflow.cards.page import Heading, page
from evflow.errors import EvflowError

OF_A_CARD = "sandbox allow-scripts allow-downloads"
"""An origin of its own, so that nothing in a card reaches the server or another card."""
_HERE = ("localhost", "127.0.0.1", "[::1]")


class Pages:
    """What there is to show.

    Args:
        title: What the cards are of.
        listed: The cards: key, place, words about it.
        page: The page of a card, by its key; None where there is none.
        poll_interval_s: How often the list is read anew.
        news: What the class of a card has for programs that follow it while its task goes on, as JSON, by its key; None where there is none.
    """

    def __init__(
        self,
        title: Callable[[], str],
        listed: Callable[[], list[tuple[str, str, str]]],
        page: Callable[[str], str | None],
        poll_interval_s: int,
        news: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self.title, self.listed, self.page, self.poll_interval_s, self.news = title, listed, page, poll_interval_s, news

    def overview(self) -> str:
        """The list of cards, the newest first."""
        rows = "".join(
            f'<tr><td><a href="/card/{quote(key, safe="")}">{escape(place)}</a></td><td class="type">{escape(words)}</td></tr>'
            for key, place, words in self.listed()
        )
        body = (
            f"<table><tbody>{rows}</tbody></table>" if rows else "<p>There are no cards yet. This page looks for them again by itself.</p>"
        )
        return page(Heading("Cards", [self.title()], again_s=self.poll_interval_s), body)


def server(pages: Pages, port: int) -> ThreadingHTTPServer:
    """A server on this machine alone; port 0 for any.

    Raises:
        OSError: The port is taken.
    """

    class Handler(_Handler):
        """A request for these pages."""

        shown = pages

    made = _Server(("127.0.0.1", port), Handler)
    made.daemon_threads = True
    return made


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """As the base class, but for a browser that did not wait for the answer: that is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    shown: ClassVar[Pages]

    def do_GET(self) -> None:
        """Answer."""
        if (self.headers.get("Host") or "").rsplit(":", 1)[0] not in _HERE:  # a site whose name was turned to this machine
            self._answer(HTTPStatus.FORBIDDEN, "<p>Ask for localhost.</p>")
            return
        try:
            if self.path == "/":
                self._answer(HTTPStatus.OK, self.shown.overview())
                return
            news = self.shown.news(unquote(self.path.removeprefix("/data/"))) if self.path.startswith("/data/") else None
            if news is not None:
                self._answer(HTTPStatus.OK, news, kind="application/json")
                return
            found = self.shown.page(unquote(self.path.removeprefix("/card/"))) if self.path.startswith("/card/") else None
        except EvflowError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"<p>{escape(error.message)}</p>")
            return
        if found is None:
            self._answer(HTTPStatus.NOT_FOUND, '<p>There is no such card. <a href="/">All cards</a></p>')
        else:
            self._answer(HTTPStatus.OK, found, sandboxed=True)

    def do_HEAD(self) -> None:
        """The same without the content."""
        self.do_GET()

    def _answer(self, status: HTTPStatus, text: str, *, sandboxed: bool = False, kind: str = "text/html") -> None:
        data = text.encode("utf-8", "backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if sandboxed:
            self.send_header("Content-Security-Policy", OF_A_CARD)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name in the standard library
        """Say nothing of each request."""
