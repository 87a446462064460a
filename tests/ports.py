"""Ports for servers that tests start.

A port that the system picks lies among those that it gives to outgoing connections as well, so that anything may take it
between the answer and the server's start, most of all the tests that run beside this one. These lie below.
"""

import random
import socket

_FIRST, _LAST = 10_000, 32_000
"""Below what Linux (32768) and macOS (49152) give to outgoing connections."""
_PICK = random.SystemRandom()
"""Another order in each process: `random` itself is seeded the same for every test."""


def free_port() -> int:
    """Answer a port of this machine's loopback that nobody listens on."""
    while True:
        port = _PICK.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
