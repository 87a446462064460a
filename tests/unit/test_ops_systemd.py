"""The units of `ops/systemd`: systemd takes them, and evflow takes what they say."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from evflow import config
from evflow.cli.app import app
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "ops" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    config.reset()
    yield
    config.reset()


def says(unit: Path, key: str) -> list[str]:
    """All values of a key, in their order."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)


def variables(lines: list[str]) -> dict[str, str]:
    """Those that a unit or an environment file sets."""
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_command_takes_its_options(unit: Path) -> None:
    (line,) = says(unit, "ExecStart")
    program, name, *arguments = shlex.split(
        line.replace("%i", "gpu").replace("${SLOTS}", variables(says(unit, "Environment")).get("SLOTS", ""))
    )
    assert Path(program).name == "evflow"
    command = app().get_command(click.Context(app()), name)
    assert command is not None
    command.make_context(name, arguments)  # refuses an option or a value that it does not know


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_what_it_sets_are_settings_and_systemd_is_more_patient_than_evflow(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = variables((FOLDER / "evflow.env").read_text(encoding="utf-8").splitlines())
    assert {"EVFLOW_REDIS_URL", "EVFLOW_STORE"} == shared.keys()
    own = variables(says(unit, "Environment"))
    for name, value in {**own, **shared}.items():
        if name != "SLOTS":
            monkeypatch.setenv(name, value)
            assert config.source(name.removeprefix("EVFLOW_").lower()).place == name
    assert config.get("drain_timeout") < int(says(unit, "TimeoutStopSec")[0])
    assert says(unit, "KillMode") == ["mixed"]
    assert own["EVFLOW_HOME"] == f"/var/lib/{says(unit, 'StateDirectory')[0]}" == says(unit, "WorkingDirectory")[0]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_never_gives_up_to_start_it(unit: Path) -> None:
    """A scheduler ends at once where the log is away; systemd's own rule is to leave it at that after five times in ten seconds."""
    assert says(unit, "Restart") == ["always"]
    assert says(unit, "StartLimitIntervalSec") == ["0"]


def test_the_page_names_files_that_there_are() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"evflow[\w@-]*\.(?:service|env)\b", page):
        assert any(path.name == re.sub(r"@\w+\.", "@.", name) for path in FOLDER.iterdir()), name


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_it(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (Debian's package systemd has it)")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/evflow/bin/evflow", sys.executable))  # it looks whether the program is there
    done = subprocess.run([analyze, "verify", "--man=no", copy], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_common_file_says_whose_user_it_names_and_where_workers_get_theirs() -> None:
    text = (FOLDER / "evflow.env").read_text(encoding="utf-8")
    assert "EVFLOW_REDIS_URL=redis://scheduler:" in text
    own = says(FOLDER / "evflow-worker@.service", "EnvironmentFile")[-1].removeprefix("-").replace("%i", "POOL")
    assert own in text
