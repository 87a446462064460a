"""How people start a flow: what hints tell them to type."""

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from evflow.flow import dialect

THROUGH_MODULE: Final = "python -m evflow.compat.metaflow"
"""What stands before the file of a flow that says `import metaflow`."""

_words = "python"
"""What stands before the file."""


def start_with(words: str) -> None:
    """Say what stands before a flow's file in this process's hints, where it is not `python`."""
    global _words
    _words = words


def command(file: str) -> list[str]:
    """The command that starts a flow's file in another process.

    There `import metaflow` means evflow where it does so in this process, or where the file is written for Metaflow.
    """
    return [sys.executable, *(["-m", "evflow.compat.metaflow"] if dialect.is_metaflow() or _imports_metaflow(file) else []), file]


def _imports_metaflow(file: str) -> bool:
    """Whether a file is written for Metaflow: it imports that and no evflow. What cannot be read is not, and says so when it is run."""
    import ast

    try:
        with open(file, "rb") as source:  # noqa: PTH123 - pathlib is a heavy import
            nodes = list(ast.walk(ast.parse(source.read())))
    except (OSError, SyntaxError, ValueError):
        return False
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    packages = {name.partition(".")[0] for name in names}
    return "metaflow" in packages and "evflow" not in packages


def program(file: str, options: Mapping[str, Any] | None = None) -> str:
    """`python train.py`, as it is typed in the folder of now.

    Args:
        file: The flow's file, absolute; empty where the flow has none, or where it is not known.
        options: Those of the run that the hint is about: one of a flow written for Metaflow is started as such.
    """
    main = sys.modules.get("__main__")
    module = getattr(getattr(main, "__spec__", None), "name", "")
    if module and file and getattr(main, "__file__", None) == file:
        return f"python -m {module.removesuffix('.__main__')}"
    try:
        path = os.path.relpath(file) if file else "flow.py"
    except OSError:  # the folder of now is gone
        path = file
    if path.startswith(os.pardir):
        path = file
    if not path.replace("/", "").replace(".", "").replace("_", "").replace("-", "").isalnum():
        import shlex

        path = shlex.quote(path)
    return f"{THROUGH_MODULE if dialect.needs_module(options or {}) else _words} {path}"
