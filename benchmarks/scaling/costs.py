"""What things cost, in microseconds of a core; `probe` measures it on a real server."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of one core, and of the network.

    Attributes:
        event_us: A scheduler's core, for an event of its runs: all that it does, divided by the events that it wrote. Measured with rounds of three
            events, where much is spent on each round; larger rounds cost less an event, which is not counted here.
        server_call_us: The server's thread, for an append without an event.
        server_event_us: Likewise, for each event of it.
        server_entry_us: Likewise, for a report: put into an inbox, read by the owner, struck off.
        server_other_us: Likewise, for anything else that is one command.
        way_us: From a scheduler to the server and back, as a network in one building needs it. Not measured, an assumption.
    """

    event_us: float = 400.0
    server_call_us: float = 38.0
    server_event_us: float = 4.2
    server_entry_us: float = 18.1
    server_other_us: float = 6.2
    way_us: float = 200.0

    def plain(self) -> dict[str, float]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes at the server, of runs that are over.

    Attributes:
        waiting_bytes: Memory of a run of two steps that was asked for and that nobody has begun: its offer, its line in the index.
        run_bytes: Memory of a run without its tasks: keys, first event, line in the index.
        task_bytes: Memory of each task.
        run_aof_bytes: What a run without its tasks adds to the append-only file.
        task_aof_bytes: What each task adds to it.
        task_events: Events of a task, in a wide run.
    """

    waiting_bytes: float
    run_bytes: float
    task_bytes: float
    run_aof_bytes: float
    task_aof_bytes: float
    task_events: float

    def plain(self) -> dict[str, float]:
        """As JSON."""
        return asdict(self)
