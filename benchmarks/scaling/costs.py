"""What things cost, in microseconds of a core; `probe` measures it on a real server."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of one core, and of the network.

    Attributes:
        call_us: A scheduler's, for a call of the log: a part of a round, an append, its reply.
        event_us: A scheduler's, for an event that it folds, decides, encodes, appends and acts on.
        server_call_us: The server's one thread, for an append without an event.
        server_event_us: Likewise, for each event of it.
        server_entry_us: Likewise, for a report: put into an inbox, read by the owner, struck off.
        server_other_us: Likewise, for anything else that is one command.
        way_us: From a scheduler to the server and back, as the network needs it; not measured, an assumption.
    """

    call_us: float = 250.0
    event_us: float = 100.0
    server_call_us: float = 20.0
    server_event_us: float = 5.0
    server_entry_us: float = 15.0
    server_other_us: float = 10.0
    way_us: float = 200.0

    def plain(self) -> dict[str, float]:
        """As JSON."""
        return asdict(self)
