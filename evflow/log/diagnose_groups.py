"""What can be wrong with several servers that are one log: Sentinels that disagree, a cluster of which one server is not like the others."""

from collections.abc import Callable, Iterable, Iterator

from evflow.log.diagnose import Finding, Server
from evflow.log.errors import LogUnavailable
from evflow.log.sentinel import pairs, question, sentinels
from evflow.log.transport import connect_blocking
from evflow.log.url import Address
from evflow.log.wire import Transport


def check_sentinels(address: Address) -> Iterator[Finding]:
    """All Sentinels answer and name one server, enough of them to promote another one, and there is one to promote."""
    silent: list[str] = []
    named: dict[str, str] = {}
    doubts: list[str] = []
    replicas = 0
    for sentinel in sentinels(address):
        try:
            transport = connect_blocking(sentinel)
        except LogUnavailable as error:
            silent.append(error.message)
            continue
        try:
            named[sentinel.shown] = b":".join(transport.call(*question(address)) or [b"nobody"]).decode()
            told = pairs(transport.call("SENTINEL", "MASTER", address.service))
            replicas = max(replicas, int(told.get("num-slaves", "0")))
            transport.call("SENTINEL", "CKQUORUM", address.service)
        except LogUnavailable as error:
            doubts.append(error.message)
        finally:
            transport.close()
    if silent:
        yield Finding("sentinels", "warning", "; ".join(silent), "Start them, or take them out of EVFLOW_REDIS_URL.")
    if len(set(named.values())) > 1:
        seen = ", ".join(f"{where} names {server}" for where, server in named.items())
        yield Finding("sentinels", "warning", seen, "A fail-over is under way, or one of them is cut off.")
    if doubts:
        yield Finding("sentinels-quorum", "error", "; ".join(doubts), "Without a quorum nothing is promoted when the primary dies.")
    elif named and not silent:
        yield Finding("sentinels", "ok", f"{len(named)} of {len(address.seeds)} answer, and can promote another server")
    if named and not replicas:
        yield Finding("replicas", "warning", "the Sentinels know no replica to promote", "Start one with `replicaof`.")


def check_servers(servers: Iterable[Transport], checks: Iterable[Callable[[Server], Iterable[Finding]]]) -> Iterator[Finding]:
    """The checks of one server for each primary of a cluster: what is wrong with any, else that all are well."""
    looked_at = [Server(wire, in_cluster=True) for wire in servers]
    for check in checks:
        found = [(server, finding) for server in looked_at for finding in check(server)]
        wrong = [Finding(one.name, one.level, f"{server.wire.where}: {one.seen}", one.advice) for server, one in found if one.level != "ok"]
        yield from wrong
        if not wrong:
            first = {one.name: one for _, one in reversed(found)}
            yield from (Finding(name, "ok", f"{one.seen}, as on all {len(looked_at)} primaries") for name, one in first.items())


def check_cluster(address: Address, primaries: int) -> Iterator[Finding]:
    """How many primaries there are."""
    yield Finding("cluster", "ok", f"{address.shown}: {primaries} primaries have all slots")
