"""The process of a run's exit hooks: it calls them one after the other, and its exit code says whether all of them came to their end."""

import inspect
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any, Final

from evflow.flow import current
from evflow.flow.decorators.exit_hook import Hook, functions_of
from evflow.flow.flowspec import FlowSpec
from evflow.flow.tracebacks import show, user_traceback
from evflow.imports import framework_view, user_view
from evflow.worker.spec import AttemptOrder, RunContext

MODE: Final = "hook"
"""The mode of the order; its step is `succeeded` or another status."""
EXIT_FAILED: Final = 1


def run_hooks(flow: type[FlowSpec], context: RunContext, order: AttemptOrder) -> int:
    """Call the hooks; return the process's exit code."""
    failed = False
    current.leave()
    with framework_view():
        client: Any = import_module("evflow.client")  # by name: it stands beside the worker in the layers
    client.namespace(None)
    for name, function, timeout_s in functions_of(flow, succeeded=order.step == "succeeded"):
        try:
            with user_view(), _limited(name, timeout_s):
                _call(name, function, lambda: client.Run(f"{context.flow}/{context.run}"))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the next one is called all the same
            show(f"Exit hook '{name}' failed:\n{user_traceback(error)}")
            failed = True
    return EXIT_FAILED if failed else 0


def _call(name: str, function: Hook | None, run: Any) -> None:
    if function is None:
        raise LookupError(f"there is no function '{name}' in the flow's file")
    try:
        wants_run = "run" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a function of C's
        wants_run = False
    done = function(run=run()) if wants_run else function()
    if inspect.iscoroutine(done):
        with framework_view():
            import anyio

        async def awaited() -> None:
            await done

        anyio.run(awaited)


@contextmanager
def _limited(name: str, timeout_s: float) -> Generator[None]:
    def ring(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"exit hook '{name}' took longer than {timeout_s:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.stdout.flush()
