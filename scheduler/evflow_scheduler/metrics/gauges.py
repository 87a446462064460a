"""What is counted when Prometheus asks: shards, leases, slots, runs and tasks as they are, fork servers and their memory.

The census of it is taken in the scheduler's loop; a thread makes the text of it.
"""

import platform
from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from evflow import __version__
from evflow.core.tally import REASONS
from evflow_executors.packages import sizes_bytes
from evflow_scheduler.metrics.census import Census
from evflow_scheduler.reading import OUTCOMES, Seen


class Measured(Protocol):
    """A scheduler that can be asked; in its loop."""

    def census(self) -> Census:
        """It as it is now."""
        ...


class Gauges(Collector):
    """Turns the census of now into metrics.

    Args:
        registry: Where Prometheus finds them, beside those of the process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._census: Census | None = None
        self._memory_bytes = 0
        build = Info("evflow_build", "The version that runs.", registry=registry)
        build.info({"version": __version__, "python": platform.python_version()})
        ProcessCollector(registry=registry)
        registry.register(self)

    def text(self, census: Census) -> bytes:
        """All metrics of the registry in Prometheus' text format. Blocking, a millisecond for each fork server; one call at a time."""
        self._census, self._memory_bytes = census, sum(sizes_bytes(census.fork_servers))
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The gauges of the census; nothing before there is one."""
        census = self._census
        if census is None:
            return
        yield _gauge("evflow_shards_owned", "Shards that this scheduler owns.", len(census.lease_ages_s))
        yield _gauge("evflow_shards_share", "Shards that it may own, beside the other schedulers.", census.share)
        yield _labelled("evflow_lease_age_seconds", "Since a shard's lease was last renewed.", "shard", census.lease_ages_s)
        yield _gauge("evflow_slots", "Attempts that may run at once.", census.slots)
        yield _gauge("evflow_slots_taken", "Attempts that have a slot.", census.slots_taken)
        yield _labelled("evflow_runs", "Runs of the owned shards that are not over.", "state", census.runs)
        yield _gauge("evflow_tasks_running", "Tasks whose body is at work.", census.tasks.running)
        yield _gauge("evflow_tasks_starting", "Tasks with a slot whose body has not begun.", census.tasks.starting)
        waiting = {**dict.fromkeys(REASONS, 0), **census.tasks.waiting}
        yield _labelled("evflow_tasks_waiting", "Tasks that wait, by what they wait for.", "reason", waiting)
        yield _labelled("evflow_fork_servers", "Processes that have a flow loaded.", "state", {"warm": census.warm, "busy": census.busy})
        yield _gauge("evflow_fork_servers_memory_bytes", "Their memory; pages that they share count once.", self._memory_bytes)
        if census.unarchived_bytes is not None:
            yield _gauge("evflow_unarchived_bytes", "Events of runs that are over and not archived.", census.unarchived_bytes)

        yield from _of_sources(census.sources)


def _of_sources(sources: tuple[Seen, ...]) -> Iterator[Metric]:
    """Queues and buckets; nothing where none is read."""
    if not sources:
        return
    yield _labelled(
        "evflow_source_up", "1 where a source of events could be read.", "place", {one.place: one.is_up is True for one in sources}
    )
    events = CounterMetricFamily("evflow_source_events", "What came from a source, by what became of it.", labels=["place", "outcome"])
    failures = CounterMetricFamily("evflow_source_failures", "Tries to read a source that failed.", labels=["place"])
    for one in sources:
        for outcome in OUTCOMES:
            events.add_metric([one.place, outcome], getattr(one, outcome))
        failures.add_metric([one.place], one.failures)
    yield events
    yield failures


def _gauge(name: str, text: str, number: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=number)


def _labelled(name: str, text: str, label: str, numbers: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for of, number in numbers.items():
        family.add_metric([of], number)
    return family
