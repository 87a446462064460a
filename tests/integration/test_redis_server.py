"""The server of the other integration tests is itself as they expect it."""

import pytest

from tests.redis_server import DebianRedis, foreign_keys


def test_each_test_gets_an_empty_server(redis_url: str, redis_server: DebianRedis) -> None:
    assert redis_url == redis_server.url
    assert redis_server.call("DBSIZE") == 0


def test_only_keys_outside_of_our_key_space_count_as_a_leak(redis_url: str, redis_server: DebianRedis) -> None:
    redis_server.call("SET", "{evflow:0}:lease", "x")
    redis_server.call("SET", "evflow:scripts", "x")
    assert foreign_keys(redis_server) == []
    redis_server.call("SET", "stray", "x")
    assert foreign_keys(redis_server) == ["stray"]
    redis_server.call("DEL", "stray")


def test_an_error_of_the_server_is_raised(redis_server: DebianRedis) -> None:
    with pytest.raises(Exception, match="unknown command"):
        redis_server.call("NONSENSE")
