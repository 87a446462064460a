"""What changes in many shards at once, for those who look at all of them: the shards' feeds, in one blocking read.

A feed names the runs that were appended to, and how far; the events are in the runs' logs. It is bounded, so whoever comes late
reads the logs from where it was.
"""

import time
from collections.abc import Iterable
from typing import Final

from evflow.log.keys import shard_keys
from evflow.log.transport import Connector, connect_blocking
from evflow.log.url import parse
from evflow.log.wire import Transport, type_of_reply

_BATCH: Final = 1_000
_SPLIT_WAIT_S: Final = 0.25
"""Between two looks where the feeds lie on several servers, none of which can be waited for alone."""


class Feeds:
    """A reader of feeds, on a connection of its own. Blocking.

    Args:
        url: The log.
        connector: Connects.
    """

    def __init__(self, url: str, connector: Connector = connect_blocking) -> None:
        self._address = parse(url)
        self._connector = connector
        self._transport: Transport | None = None
        self._cursors: dict[str, bytes] = {}

    def follow(self, shards: Iterable[str]) -> None:
        """Follow these shards from now on, besides those that are followed.

        Raises:
            LogUnavailable: The server is away, as for `wait`.
        """
        new = [shard for shard in shards if shard not in self._cursors]
        if new:
            ends = self._live().pipeline([("XREVRANGE", shard_keys(shard).feed, "+", "-", "COUNT", 1) for shard in new])
            for shard, end in zip(new, map(_checked, ends), strict=True):
                self._cursors[shard] = end[0][0] if end else b"0"

    def leave(self, shard: str) -> None:
        """Follow a shard no more."""
        self._cursors.pop(shard, None)

    def wait(self, timeout_s: float) -> set[tuple[str, str]]:
        """What was appended to since the last call, as `(shard, run)`; waits for the first one up to `timeout_s`."""
        if not self._cursors:
            time.sleep(timeout_s)
            return set()
        if self._address.is_cluster:
            return self._wait_split(timeout_s)
        keys = [shard_keys(shard).feed for shard in self._cursors]
        block_ms = max(1, round(timeout_s * 1_000))
        reply = self._live().call_blocking(
            timeout_s, "XREAD", "COUNT", _BATCH, "BLOCK", block_ms, "STREAMS", *keys, *self._cursors.values()
        )
        return self._read(reply)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def _wait_split(self, timeout_s: float) -> set[tuple[str, str]]:
        commands = [("XREAD", "COUNT", _BATCH, "STREAMS", shard_keys(shard).feed, cursor) for shard, cursor in self._cursors.items()]
        found: set[tuple[str, str]] = set()
        for reply in self._live().pipeline(commands):
            found |= self._read(_checked(reply))
        if not found:
            time.sleep(min(timeout_s, _SPLIT_WAIT_S))
        return found

    def _read(self, reply: type_of_reply) -> set[tuple[str, str]]:
        shards = {shard_keys(shard).feed.encode(): shard for shard in self._cursors}
        found: set[tuple[str, str]] = set()
        for key, entries in reply or ():
            shard = shards[key]
            self._cursors[shard] = entries[-1][0]
            found.update((shard, values[1].decode(errors="replace")) for _, values in entries if len(values) > 1)
        return found

    def _live(self) -> Transport:
        if self._transport is None or self._transport.closed:
            self._transport = self._connector(self._address)
        return self._transport


def _checked(reply: type_of_reply) -> type_of_reply:
    if isinstance(reply, Exception):
        raise reply
    return reply
