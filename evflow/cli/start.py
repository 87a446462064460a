"""What `F()` at the foot of a flow's file starts: first what takes time of its own, then the command line."""

import gc
import os
import sys
from types import FrameType
from typing import NoReturn

from evflow.cli.leave import leave
from evflow.flow import dialect
from evflow.imports import framework_view

_STARTERS = frozenset({"run", "resume", "spin"})


def main(flow_class: type, caller: FrameType | None) -> NoReturn:
    """Run the command line of a flow on `sys.argv`, and exit the process with its code.

    Args:
        flow_class: The flow.
        caller: The frame in which the user instantiated it.
    """
    # Nearly all that is made until a run's loop begins stays to the end: to look for garbage in it is a tenth of a short run.
    gc.disable()
    # The user's folder is on sys.path: none of our imports may find a user's module in it.
    with framework_view():
        from evflow.cli.streams import open_closed

        open_closed()
        if dialect.is_metaflow():
            from evflow.compat.metaflow.rules import take_variables

            take_variables()
        if not _STARTERS.isdisjoint(sys.argv[1:]) and not {"--help", "-h"} & set(sys.argv):
            _begin(flow_class)
        from evflow.cli.flow_main import main as command_line
    code = command_line(flow_class, sys.argv[1:])
    early = sys.modules.get("evflow_scheduler.early")
    leave(code, caller, first=early.let_go if early else None)


def _begin(flow_class: type) -> None:
    """Guess that a run starts. A wrong guess costs a fork; a setting that cannot be read is the command's to show."""
    from evflow import config
    from evflow.errors import EvflowError
    from evflow_scheduler import early

    file = getattr(sys.modules.get(flow_class.__module__), "__file__", None)
    try:
        if file:
            config.use_folder(os.path.dirname(os.path.abspath(file)))  # noqa: PTH100, PTH120 - pathlib is not worth its time here
        start_method = config.get("start_method")
    except EvflowError:
        return
    early.fork(flow_class, "spawn" if "--start-method" in " ".join(sys.argv) else start_method)
