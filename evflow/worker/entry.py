"""An attempt as a fresh interpreter: `python -P -m evflow.worker.entry --fd N --owner PID`.

For flows that must not be forked. The descriptor holds the context's length (4 bytes), the context and the order. The
supervisor has made it the leader of a session, with its output in pipes and nothing to read.
"""

import os
import signal
import sys

from evflow.imports import framework_view  # before every other module of ours: it notes what is loaded already
from evflow.worker.forks import Runner
from evflow.worker.spec import AttemptOrder, RunContext


def main(arguments: list[str]) -> int:
    """Run the attempt; return the process's exit code."""
    from evflow.worker import attempt, parentage, stdio
    from evflow.worker.launchers import lead_session

    lead_session()
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    try:
        parentage.die_with(int(options["--owner"]), signal.SIGKILL)
    except parentage.Orphaned:
        return 0
    context, order = _read(int(options["--fd"]))
    stdio.open_line_buffered()
    if "--orders" in options:
        return _serve(context, int(options["--orders"]), int(options["--done"]))
    try:
        runner = attempt.load(context)
        runner.prepare(context)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it becomes the attempt's report
        return attempt.report_unloadable(context, AttemptOrder.unpack(order), error)
    return runner(context, order)


def _serve(context: RunContext, orders: int, done: int) -> int:
    """Serve one attempt after the other; a flow that cannot be loaded is reported by the first one."""
    from evflow.worker import attempt, reused

    for descriptor in (orders, done):
        os.set_inheritable(descriptor, False)
    try:
        runner: Runner = attempt.load(context)
        runner.prepare(context)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it becomes the attempt's report
        runner = attempt.UnloadableRunner(error)
    return reused.serve(runner, context, orders, done)


def _read(descriptor: int) -> tuple[RunContext, bytes]:
    with open(descriptor, "rb") as file:
        data = file.read()
    end = 4 + int.from_bytes(data[:4], "big")
    return RunContext.unpack(data[4:end]), data[end:]


if __name__ == "__main__":
    # By its name and not as `__main__`, which the flow's file becomes.
    from evflow.worker import entry, stdio as streams

    code = 70  # EX_SOFTWARE
    try:
        with framework_view():
            code = entry.main(sys.argv[1:])
    except BaseException as error:  # noqa: BLE001 - shown in the attempt's own log
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        streams.flush()
        os._exit(code)
