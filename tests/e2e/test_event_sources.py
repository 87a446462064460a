"""Events that nobody publishes: entries of a stream that others write, and files that arrive in a folder."""

import json
import signal
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from evflow.log.keys import EVENT_KEYS
from evflow.log.wire import Wire
from tests.e2e.test_scheduler import WITHIN_S, ended, scheduler
from tests.real_runs import evflow, open_log, python
from tests.waiting import wait_until

FLOW = """
from evflow import FlowSpec, Parameter, current, step, trigger

@trigger(event={event})
class {name}(FlowSpec):
    what = Parameter("what", default="nothing")

    @step
    def start(self):
        print("what", self.what)
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    {name}()
"""


@pytest.fixture
def incoming(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = root / "incoming"
    folder.mkdir()
    (folder / "old.csv").write_text("was there before")
    monkeypatch.setenv("EVFLOW_EVENT_STREAMS", "orders=ordered")
    monkeypatch.setenv("EVFLOW_EVENT_FOLDERS", f"{folder}=arrived")
    for name, event, field in (("Orders", "ordered", "sku"), ("Files", "arrived", "name")):
        file = root / f"{name.lower()}.py"
        parameters = {"name": event, "parameters": {"what": field}}
        file.write_text(FLOW.format(name=name, event=parameters))
        assert python(file, "deploy", cwd=root).returncode == 0
    return folder


@contextmanager
def server(home: Path) -> Generator[Wire]:
    with open_log(home) as log, closing(Wire.connect(log.url)) as wire:
        yield wire


def add(home: Path, sku: str) -> None:
    with server(home) as wire:
        wire.call("XADD", "orders", "*", "sku", sku, "count", "3")


def arrive(folder: Path, name: str) -> None:
    """A file that is there whole at once: one that grows in half a second's time comes twice."""
    (folder / f"{name}.tmp").write_text("1")
    (folder / f"{name}.tmp").rename(folder / name)


def said(run: str) -> str:
    assert ended(run) == "succeeded"
    return evflow("logs", f"{run}/start").stdout


def runs_of(flow: str) -> list[str]:
    return sorted(line["run"] for line in json.loads(evflow("runs", flow, "--json").stdout or "[]"))


def until_there_are(flow: str, number: int) -> list[str]:
    return wait_until(lambda: runs if len(runs := runs_of(flow)) >= number else [], f"{flow} has {number} runs", WITHIN_S)


def read_from(home: Path, place: str) -> bool:
    with server(home) as wire:
        return any(place in field.decode() for field in wire.call("HKEYS", EVENT_KEYS.sources))


def seen() -> list[dict[str, Any]]:
    """How reading goes, as the schedulers say that are seen to live."""
    return [one for found in json.loads(evflow("scheduler", "status", "--json").stdout)["schedulers"] for one in found["sources"]]


def test_entries_and_files_are_events_once_whoever_reads_them(root: Path, evflow_home: Path, incoming: Path) -> None:
    add(evflow_home, "before anybody read")
    with scheduler(root):
        wait_until(
            lambda: read_from(evflow_home, "stream:orders") and read_from(evflow_home, "incoming"), "both sources are read", WITHIN_S
        )
        add(evflow_home, "A-1")
        (incoming / ".hidden.csv").write_text("no")
        (incoming / "half.csv.tmp").write_text("no")
        arrive(incoming, "one.csv")
        assert "what A-1" in said(until_there_are("Orders", 1)[-1])
        assert "what one.csv" in said(until_there_are("Files", 1)[-1])
        places = {"orders", str(incoming)}
        # What was published although the reply was lost is known when it is published again.
        wait_until(
            lambda: {one["place"] for one in seen() if one["is_up"] and one["published"] + one["known"] >= 1} == places,
            "the status says so",
            WITHIN_S,
        )
    add(evflow_home, "A-2")  # while nobody reads
    (incoming / "half.csv.tmp").rename(incoming / "half.csv")
    with scheduler(root) as first, scheduler(root, shards=4):
        assert "what A-2" in said(until_there_are("Orders", 2)[-1])
        assert "what half.csv" in said(until_there_are("Files", 2)[-1])
        first.send_signal(signal.SIGKILL)
        first.wait()
        add(evflow_home, "A-3")
        assert "what A-3" in said(until_there_are("Orders", 3)[-1])
    assert (len(runs_of("Orders")), len(runs_of("Files"))) == (3, 2)


@pytest.mark.parametrize("variable", ["EVFLOW_EVENT_STREAMS", "EVFLOW_EVENT_FOLDERS"])
@pytest.mark.parametrize("value", ["orders", "=ordered", "orders="])
def test_a_source_without_an_event_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    done = evflow("scheduler")
    assert done.returncode != 0
    assert "PLACE=EVENT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_that_cannot_be_read_is_told_and_hinders_nothing(
    root: Path, evflow_home: Path, incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVFLOW_EVENT_FOLDERS", f"{root}/nowhere=arrived,{incoming}=arrived")
    with scheduler(root):
        wait_until(lambda: "a source of events cannot be read" in (root / "scheduler.log").read_text(), "it is told", WITHIN_S)
        wait_until(lambda: read_from(evflow_home, "incoming"), "the other one is read", WITHIN_S)
        arrive(incoming, "one.csv")
        assert "what one.csv" in said(until_there_are("Files", 1)[-1])
