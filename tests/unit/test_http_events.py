"""Events over HTTP: who may publish, what is taken, what is answered."""

from typing import Any, TypeVar, cast

import anyio
import pytest

from evflow.core.published import MAX_PAYLOAD_BYTES, decode, encode
from evflow.log.commands import Operation
from evflow.log.errors import LogUnreachable
from evflow.store import Store
from evflow_scheduler.http.events import SMALL_BODY_BYTES, Access, Answer, Event, publish_in, read, signature

T = TypeVar("T")
TOKEN = Access(token="letmein")
SECRET = Access(secret="hush")
NOW_S = 1_764_000_000.0
BEARER = {"Authorization": "Bearer letmein"}


class Log:
    """Notes what is published, by what the command of it says."""

    def __init__(self) -> None:
        self.events: dict[str, tuple[str, Any]] = {}
        self.away = False

    async def repeated(self, operation: Operation[T], patience_s: float) -> T:
        if self.away:
            raise LogUnreachable("here", "it is down")
        ((*_, said_id, body, _, _),) = operation.commands
        event_id, made = str(said_id), decode(cast("bytes", body))
        is_new = event_id not in self.events
        self.events.setdefault(event_id, (made.name, made.payload))
        return operation.parse([[int(is_new), 5]])


def ask(log: Log, headers: dict[str, str], body: bytes = b'{"n": 1}', access: Access = TOKEN, name: str = "data") -> Answer:
    event = read(name, headers, body, now_s=NOW_S, access=access, store=no_store)
    return event if isinstance(event, Answer) else anyio.run(publish_in, log, event)


def no_store() -> Store:
    raise AssertionError


def signed(body: bytes, *, at_s: float = NOW_S, key: str = "", name: str = "data", secret: str = "hush") -> dict[str, str]:
    timestamp = str(int(at_s))
    headers = {"x-evflow-timestamp": timestamp, "X-Evflow-Signature": signature(secret, timestamp, name, key, body)}
    return {**headers, "Idempotency-Key": key} if key else headers


def test_an_event_is_published_and_its_key_is_its_id() -> None:
    log = Log()
    assert ask(log, {**BEARER, "idempotency-key": "k1"}) == Answer(202, {"id": "k1", "name": "data", "at_us": 5, "is_new": True})
    assert ask(log, {**BEARER, "Idempotency-Key": "k1"}).status == 200
    assert log.events == {"k1": ("data", {"n": 1})}


def test_a_body_may_be_empty() -> None:
    log = Log()
    assert ask(log, BEARER, b" ").status == 202
    assert list(log.events.values()) == [("data", None)]


def test_a_signed_request_is_taken() -> None:
    assert ask(Log(), signed(b"1"), b"1", SECRET).status == 202
    assert ask(Log(), signed(b"1", key="k"), b"1", SECRET).body["id"] == "k"
    both = Access("letmein", "hush")
    assert ask(Log(), signed(b"1"), b"1", both).status == ask(Log(), BEARER, b"1", both).status == 202


@pytest.mark.parametrize(
    ("headers", "access", "status", "error"),
    [
        (BEARER, Access(), 403, "publishing-is-closed"),
        ({}, TOKEN, 401, "not-authenticated"),
        ({"Authorization": "Basic letmein"}, TOKEN, 401, "not-authenticated"),
        ({"Authorization": "Bearer letme"}, TOKEN, 401, "token-wrong"),
        ({"Authorization": "Bearer é\udc80"}, TOKEN, 401, "token-wrong"),
        ({"Authorization": "Bearer "}, SECRET, 401, "not-authenticated"),
        (signed(b"2"), SECRET, 401, "signature-wrong"),
        (signed(b"1", secret="x"), SECRET, 401, "signature-wrong"),
        (signed(b"1", name="other"), SECRET, 401, "signature-wrong"),
        ({**signed(b"1"), "Idempotency-Key": "added"}, SECRET, 401, "signature-wrong"),
        (signed(b"1", at_s=NOW_S - 301), SECRET, 401, "signature-expired"),
        (signed(b"1", at_s=NOW_S + 301), SECRET, 401, "signature-expired"),
        (
            {"x-evflow-timestamp": "soon", "x-evflow-signature": signature("hush", "soon", "data", "", b"1")},
            SECRET,
            401,
            "signature-expired",
        ),
    ],
)
def test_who_may_not_publish_is_refused(headers: dict[str, str], access: Access, status: int, error: str) -> None:
    log = Log()
    answer = ask(log, headers, b"1", access)
    assert (answer.status, answer.body["error"], log.events) == (status, error, {})


@pytest.mark.parametrize(
    ("body", "name", "key", "status"),
    [(b"{", "data", "k", 400), (b"\xff", "data", "k", 400), (b"NaN", "data", "k", 400), (b"1", "a b", "k", 400), (b"1", "evflow.x", "k", 400),
     (b"1", "data", "x" * 200, 400), (b"[" * 100_000, "data", "k", 400)],
)  # fmt: skip
def test_what_is_no_event_is_refused(body: bytes, name: str, key: str, status: int) -> None:
    log = Log()
    assert ask(log, {**BEARER, "Idempotency-Key": key}, body, name=name).status == status
    assert log.events == {}


def test_a_log_that_is_away_is_an_answer_that_asks_to_come_again() -> None:
    log = Log()
    log.away = True
    assert ask(log, BEARER).status == 503


@pytest.mark.parametrize("piece", ["1,", "1e1,", '"",', "{},", "[],", "null,"])
def test_a_small_body_needs_no_store_whatever_is_in_it(piece: str) -> None:
    count = (SMALL_BODY_BYTES - 3) // len(piece)
    event = read("x" * 100, BEARER, f"[{piece * count}1]".encode(), now_s=NOW_S, access=TOKEN, store=no_store)
    assert isinstance(event, Event)
    assert len(encode(event.made)) <= MAX_PAYLOAD_BYTES
