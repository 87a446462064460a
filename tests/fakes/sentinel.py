"""A Sentinel that knows what a test says and hears of nothing.

A real one hears of a fail-over from the others within moments, which no test can hold up. Faked: the answers to the two questions that
clients ask, in Redis's own form; any other command is an error, as of a Sentinel that does not know it.
"""

import socketserver
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import hiredis

_CHUNK_BYTES = 4_096


@contextmanager
def sentinel(primary: int, epoch: int = 0, *, silent: bool = False) -> Generator[int]:
    """One that names the server at a port of loopback.

    Args:
        primary: Whom it takes for the primary.
        epoch: Of the last fail-over that it knows.
        silent: It takes connections and answers nothing.

    Yields:
        Its port.
    """

    class Conversation(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            reader = hiredis.Reader()
            while data := self.request.recv(_CHUNK_BYTES):
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    if not silent:
                        self.request.sendall(_answer(command, primary, epoch))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that is gone is none."""

    with Server(("127.0.0.1", 0), Conversation) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def _answer(command: list[bytes], primary: int, epoch: int) -> bytes:
    words = [word.upper() for word in command[:2]]
    if words == [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME"]:
        return _list("127.0.0.1", str(primary))
    if words == [b"SENTINEL", b"MASTER"]:
        return _list("ip", "127.0.0.1", "port", str(primary), "config-epoch", str(epoch))
    return b"-ERR unknown command\r\n"


def _list(*words: str) -> bytes:
    lines = [f"*{len(words)}", *(line for word in words for line in (f"${len(word)}", word)), ""]
    return "\r\n".join(lines).encode()
