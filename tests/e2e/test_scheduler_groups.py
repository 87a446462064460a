"""A scheduler, its attempts and the commands on a log of several servers, one of which dies in the middle of a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow.core.ids import RunId
from evflow.log.keys import shared_shard
from tests.e2e.test_scheduler import WITHIN_S, Site, ended, scheduler, told
from tests.fakes.sentinel import sentinel
from tests.integration.test_failover import holder_of
from tests.real_runs import evflow, verified
from tests.redis_groups import Cluster, Watched, cluster, watched
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(DebianRedis.why_missing() is not None, reason=str(DebianRedis.why_missing()))


@pytest.fixture
def group() -> Iterator[Watched]:
    with watched() as servers:
        yield servers


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    with cluster(replicas=True) as servers:
        yield servers


@pytest.fixture
def site(root: Path) -> Site:
    return Site(root)


def test_a_run_behind_sentinels_outlives_the_primary(group: Watched, site: Site, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One Sentinel, the first that is asked, never hears of the fail-over; it names the old primary, which is back, empty, and a primary for ten seconds."""
    with sentinel(group.primary.port) as late:
        monkeypatch.setenv("EVFLOW_REDIS_URL", group.url.replace("://", f"://127.0.0.1:{late},"))
        _outlive_the_primary(group, site, root)


def _outlive_the_primary(group: Watched, site: Site, root: Path) -> None:
    site.deploy("Nightly", "a")
    with scheduler(root, "--durability", "replicated"):
        first = site.ask("Nightly", times=1)
        assert ended(first) == "succeeded"
        run = site.ask("Nightly", folder=site.said)
        wait_until(lambda: site.began(run, 0) and site.began(run, 1), "both bodies run", WITHIN_S)
        old = group.primary
        old.kill()
        wait_until(lambda: group.primary is not old, "the replica is promoted", WITHIN_S)
        old.start()  # as its replica: without one nothing is `replicated`
        site.go()
        wait_until(lambda: evflow("show", run).returncode == 0, "commands find the new primary", WITHIN_S)
        assert ended(run) == "succeeded"
    assert [len(site.began(run, number)) for number in (0, 1)] == [1, 1]
    assert [verified(one)["problems"] for one in (first, run)] == [[], []]


def test_a_run_on_a_cluster_outlives_its_shard_s_primary(nodes: Cluster, site: Site, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_REDIS_URL", nodes.url)
    site.deploy("Nightly", "a")
    with scheduler(root):
        run = site.ask("Nightly", folder=site.said)
        wait_until(lambda: site.began(run, 0) and site.began(run, 1), "both bodies run", WITHIN_S)
        [seen] = told("top")["runs"]
        assert (seen["run"], seen["running"]) == (run, 2)
        old = holder_of(nodes, f"{{evflow:{shared_shard(RunId.parse(run))}}}:lease")
        old.kill()
        site.go()
        wait_until(lambda: evflow("show", run).returncode == 0, "commands find the new primary", WITHIN_S)
        assert ended(run) == "succeeded"
        old.start()
    assert [len(site.began(run, number)) for number in (0, 1)] == [1, 1]
    assert verified(run)["problems"] == []
    assert evflow("runs").stdout.count("succeeded") == 1
