"""How long a server of a store that nobody reaches is tried.

Whoever waits for a command shall hear soon that a name is mistyped, or that the network is not up. A process that holds what a task has computed shall not give
that up because the server is away for half a minute: it knows the address, since it has read from there.
"""

_holds_results = False


def hold_results() -> None:
    """This process has something that it would take long to make again; it is as patient with a server that is away as with one that is busy."""
    global _holds_results
    _holds_results = True


def hold_nothing() -> None:
    """It is kept, or lost, and the process goes on to something else."""
    global _holds_results
    _holds_results = False


def holds_results() -> bool:
    """Whether it has."""
    return _holds_results
