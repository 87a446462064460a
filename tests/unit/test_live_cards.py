"""Cards of tasks that go on: their files, and the server that shows them."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from socket import create_connection, socket

import pytest
from hypothesis import given, settings, strategies as st

from evflow.cli.card_pages import Pages, server
from evflow.store.live_cards import live_cards, write_live
from tests.effort import scaled


@settings(max_examples=scaled(50), deadline=None)
@given(st.text(min_size=1, max_size=30), st.from_regex(r"[A-Za-z0-9_-]{0,20}", fullmatch=True))
def test_a_name_of_a_file_gives_back_what_it_was_made_of(kind: str, name: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_live(folder, 3, 1, 2, kind, name, b"<p>one</p>")
        write_live(folder, 3, 1, 2, kind, name, b"<p>two</p>")
        [live] = live_cards(folder)
        assert (live.task, live.attempt, live.place, live.type) == (3, 1, 2, kind)
        assert live.id == name
        write_live(folder, 3, 1, 2, kind, name, b"{}", "json")
        assert [*live_cards(folder)] == [live]
        assert Path(live.path).read_bytes() == b"<p>two</p>"
        assert Path(live.path).with_suffix(".json").read_bytes() == b"{}"


def test_other_files_of_the_folder_are_no_cards(tmp_path: Path) -> None:
    for name in ("3.0.log", "x.html", "3.0.a.default.~.html", ".3.0.0.default.~.html.part"):
        (tmp_path / name).write_text("x")
    assert [*live_cards(str(tmp_path))] == []
    assert [*live_cards(None)] == [*live_cards(str(tmp_path / "missing"))] == []


@pytest.fixture
def port() -> Iterator[int]:
    cards = {"1:0": "<p>the card</p>"}
    pages = Pages(lambda: "My<Flow>", lambda: [("1:0", "MyFlow/1/start/1", "default live")], cards.get, 7, {"1:0": '{"data": 3}'}.get)
    with server(pages, 0) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield int(listening.server_address[1])
        listening.shutdown()
        thread.join()


def get(port: int, path: str, host: str = "localhost") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={"Host": f"{host}:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers.get("Content-Security-Policy") or ""
    finally:
        connection.close()


def test_the_server_lists_cards_and_shows_each_in_an_origin_of_its_own(port: int) -> None:
    status, listed, _ = get(port, "/")
    assert status == 200
    assert 'href="/card/1%3A0"' in listed
    assert "My&lt;Flow&gt;" in listed
    assert '<meta http-equiv="refresh" content="7">' in listed
    assert get(port, "/card/1%3A0") == (200, "<p>the card</p>", "sandbox allow-scripts allow-downloads")
    assert get(port, "/data/1%3A0") == (200, '{"data": 3}', "")
    assert get(port, "/data/2%3A0")[0] == get(port, "/card/2%3A0")[0] == get(port, "/../etc/passwd")[0] == 404


def test_the_server_answers_no_name_that_was_turned_to_this_machine(port: int) -> None:
    assert [get(port, "/", host)[0] for host in ("localhost", "127.0.0.1", "evil.example", "localhost.evil.example")] == [
        200,
        200,
        403,
        403,
    ]


def test_who_asks_for_the_head_alone_gets_it_alone(port: int) -> None:
    for path, status in (("/", b"200"), ("/card/1%3A0", b"200"), ("/card/2%3A0", b"404")):
        with create_connection(("127.0.0.1", port), timeout=60) as request, request.makefile("rb") as answer:
            request.sendall(f"HEAD {path} HTTP/1.0\r\nHost: localhost:{port}\r\n\r\n".encode())
            head, _, content = answer.read().partition(b"\r\n\r\n")
        assert head.split()[1] == status
        assert b"Content-Length: 0" not in head
        assert content == b""


def test_a_browser_that_does_not_wait_for_its_answer_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with server(Pages(str, list, {"": ""}.get, 7), 0) as listening, socket() as request:
        for error in (BrokenPipeError(), ConnectionResetError(), ValueError()):
            try:
                raise error
            except (OSError, ValueError):
                listening.handle_error(request, ("127.0.0.1", 1))
    said = capsys.readouterr().err
    assert said.count("Traceback") == 1
    assert "ValueError" in said
