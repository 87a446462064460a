"""What attempts print, and their live cards, on their way into a store that is no folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow.core.ids import RunId
from evflow.store import open_store
from evflow.store.live_cards import live_cards, write_live
from evflow.store.logs import LogWriter, find_folder, make_folder, read_log, read_on, read_text, scrub
from evflow.store.remote_output import Carrier, carrier_of, place_of
from tests.aws import Aws
from tests.contract.store_worlds import S3World, asking
from tests.waiting import wait_until

RUN = RunId.parse("Train/3")
WITHIN_S = 60.0


class Output:
    """A run's output: the folder that its attempts print to, and the place where readers look."""

    def __init__(self, world: S3World) -> None:
        self.world = world
        self.store = world.store
        self.folder = make_folder(self.store.url, RUN)
        found = find_folder(self.store.url, RUN, "/nowhere")
        assert found is not None
        self.place = found
        self.troubles: list[str] = []
        self.carriers: list[Carrier] = []

    def carrier(self) -> Carrier:
        carrier = carrier_of(self.store.url, RUN, self.folder, self.troubles.append)
        assert carrier is not None
        carrier.start()
        self.carriers.append(carrier)
        return carrier

    def end(self) -> None:
        for carrier in self.carriers:
            carrier.finish()
            carrier.wait(WITHIN_S)
            assert not carrier.is_alive()

    def names(self) -> list[str]:
        return [name.removeprefix("logs/Train/3/") for name in self.store.list_named("logs")]


@pytest.fixture
def output(s3_server: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[Output]:
    with asking(s3_server, monkeypatch):
        made = Output(S3World(s3_server))
        yield made
        made.end()


def test_a_store_that_is_a_folder_needs_no_carrier(tmp_path: Path) -> None:
    for store in (str(tmp_path), tmp_path.as_uri()):
        assert carrier_of(store, RUN, make_folder(store, RUN), lambda _: None) is None


def test_a_log_can_be_followed_while_it_grows_and_after_its_end(output: Output) -> None:
    carrier = output.carrier()
    log = LogWriter(output.folder, 1, 0)
    seen: list[str] = []
    offset = 0

    def look() -> int:
        nonlocal offset
        lines, offset = read_on(output.place, 1, 0, offset)
        seen.extend(line.text for line in lines)
        return len(seen)

    assert look() == 0
    log.write("stdout", 10, [b"one", b"two"])
    wait_until(lambda: look() == 2, "two lines are seen", WITHIN_S)
    log.write("stderr", 20, [b"three"])
    wait_until(lambda: look() == 3, "the third is seen", WITHIN_S)
    assert [line.text for line in read_log(output.place, 1, 0, "stderr")] == ["three"]
    assert len([name for name in output.names() if name.startswith("1.0.log.d/")]) == 2
    log.write("stdout", 30, [b"last"], ends=False)
    log.close(40)
    carrier.ended(1, 0)
    wait_until(lambda: output.names() == ["1.0.log"], "the whole log stands for its pieces", WITHIN_S)
    assert look() == 4
    assert seen == ["one", "two", "three", "last"]
    assert read_text(output.place, 1, 0) == "one\ntwo\nthree\nlast"
    assert not [*Path(output.folder).iterdir()]


def test_what_printed_nothing_has_no_log(output: Output) -> None:
    output.carrier().ended(1, 0)
    output.end()
    assert (output.names(), list(read_log(output.place, 1, 0)), read_on(output.place, 1, 0, 0)) == ([], [], ([], 0))
    assert not scrub(output.place, 1, 0, 1)


def test_what_a_dead_owner_left_is_carried_by_the_next(output: Output) -> None:
    log = LogWriter(output.folder, 1, 0)
    log.write("stdout", 10, [b"before"])
    output.store.write_named("logs/Train/3/1.0.log.d/000000000000", [b"10 o before\n"])  # it had sent so much
    log.write("stdout", 20, [b"and after"])
    log.close(30)
    output.carrier()
    output.end()
    assert read_text(output.place, 1, 0) == "before\nand after\n"
    assert output.names() == ["1.0.log"]
    assert not Path(output.folder).exists()


def test_a_store_that_takes_nothing_is_told_once_and_tried_again(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogWriter(output.folder, 1, 0)
    log.write("stdout", 10, [b"text"])
    output.world.aws.fail({"method": "PUT", "status": 403, "code": "AccessDenied", "times": 2})
    carrier = output.carrier()
    wait_until(lambda: bool(output.names()), "it gets through", WITHIN_S)
    assert len(output.troubles) == 1
    assert "AccessDenied" in output.troubles[0]
    log.close(30)
    carrier.ended(1, 0)
    output.end()
    assert read_text(output.place, 1, 0) == "text\n"


def test_a_log_is_scrubbed_in_either_form(output: Output) -> None:
    output.carrier()
    log = LogWriter(output.folder, 1, 0)
    log.write("stdout", 10, [b"secret"])
    log.close(20)
    wait_until(lambda: bool(output.names()), "a piece is there", WITHIN_S)
    assert scrub(output.place, 1, 0, 50)
    assert [line.text for line in read_log(output.place, 1, 0)] == ["[scrubbed]"]
    assert output.names() == ["1.0.log"]


def test_live_cards_are_those_that_were_drawn_last(output: Output) -> None:
    carrier = output.carrier()
    write_live(output.folder, 3, 1, 0, "my type", "a.b/c", b"<p>one</p>")
    write_live(output.folder, 3, 1, 0, "my type", "a.b/c", b'{"new": 1}', "json")
    wait_until(lambda: len(output.names()) == 2, "the card and its news are there", WITHIN_S)
    [card] = live_cards(output.place)
    assert (card.task, card.attempt, card.place, card.type, card.id) == (3, 1, 0, "my type", "a.b/c")
    assert Path(card.path).read_bytes() == b"<p>one</p>"
    assert Path(card.path).with_suffix(".json").read_bytes() == b'{"new": 1}'
    write_live(output.folder, 3, 1, 0, "my type", "a.b/c", b"<p>two</p>")

    def drawn() -> bytes:
        [card] = live_cards(output.place)
        return Path(card.path).read_bytes()

    wait_until(lambda: drawn() == b"<p>two</p>", "the next picture is there", WITHIN_S)
    carrier.ended(3, 1)
    wait_until(lambda: not [*Path(output.folder).iterdir()], "nothing is left on this machine", WITHIN_S)
    assert drawn() == b"<p>two</p>"


def test_a_run_s_output_is_known_by_its_place(output: Output) -> None:
    assert output.place == place_of(output.store.url, RUN) == f"{output.store.url}/named/logs/Train/3"
    assert open_store(output.store.url).where_named("logs/Train/3/1.0.log") == f"{output.place}/1.0.log"
