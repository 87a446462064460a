"""What evflow says about itself: only what is asked for, one line each, without touching the user's structlog."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from evflow import config, diagnostics
from evflow.config import ConfigInvalid
from evflow.core.ids import RunId


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    config.reset()
    yield
    monkeypatch.undo()
    config.reset()
    diagnostics.silence()


@pytest.mark.parametrize(("level", "said"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_what_is_below_the_level_is_not_said(level: str, said: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setenv("EVFLOW_LOG_LEVEL", level)
    diagnostics.prepare(lines.append)
    diagnostics.debug("launch")
    diagnostics.info("server away")
    diagnostics.warning("lost events written again")
    assert len(lines) == said


def test_a_line_begins_with_time_level_and_event_and_names_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVFLOW_LOG_LEVEL", "info")
    diagnostics.prepare()
    diagnostics.info("shard taken", epoch=17, run=RunId.parse("TrainFlow/3"), why="")
    [line] = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r'timestamp=20\S+Z level=info event="shard taken" run=TrainFlow/3 epoch=17 why=(?:"")?', line)


def test_a_bad_level_is_told_when_a_run_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_LOG_LEVEL", "loud")
    with pytest.raises(ConfigInvalid, match="EVFLOW_LOG_LEVEL: log_level is 'loud'"):
        diagnostics.prepare()


def test_a_process_that_did_not_prepare_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EVFLOW_LOG_LEVEL", "debug")
    diagnostics.warning("lost events written again")
    assert capsys.readouterr().err == ""


def test_a_process_in_which_nothing_is_said_does_not_import_structlog() -> None:
    code = "import sys; from evflow import diagnostics; diagnostics.prepare(); diagnostics.info('x'); diagnostics.debug('y'); sys.exit('structlog' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_users_structlog_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import structlog

    before = structlog.get_config()
    monkeypatch.setenv("EVFLOW_LOG_LEVEL", "info")
    lines: list[str] = []
    diagnostics.prepare(lines.append)
    diagnostics.info("server away")
    assert structlog.get_config() == before
    assert not structlog.is_configured()
