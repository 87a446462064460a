"""The embedded server: a private Valkey or Redis under EVFLOW_HOME, for whoever has set no EVFLOW_REDIS_URL.

    server = EmbeddedServer.begin(home)     # joins or starts it, returns at once: imports overlap with its start
    url = server.ready()                    # unix:///..., once it answers
    url = server.ensure()                   # after a broken connection: starts it again if it died
    server.release()                        # or the end of the process

Who does what (`docs/decisions/0003-embedded-server.md` has the reasons):

* A **client** is a process that uses the server. It holds a shared lock on `clients.lock` for as long; the kernel
  frees it however the process ends, and no child inherits it.
* The **guard** is a small process of its own beside the server, one for each. It puts the log on the disk once a
  second, and when the last client has gone and the linger is over, it stops the server and ends.
* `guard.lock` belongs to whoever is responsible for the server: whoever starts one takes it and hands it to the
  guard by inheritance. Where it is free, nobody is responsible, and the next client starts or adopts a server.
"""

from typing import TYPE_CHECKING

from evflow.log.embedded.server import EmbeddedServer

if TYPE_CHECKING:
    from evflow.log.embedded.control import ServerStatus, start_foreground, status, stop

__all__ = ["EmbeddedServer", "ServerStatus", "start_foreground", "status", "stop"]


def __getattr__(name: str) -> object:
    # What only `evflow server` needs is not loaded by runs and tasks.
    if name in __all__:
        from evflow.log.embedded import control

        return getattr(control, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
