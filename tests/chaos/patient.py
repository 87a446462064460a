"""The flow of the tests of signals: bodies that wait to be told to end, under `@retry` and `@catch`."""

import os
import resource
import signal
import time
from typing import Any, cast

from flow import noted  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports, reportUnknownVariableType] - beside it in the test's folder

from evflow import FlowSpec, Parameter, catch, retry, step

if os.environ.get("CHAOS_SLOW_DISK"):
    _fsync = os.fsync

    def _slow(descriptor: Any) -> None:
        time.sleep(0.05)
        _fsync(descriptor)

    os.fsync = cast("Any", _slow)

# What does not listen is killed by a second signal, however long that takes to come, and not for its time being up.
if os.environ.get("CHAOS_LONG_GRACE"):
    from evflow_scheduler import shard

    shard.CANCEL_GRACE_S = 250.0


class PatientFlow(FlowSpec):
    """A foreach of tasks that take long."""

    seconds = Parameter("seconds", default=60.0)
    deaf = Parameter("deaf", default=False)
    width = Parameter("width", default=3)

    @step
    def start(self) -> None:
        self.items = list(range(self.width))
        self.next(self.wait, foreach="items")

    @catch(var="caught")
    @retry(times=3, minutes_between_retries=0)
    @step
    def wait(self) -> None:
        if self.deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with noted(self.seconds):
            self.waited = True
        self.next(self.big)

    @step
    def big(self) -> None:
        if os.environ.get("CHAOS_FULL_DISK") and self.input == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        self.bytes = os.urandom(3_000_000) if os.environ.get("CHAOS_FULL_DISK") else b""
        self.next(self.join)

    @step
    def join(self, inputs: object) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


if __name__ == "__main__":
    PatientFlow()
