"""`evflow init`, as somebody has it who begins: what it writes runs, passes its test, has a card, and is deployed."""

import errno
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from evflow.cli.init import NameUnfit, NotWritten, command, names
from evflow.lint.check import findings
from tests.real_runs import evflow, python


def test_what_is_written_runs_and_passes_its_test(root: Path) -> None:
    done = evflow("init", "daily-sales", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "cd daily-sales" in done.stdout
    folder = root / "daily-sales"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "daily_sales.py", "test_daily_sales.py"]
    ran = python("daily_sales.py", "run", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert "pi is about 3.1" in ran.stdout
    assert "# Pi is about" not in ran.stdout
    card = python("daily_sales.py", "card", "get", "report", cwd=folder)
    assert "Pi is about 3.1" in card.stdout
    tested = python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "3 passed" in tested.stdout
    deployed = python("daily_sales.py", "deploy", "--json", cwd=folder)
    assert json.loads(deployed.stdout)["flow"] == "DailySalesFlow"
    assert findings((folder / "daily_sales.py").read_text(), "daily_sales.py") == []
    for name in ("daily_sales.py", "README.md"):
        assert "FILE" not in (folder / name).read_text()
        assert "FLOW" not in (folder / name).read_text()


@pytest.mark.parametrize("name", ["one", "daily-sales"])
def test_what_the_commands_do_is_told_in_one_column(name: str, root: Path) -> None:
    written = json.loads(evflow("init", name, "--json", cwd=root).stdout)["files"]
    lines = (root / written[0]).read_text().split("\n\n")[1].removesuffix('\n"""').splitlines()
    assert len(lines) == 5
    commands = [re.split(" {3,}", line.strip(), maxsplit=1) for line in lines]
    assert len({line.index(said) for line, (_, said) in zip(lines, commands, strict=True)}) == 1


def test_who_has_no_pytest_is_told_that_the_test_needs_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with monkeypatch.context() as patched:
        patched.setattr("evflow.cli.init.find_spec", dict[str, None]().get)
        without = CliRunner().invoke(command, ["without"]).stdout
    assert "python -m pytest    (once pytest is installed)\n" in without
    assert "python -m pytest\n" in CliRunner().invoke(command, ["with-it"]).stdout


def test_without_a_name_it_is_this_folder(root: Path) -> None:
    folder = root / "here"
    folder.mkdir()
    said = json.loads(evflow("init", "--json", cwd=folder).stdout)
    assert said == {"flow": "MyFlow", "folder": str(folder), "files": ["flow.py", "test_flow.py", "README.md"]}
    assert python("flow.py", "check", cwd=folder).returncode == 0


def test_nothing_is_overwritten(root: Path) -> None:
    (root / "mine").mkdir()
    (root / "mine" / "README.md").write_text("mine")
    done = evflow("init", "mine", cwd=root)
    assert done.returncode == 1
    assert "There is mine/README.md already. Nothing was written." in done.stderr
    assert [path.name for path in (root / "mine").iterdir()] == ["README.md"]
    (root / "file").write_text("")
    assert "There is file already" in evflow("init", "file", cwd=root).stderr


def test_where_not_all_can_be_written_nothing_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: str, flow: str) -> dict[str, str]:
        return {"first.py": flow, "none/second.py": flow}

    monkeypatch.chdir(root)
    monkeypatch.setattr("evflow.cli.starter.files", full)
    done = CliRunner().invoke(command, ["daily-sales"])
    assert isinstance(done.exception, NotWritten)
    assert "daily-sales/none/second.py: No such" in done.exception.message
    assert "None" not in done.exception.message
    assert not (root / "daily-sales").exists()
    (root / "daily-sales").mkdir()
    assert isinstance(CliRunner().invoke(command, ["daily-sales"]).exception, NotWritten)
    assert list((root / "daily-sales").iterdir()) == []
    no_space = NotWritten(Path("a"), OSError(errno.ENOSPC, "No space left on device"))
    assert no_space.message == "The flow cannot be written: a: No space left on device."
    assert no_space.hint == "Free some space. Nothing was written."


@pytest.mark.parametrize(
    ("name", "module", "flow"),
    [
        ("sales", "sales", "SalesFlow"),
        ("daily-sales", "daily_sales", "DailySalesFlow"),
        ("DailySales", "daily_sales", "DailySalesFlow"),
        ("trainFlow", "train_flow", "TrainFlow"),
        ("flow", "flow", "MyFlow"),
        ("a_2", "a_2", "A2Flow"),
    ],
)
def test_names(name: str, module: str, flow: str) -> None:
    assert names(name) == (module, flow)


@pytest.mark.parametrize("name", ["2nd", "a b", "json", "class", "evflow", "ü", "a/b", "-", "../x", "pandas", "JSON"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(NameUnfit):
        names(name)
