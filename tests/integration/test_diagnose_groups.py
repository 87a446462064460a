"""What `evflow doctor` says of servers behind Sentinels, and of a cluster."""

from collections.abc import Iterator

import pytest

from evflow.log import diagnose
from tests.redis_groups import Cluster, Watched, cluster, watched
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(DebianRedis.why_missing() is not None, reason=str(DebianRedis.why_missing()))


@pytest.fixture
def group() -> Iterator[Watched]:
    with watched(fails_over=False) as servers:
        yield servers


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    with cluster() as servers:
        yield servers


def said(url: str, name: str) -> list[tuple[str, str]]:
    return [(one.level, one.seen) for one in diagnose.check_server(url) if one.name == name]


def test_sentinels_that_answer_are_well_and_the_primary_is_looked_at(group: Watched) -> None:
    assert said(group.url, "sentinels") == [("ok", "3 of 3 answer, and can promote another server")]
    assert said(group.url, "role") == [("ok", "primary with 1 replica")]
    [(level, seen)] = said(group.url, "persistence")
    assert (level, seen) == ("error", "the server keeps no append-only file")
    assert said(group.url, "permissions") == [("ok", "all commands that evflow needs are allowed")]


def test_a_sentinel_that_is_away_and_a_lost_quorum_are_told() -> None:
    with watched() as group:
        group.sentinels[0].kill()
        [(level, seen)] = said(group.url, "sentinels")
        assert level == "warning"
        assert f":{group.sentinels[0].port} cannot be reached" in seen
        group.sentinels[1].kill()
        wait_until(lambda: said(group.url, "sentinels-quorum"), "the one that is left has noticed that the others are gone")
        [(level, seen)] = said(group.url, "sentinels-quorum")
        assert (level, "NOQUORUM" in seen) == ("error", True)


def test_no_sentinel_at_all_is_an_error_that_names_them(group: Watched) -> None:
    for one in group.sentinels:
        one.kill()
    [(level, seen)] = said(group.url, "server")
    assert level == "error"
    assert "'main' of the Sentinels" in seen


def test_a_service_that_nobody_knows_is_told() -> None:
    with watched(fails_over=False) as group:
        [(level, seen)] = said(group.url.replace("/main", "/other"), "server")
        assert level == "error"
        assert "a Sentinel knows no 'other'" in seen


def test_each_server_of_a_cluster_is_looked_at(nodes: Cluster) -> None:
    for one in nodes.servers:
        one.call("CONFIG", "SET", "appendonly", "yes")
    odd = nodes.servers[2]
    odd.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    [(level, seen)] = said(nodes.url, "eviction")
    assert (level, seen.startswith(f"127.0.0.1:{odd.port}: maxmemory-policy allkeys-lru")) == ("error", True)
    [(level, seen)] = said(nodes.url, "version")
    assert (level, seen.endswith("as on all 3 primaries")) == ("ok", True)
    assert said(nodes.url, "permissions") == [("ok", "all commands that evflow needs are allowed")]
    [(level, seen)] = said(nodes.url, "cluster")
    assert (level, seen.endswith(": 3 primaries have all slots")) == ("ok", True)


def test_a_plain_url_of_a_node_says_how_to_name_the_cluster(nodes: Cluster) -> None:
    plain = f"redis://127.0.0.1:{nodes.servers[0].port}"
    assert said(plain, "cluster") == [("error", "the server is a node of a cluster")]
    assert "redis+cluster://" in next(one.advice for one in diagnose.check_server(plain) if one.name == "cluster")
    [(level, seen)] = said("redis+cluster://127.0.0.1:1", "server")
    assert (level, "cannot be reached" in seen) == ("error", True)
