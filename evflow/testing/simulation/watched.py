"""The parts of a simulated shard that take notes: what was promised, who held which epoch, which states owners had."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from evflow.core import canonical, events as ev
from evflow.core.codec import Record
from evflow.core.ids import RunId
from evflow.log.protocol import AppendCall, Head, Lease
from evflow.testing.faults import Faults
from evflow.testing.simulated_log import SimulatedEventLog
from evflow.testing.simulated_server import SimulatedServer
from evflow.testing.simulated_state import State
from evflow_executors.protocol import OutputLine
from evflow_scheduler.run import OwnedRun

SHARD: Final = "simulated"
T = TypeVar("T")


class Violation(AssertionError):
    """An invariant does not hold."""


class WatchedServer(SimulatedServer):
    """A server that remembers what was promised: which events are durable, and who held which epoch.

    Attributes:
        durable: Up to where each run's log is.
        epochs: Who held which.
        look: Called with what it holds after each write.
        epochs_fell: It lost a lease, and its clock had gone back behind that lease's epoch: the next one was lower, and who was told of
            the lost one knows nothing of its successors.
    """

    def __init__(self, clock_us: Callable[[], int]) -> None:
        super().__init__(clock_us)
        self.durable: dict[RunId, int] = {}
        self.epochs: dict[int, str] = {}
        self.look: Callable[[State], None] | None = None
        self.epochs_fell = False
        self._lost_a_lease = False
        self._highest = 0

    def write(self, act: Callable[[State], T], *, frees: bool = False) -> T:
        """See `SimulatedServer.write`; whoever looks sees the state after each."""
        before = self.state.shard(SHARD).held.epoch
        result = super().write(act, frees=frees)
        self._see_epoch(before, self.state.shard(SHARD).held.epoch)
        if self.look is not None:
            self.look(self.state)
        return result

    def forget_lease(self, shard: str) -> None:
        """See `SimulatedServer.forget_lease`."""
        self._lost_a_lease = True
        super().forget_lease(shard)

    def regress(self, writes: int) -> int:
        """See `SimulatedServer.regress`."""
        lost = super().regress(writes)
        self._lost_a_lease = self._lost_a_lease or lost > 0
        return lost

    def _see_epoch(self, before: int, now: int) -> None:
        """I2: epochs rise."""
        if now and now != before and now <= self._highest:
            if not self._lost_a_lease:
                raise Violation(f"I2: after epoch {self._highest} came {now}")
            self.epochs_fell = True
        self._highest = max(self._highest, now)

    def make_durable(self) -> None:
        """See `SimulatedServer.make_durable`."""
        super().make_durable()
        self.durable = {run: held.head.seq for run, held in self.state.shard(SHARD).runs.items()}

    def note(self, lease: Lease) -> None:
        """I2: an epoch has one owner."""
        owner = self.epochs.setdefault(lease.epoch, lease.owner)
        if owner != lease.owner and not self.epochs_fell:
            raise Violation(f"I2: epoch {lease.epoch} was given to {owner} and to {lease.owner}")


class WatchedLog(SimulatedEventLog):
    """A connection that reports epochs to the server's books, and knows how far the server said that it had each run."""

    def __init__(self, server: SimulatedServer, faults: Faults) -> None:
        super().__init__(server, faults)
        self.acknowledged: dict[RunId, int] = {}

    async def append(self, lease: Lease, call: AppendCall) -> Head:
        """See `EventLog.append`."""
        head = await super().append(lease, call)
        self.acknowledged[call.run] = head.seq
        return head

    async def take(self, shard: str, owner: str, ttl_s: float, since: int = 0) -> Lease:
        """See `EventLog.take`."""
        lease = await super().take(shard, owner, ttl_s, since)
        assert isinstance(self.server, WatchedServer)
        self.server.note(lease)
        return lease


class RecordedRun(OwnedRun):
    """A run that notes the digest of its state at each turn."""

    def __init__(self, run: RunId, digests: dict[int, set[bytes]] | None) -> None:
        super().__init__(run)
        self._at = digests

    def _encoded(self, first: int, consumed: Sequence[bytes] = ()) -> list[Record]:
        new = super()._encoded(first, consumed)
        if new and self._at is not None:
            self._at.setdefault(self.state.seq, set()).add(canonical.digest(self.state))
        return new


class Listener:
    """Hears what a live view would."""

    async def on_records(self, run: OwnedRun, records: Sequence[Record]) -> None:
        """These events stand in the log."""

    def on_line(self, line: OutputLine) -> None:
        """An attempt printed a line."""


class Host:
    """Takes offers in as they are."""

    def welcome(self, offered: ev.RunStarted) -> ev.RunStarted:
        """See `RunHost.welcome`."""
        return offered

    def expect(self, run: RunId) -> None:
        """See `RunHost.expect`."""

    def dismiss(self, run: RunId) -> None:
        """See `RunHost.dismiss`."""

    async def refuse(self, run: RunId, why: str) -> None:
        """See `RunHost.refuse`."""
