"""Variables that begin as settings' do and are none."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from evflow.cli import config_command
from evflow.config_variables import known, unknown_variables
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("EVFLOW_MAX_WORKER", "EVFLOW_MAX_WORKERS"), ("EVFLOW_STORES", "EVFLOW_STORE"), ("EVFLOW_REDISURL", "EVFLOW_REDIS_URL")],
)
def test_a_mistyped_variable_is_named_with_the_nearest_setting(name: str, nearest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "4")
    assert dict(unknown_variables())[name] == f" Did you mean '{nearest}'?"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EVFLOW_RUN_ALPHA", "1"),
        ("EVFLOW_FLOW_CONFIG_VALUE", "{}"),
        ("EVFLOW_TEST_SCALE", "1"),
        ("EVFLOW_ATTEMPT", "F/1/2.0"),
        ("EVFLOW_SERVICE_HOST", "10.0.0.7"),
        ("EVFLOW_SCHEDULER_SERVICE_PORT_METRICS", "9090"),
        ("EVFLOW_PORT", "tcp://10.0.0.7:9090"),
        ("EVFLOW_PORT_9090_TCP_ADDR", "10.0.0.7"),
        ("EVFLOW_WHATEVER", ""),
        ("OTHER_EVFLOW_NAME", "1"),
    ],
)
def test_what_is_no_setting_and_no_mistake_is_let_be(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert name not in dict(unknown_variables())


def test_every_variable_that_evflow_itself_names_is_known() -> None:
    sources = [path for folder in ("evflow", "scheduler", "executors") for path in (REPOSITORY / folder).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r"\bEVFLOW_[A-Z0-9_]*[A-Z0-9]\b", path.read_text(encoding="utf-8"))}
    assert [name for name in named if not known(name)] == []


def test_the_list_of_settings_points_at_keys_and_variables_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("evflow.toml").write_text("max_worker = 4\n")
    monkeypatch.setenv("EVFLOW_STOER", "/data")
    done = CliRunner().invoke(config_command.command, [])
    assert done.exit_code == 0
    assert "evflow.toml:1: there is no setting 'max_worker'. Did you mean 'max_workers'?" in done.stderr
    assert "Note: the environment: there is no setting 'EVFLOW_STOER'. Did you mean 'EVFLOW_STORE'?" in done.stderr
