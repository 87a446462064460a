"""moto's server, with what tests need beside it: objects that grow old, and answers that fail.

`GET /tests/asked` answers what was asked since then; "unsigned" stands behind what has a body that its signature does not hold. `POST /tests/age` {bucket, key, seconds} lets an object be written some time ago. `POST /tests/faults` [{…}] says what goes wrong from now on, the
first fault that fits a request being used up by it:

    method      the request's (`GET`); any where it is left out
    path        a part of its path and query
    times       for how many requests; 1 where it is left out
    status      answer with that status, and `code` and `message` as S3 does in XML
    cut         answer with so many bytes of the body, then close the connection
    flip        answer with the byte at that place changed
    lose        do what is asked for, then close the connection without an answer
"""

import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import run_simple

_lock = threading.Lock()
_faults: list[dict[str, Any]] = []
_asked: deque[str] = deque(maxlen=10_000)


class Cut(Exception):
    """The connection ends here."""


class Troubled:
    """moto's application, with faults."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"] + ("?" + environ["QUERY_STRING"] if environ["QUERY_STRING"] else "")
        if path == "/tests/asked":
            with _lock:
                told = json.dumps([*_asked]).encode()
                _asked.clear()
            start_response("200 OK", [("Content-Length", str(len(told)))])
            return [told]
        if path.startswith("/tests/"):
            given = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            _told(path, given)
            start_response("200 OK", [("Content-Length", "0")])
            return []
        fault = _fault(environ["REQUEST_METHOD"], path, unsigned=environ.get("HTTP_X_AMZ_CONTENT_SHA256") == "UNSIGNED-PAYLOAD")
        if "status" in fault:
            text = f"<Error><Code>{fault.get('code', '')}</Code><Message>{fault.get('message', 'so it is')}</Message></Error>".encode()
            if environ.get("CONTENT_LENGTH"):
                environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            start_response(f"{fault['status']} X", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else text]
        answer: Iterable[bytes] = self._moto(environ, start_response)
        if "lose" in fault:
            raise Cut
        if "flip" in fault:
            body = bytearray(b"".join(answer))
            body[fault["flip"]] ^= 1
            return [bytes(body)]
        return _cut(b"".join(answer)[: fault["cut"]]) if "cut" in fault else answer


def _cut(body: bytes) -> Iterable[bytes]:
    yield body
    raise Cut


def _told(path: str, given: Any) -> None:
    with _lock:
        if path == "/tests/faults":
            _faults[:] = given
        elif path == "/tests/age":
            key = s3_backends["123456789012"]["aws"].buckets[given["bucket"]].keys[given["key"]]
            key.last_modified -= timedelta(seconds=given["seconds"])


def _fault(method: str, path: str, *, unsigned: bool) -> dict[str, Any]:
    with _lock:
        _asked.append(f"{method} {path}{' unsigned' if unsigned else ''}")
        for fault in _faults:
            if fault.get("times", 1) > 0 and fault.get("method", method) == method and fault.get("path", "") in path:
                fault["times"] = fault.get("times", 1) - 1
                return fault
    return {}


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), Troubled(), threaded=True)
