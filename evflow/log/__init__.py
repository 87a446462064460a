"""The event log on Redis Streams.

`connect(url)` gives the blocking `LogClient` that workers, commands and the client use; `open_event_log(url)`
the asynchronous `EventLog` of a shard's owner. Both are lazy: importing this package loads neither.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evflow.log.client import RedisLogClient
    from evflow.log.event_log import RedisEventLog


def connect(url: str) -> "RedisLogClient":
    """A blocking client of the log at `url`; it connects on first use.

    Raises:
        LogUrlInvalid: The URL names no server.
    """
    from evflow.log.client import RedisLogClient

    return RedisLogClient(url)


async def open_event_log(url: str) -> "RedisEventLog":
    """The log at `url` for the owner of a shard, connected.

    Raises:
        LogUrlInvalid: The URL names no server.
        LogUnavailable: The server cannot be used.
    """
    from evflow.log.event_log import RedisEventLog

    log = RedisEventLog(url)
    await log.open()
    return log
