"""The scripts of a pool, `evflow/log/lua/pool_*.lua`, line by line, over simulated keys."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgpack

from evflow.testing.simulated_keys import Keys, RefusedByServer

_GROUP: Final = b"workers"
_BATCH: Final = b"1000"
_CLAIM_KEPT_US: Final = 86_400_000_000
_ORDERS: Final = 2**40
_HIGHEST: Final = 4_000
_LAST: Final = b"@"
_MOST_US: Final = 1_500_000


class PoolScripts:
    """The scripts at one instant.

    Args:
        keys: What they work on.
        now_us: The server's clock.
        names: Their KEYS: the queue, what waits, claims, workers, and what each script has besides.
    """

    def __init__(self, keys: Keys, now_us: int, names: Sequence[bytes]) -> None:
        self._keys = keys
        self._now_us = now_us
        self._queue, self._waiting, self._claims, self._workers, *self._rest = names

    def _call(self, name: str, *arguments: bytes) -> Any:
        return self._keys.call(self._now_us, name, *arguments)

    def claim(self, worker: bytes, *orders: bytes) -> list[Any]:
        """`pool_claim.lua`."""
        ranks, given, fences = self._rest
        if not self._lives(worker, fences):
            return [b"dead"]
        last = self._call("HGET", given, worker)
        if last is not None:
            first_entry, answer = msgpack.unpackb(last)
            if first_entry == orders[0]:
                return list(answer)
            self._call("HDEL", given, worker)
        answers, instead = list[Any]([b"ok"]), set[bytes]()
        for entry, attempt in zip(orders[::2], orders[1::2], strict=True):
            waits = self._call("HGET", self._waiting, attempt) == entry
            if not waits and self._claimed_by(attempt) == worker and attempt not in instead:
                answers.append(1)
                continue
            first, found = self._comes_first(ranks, attempt if waits else None)
            if waits and first in {None, attempt}:
                self._take(ranks, worker, attempt, entry)
                answers.append(1)
                continue
            self._put_back(entry, attempt, waits=waits)
            if first is None or found is None:
                answers.append(0)
                continue
            self._take(ranks, worker, first, found[0])
            answers.append([found[0], first, found[1][3]])
            instead.add(first)
        if instead:
            self._call("HSET", given, worker, msgpack.packb([orders[0], answers]))
        return answers

    def _take(self, ranks: bytes, worker: bytes, attempt: bytes, entry: bytes) -> None:
        self._call("HDEL", self._waiting, attempt)
        self._call("ZREM", ranks, attempt)
        self._call("HSET", self._claims, attempt, b"%d %s" % (self._now_us, worker))
        self._done(entry)

    def _put_back(self, entry: bytes, attempt: bytes, *, waits: bool) -> None:
        own: list[Any] = self._call("XRANGE", self._queue, entry, entry) if waits else []
        self._done(entry)
        if own:
            self._call("HSET", self._waiting, attempt, self._call("XADD", self._queue, b"*", *own[0][1]))

    def _comes_first(self, ranks: bytes, own: bytes | None) -> tuple[bytes | None, tuple[bytes, list[bytes]] | None]:
        """What comes first; unless that is `own`, with its entry and what is in it."""
        while True:
            first: bytes | None = next(iter(self._call("ZRANGE", ranks, b"0", b"0")), None)
            if first is None or first == own:
                return first, None
            its: bytes | None = self._call("HGET", self._waiting, first)
            found: list[Any] = [] if its is None else self._call("XRANGE", self._queue, its, its)
            if its is not None and found:
                return first, (its, found[0][1])
            self._call("ZREM", ranks, first)
            self._call("HDEL", self._waiting, first)

    # --- the owner's orders --------------------------------------------------------------------------------

    def order(self, verb: bytes, shard: bytes, epoch: bytes, *rest: bytes) -> list[Any]:
        """`pool_order.lua`."""
        fences, ranks = self._rest
        held, last = self._fence(fences, shard)
        if held > int(epoch):
            return [b"fenced", b"%d" % held]
        if verb == b"cancel":
            attempt, grace_ms, to = rest
            return self._cancel(attempt, grace_ms, to)
        number, *orders = rest
        if held == int(epoch) and int(number) <= last:
            return [b"ok"]
        for attempt, packed, priority in zip(orders[::3], orders[1::3], orders[2::3], strict=True):
            if not self._call("HEXISTS", self._waiting, attempt) and not self._call("HEXISTS", self._claims, attempt):
                self._call("HSET", self._waiting, attempt, self._call("XADD", self._queue, b"*", b"a", attempt, b"o", packed))
                place = self._call("HINCRBY", fences, b"", b"1") - max(-_HIGHEST, min(_HIGHEST, int(priority))) * _ORDERS
                self._call("ZADD", ranks, b"%d" % place, attempt)
        self._call("HSET", fences, shard, b"%s %s" % (epoch, number))
        return [b"ok"]

    def _cancel(self, attempt: bytes, grace_ms: bytes, to: bytes) -> list[Any]:
        fences, ranks = self._rest
        entry = self._call("HGET", self._waiting, attempt)
        if entry is not None:
            self._done(entry)
            self._call("HDEL", self._waiting, attempt)
            self._call("ZREM", ranks, attempt)
            return [b"withdrawn"]
        worker = self._claimed_by(attempt)
        if worker is None:
            return [b"unknown"]
        if not self._lives(worker, fences):
            self._call("HDEL", self._claims, attempt)
            return [b"lost", worker]
        self._call("XADD", to + worker, b"*", b"cancel", attempt, b"grace", grace_ms)
        return [b"told", worker]

    # --- the life of workers -------------------------------------------------------------------------------

    def life(self, verb: bytes, to: bytes, *rest: bytes) -> list[Any]:
        """`pool_life.lua`."""
        about, fences, given = self._rest
        reckoned_us = self._reckoned_us(fences)
        for worker in self._call("ZRANGEBYSCORE", self._workers, b"-inf", b"%d" % reckoned_us):
            self._bury(worker, about, given, to)
        if reckoned_us != self._now_us:
            living = self._call("ZRANGE", self._workers, b"0", b"-1", b"WITHSCORES")
            for worker, until_us in zip(living[::2], living[1::2], strict=True):
                self._call("ZADD", self._workers, b"%d" % (int(until_us) + self._now_us - reckoned_us), worker)
        self._call("HSET", fences, _LAST, b"%d" % self._now_us)
        for worker in self._readers():
            if self._call("ZSCORE", self._workers, worker) is None:
                self._bury(worker, about, given, to)
        if verb == b"look":
            shard, epoch, *attempts = rest
            return self._look(fences, shard, epoch, attempts)
        worker = rest[0]
        if verb == b"return":
            self._give_back(worker)
        elif verb == b"leave":
            self._bury(worker, about, given, to)
        else:
            _, ttl_us, said, *has = rest
            if verb == b"join":
                self._make_group()
                self._drop_old_claims()
            elif self._call("ZSCORE", self._workers, worker) is None:
                return [b"lost"]
            self._call("ZADD", self._workers, b"%d" % (self._now_us + int(ttl_us)), worker)
            self._call("HSET", about, worker, said)
            if has:
                self._drop_claims(worker, has[1:])
        return [b"ok"]

    def _drop_old_claims(self) -> None:
        claims = self._call("HGETALL", self._claims)
        for attempt, claim in list(zip(claims[::2], claims[1::2], strict=True)):
            at_us, _, owner = claim.partition(b" ")
            if int(at_us) < self._now_us - _CLAIM_KEPT_US and self._call("ZSCORE", self._workers, owner) is None:
                self._call("HDEL", self._claims, attempt)

    def _drop_claims(self, worker: bytes, has: Sequence[bytes]) -> None:
        claims = self._call("HGETALL", self._claims)
        for attempt, claim in list(zip(claims[::2], claims[1::2], strict=True)):
            if attempt not in has and claim.partition(b" ")[2] == worker:
                self._call("HDEL", self._claims, attempt)

    def _look(self, fences: bytes, shard: bytes, epoch: bytes, attempts: Sequence[bytes]) -> list[Any]:
        answer: list[Any] = [b"ok", self._call("ZCARD", self._workers)]
        if epoch:
            held, _ = self._fence(fences, shard)
            if held > int(epoch):
                return [b"fenced", b"%d" % held]
            if held < int(epoch):
                self._call("HSET", fences, shard, b"%s 0" % epoch)
        return [*answer, *map(self._fate, attempts)]

    def _fate(self, attempt: bytes) -> bytes:
        worker = self._claimed_by(attempt)
        if worker is None:
            return b"" if self._call("HEXISTS", self._waiting, attempt) else b"?"
        if self._call("ZSCORE", self._workers, worker) is not None:
            return b"+" + worker
        self._call("HDEL", self._claims, attempt)
        return b"-" + worker

    def _bury(self, worker: bytes, about: bytes, given: bytes, to: bytes) -> None:
        self._give_back(worker)
        with suppress(RefusedByServer):  # as with `pcall`: a server that lost its memory has no group
            self._call("XGROUP", b"DELCONSUMER", self._queue, _GROUP, worker)
        self._call("ZREM", self._workers, worker)
        self._call("HDEL", about, worker)
        self._call("HDEL", given, worker)
        self._call("DEL", to + worker)

    def _give_back(self, worker: bytes) -> None:
        while True:
            try:
                pending = self._call("XPENDING", self._queue, _GROUP, b"-", b"+", _BATCH, worker)
            except RefusedByServer:
                return
            if not pending:
                return
            for entry, *_ in pending:
                found = self._call("XRANGE", self._queue, entry, entry)
                if found:
                    values = found[0][1]
                    if self._call("HGET", self._waiting, values[1]) == entry:
                        self._call("HSET", self._waiting, values[1], self._call("XADD", self._queue, b"*", *values))
                self._done(entry)

    # --- parts -----------------------------------------------------------------------------------------------

    def _readers(self) -> list[bytes]:
        """The consumers that have read something and acknowledged nothing of it."""
        try:
            summary = self._call("XPENDING", self._queue, _GROUP)
        except RefusedByServer:
            return []
        return [consumer for consumer, _ in summary[3] or ()]

    def _make_group(self) -> None:
        with suppress(RefusedByServer):  # it is there
            self._call("XGROUP", b"CREATE", self._queue, _GROUP, b"0", b"MKSTREAM")

    def _lives(self, worker: bytes, fences: bytes) -> bool:
        return int(self._call("ZSCORE", self._workers, worker) or b"0") > self._reckoned_us(fences)

    def _reckoned_us(self, fences: bytes) -> int:
        """The instant by which who was not heard of counts as dead: a clock that jumps is not believed."""
        last_us = int(self._call("HGET", fences, _LAST) or self._now_us)
        return last_us + max(0, min(_MOST_US, self._now_us - last_us))

    def _claimed_by(self, attempt: bytes) -> bytes | None:
        claim: bytes | None = self._call("HGET", self._claims, attempt)
        return None if claim is None else claim.partition(b" ")[2]

    def _fence(self, fences: bytes, shard: bytes) -> tuple[int, int]:
        epoch, _, number = (self._call("HGET", fences, shard) or b"0 0").partition(b" ")
        return int(epoch), int(number)

    def _done(self, entry: bytes) -> None:
        self._call("XACK", self._queue, _GROUP, entry)
        self._call("XDEL", self._queue, entry)
