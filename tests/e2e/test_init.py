"""`evflow init`, as somebody has it who begins: what it writes runs, passes its test, has a card, and is deployed."""

import json
from pathlib import Path

import pytest

from evflow.cli.init import NameUnfit, names
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
