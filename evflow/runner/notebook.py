"""`NBRunner` and `NBDeployer`: run and deploy a flow that a notebook's cell defines.

A flow is run by its file, in every attempt. So the cell becomes one: the lines of the cell that defines the class, up to the
class's end, and a call at the foot. What other cells define is not in it: a cell with a flow has its own imports.
"""

import ast
import linecache
import os
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from evflow.imports import framework_view
from evflow.runner.errors import NoNotebook
from evflow.runner.runner import Runner

if TYPE_CHECKING:
    from evflow.client.run import Run
    from evflow.deployments.deployer import SchedulerDeployer
    from evflow.flow.flowspec import FlowSpec
    from evflow.runner.executing import ExecutingRun, ExecutingTask

_NO_PARENT: Final = {"JPY_PARENT_PID": ""}
"""Jupyter's kernels end with this process; a flow is no kernel."""


class CellFile:
    """The file that a cell becomes; it is there as long as it is wanted.

    Args:
        flow: The class.
        folder: Where the file is made: the flow's folder, which is packaged with it. The current one if not given.

    Raises:
        NoNotebook: The class is of no cell that is known here.
    """

    def __init__(self, flow: "type[FlowSpec]", folder: "str | os.PathLike[str] | None") -> None:
        text = script(flow.__name__, source_of(flow))
        self.folder = Path.cwd() if folder is None else Path(folder).absolute()
        handle, name = tempfile.mkstemp(".py", f"{flow.__name__}_", self.folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        self.path = Path(name)
        self.remove = weakref.finalize(self, _remove, name)


def script(flow: str, cell: str) -> str:
    """The file of a flow that a cell defines. What only a notebook can do (`%magic`, `!pip …`) is left out of it.

    Args:
        flow: The class's name.
        cell: The cell as Python, as IPython makes it of what was typed.

    Raises:
        NoNotebook: The cell defines no class of this name.
    """
    lines = cell.splitlines()
    for node in ast.parse(cell).body:
        end = node.end_lineno or node.lineno
        if isinstance(node, ast.ClassDef) and node.name == flow:
            return "\n".join([*lines[:end], "", "", 'if __name__ == "__main__":', f"    {flow}()", ""])
        if _is_of_the_notebook(node):
            lines[node.lineno - 1 : end] = [f"# {line}" for line in lines[node.lineno - 1 : end]]
    raise NoNotebook(f"The cell does not define the class {flow}.", "Define the flow at the top level of a cell, with its imports.")


def _is_of_the_notebook(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr | ast.Assign) and any(
        isinstance(node, ast.Name) and node.id == "get_ipython" for node in ast.walk(statement)
    )


def source_of(flow: "type[FlowSpec]") -> str:
    """The cell that defines a class: the one that its methods come from, else the newest one that has it.

    Raises:
        NoNotebook: None does.
    """
    for cell in (*_own_cell(flow), *_newest_first()):
        with suppress(SyntaxError):
            if any(isinstance(node, ast.ClassDef) and node.name == flow.__name__ for node in ast.parse(cell).body):
                return cell
    file = getattr(sys.modules.get(flow.__module__), "__file__", None)
    if file:
        raise NoNotebook(f"{flow.__name__} is of a file, {file}, and not of a notebook's cell.", f"Use Runner({file!r}).")
    raise NoNotebook(
        f"No cell is known that defines {flow.__name__}.", "NBRunner runs flows of a notebook; Runner takes the path of a flow's file."
    )


def _own_cell(flow: type) -> Iterator[str]:
    """The source that the class's methods were compiled from: IPython keeps it for tracebacks."""
    for member in vars(flow).values():
        code = getattr(getattr(member, "__wrapped__", member), "__code__", None)
        if code is not None and not Path(code.co_filename).is_file():
            lines = linecache.getlines(code.co_filename)
            if lines:
                yield "".join(lines)


def _newest_first() -> Iterable[str]:
    shell: Any = sys.modules.get("IPython")
    ipython = shell.get_ipython() if shell is not None else None
    if ipython is None:
        return ()
    typed: list[str] = ipython.history_manager.input_hist_raw
    return (ipython.input_transformer_manager.transform_cell(cell) for cell in reversed(typed) if cell)


def _remove(name: str) -> None:
    with suppress(OSError):
        Path(name).unlink()


class NBRunner:
    """Runs a flow that a notebook's cell defines: `NBRunner(TrainFlow).nbrun(alpha=0.5)`.

    Args:
        flow: The class.
        show_output: Print what the process prints; for the calls that block.
        profile: Metaflow's, for a flow that says `import metaflow`.
        env: Environment variables of the process, beside those of this one.
        base_dir: Its working folder, and the folder of the flow's file; the current one if not given.
        file_read_timeout: Seconds that the process may take until its run has begun.
        top_level: Options that stand before the command: see `Runner`.

    Raises:
        NoNotebook: The class is of no cell that is known here.
    """

    def __init__(
        self,
        flow: "type[FlowSpec]",
        show_output: bool = True,
        profile: str | None = None,
        env: Mapping[str, str] | None = None,
        base_dir: "str | os.PathLike[str] | None" = None,
        file_read_timeout: float = 3600,
        **top_level: Any,
    ) -> None:
        self._file = CellFile(flow, base_dir)
        self.runner = Runner(
            self._file.path, show_output, profile, {**_NO_PARENT, **(env or {})}, self._file.folder, file_read_timeout, **top_level
        )

    def nbrun(self, **options: Any) -> "Run":
        """Run the flow, wait until the run is over, clean up; the run itself is returned. Arguments and errors: `Runner.run`."""
        try:
            return self.run(**options).run
        finally:
            self.cleanup()

    def nbresume(self, step_to_rerun: str | None = None, **options: Any) -> "Run":
        """Resume a run, wait, clean up; the new run itself is returned. Arguments and errors: `Runner.resume`."""
        try:
            return self.resume(step_to_rerun, **options).run
        finally:
            self.cleanup()

    def run(self, **options: Any) -> "ExecutingRun":
        """As `Runner.run`."""
        return self.runner.run(**options)

    def resume(self, step_to_rerun: str | None = None, **options: Any) -> "ExecutingRun":
        """As `Runner.resume`."""
        return self.runner.resume(step_to_rerun, **options)

    def spin(self, pathspec: str, **options: Any) -> "ExecutingTask":
        """As `Runner.spin`."""
        return self.runner.spin(pathspec, **options)

    async def async_run(self, **options: Any) -> "ExecutingRun":
        """As `Runner.async_run`. Call `cleanup` when the run is over."""
        return await self.runner.async_run(**options)

    async def async_resume(self, step_to_rerun: str | None = None, **options: Any) -> "ExecutingRun":
        """As `Runner.async_resume`. Call `cleanup` when the run is over."""
        return await self.runner.async_resume(step_to_rerun, **options)

    async def async_spin(self, pathspec: str, **options: Any) -> "ExecutingTask":
        """As `Runner.async_spin`. Call `cleanup` when the task is over."""
        return await self.runner.async_spin(pathspec, **options)

    def cleanup(self) -> None:
        """Cancel what still goes on, and remove the flow's file."""
        self.runner.cleanup()
        self._file.remove()


class NBDeployer:
    """Deploys a flow that a notebook's cell defines: `NBDeployer(TrainFlow).scheduler().create()`. All else is as of `Deployer`.

    Args:
        flow: The class.
        show_output: Show on stderr what the deploying process says.
        profile: Accepted and not used.
        env: Environment variables of the deploying process, beside those of this one.
        base_dir: Its working folder, and the folder of the flow's file, which is packaged; the current one if not given.
        options: `decospecs`, `config`, `config_value`: see `Deployer`.

    Raises:
        NoNotebook: The class is of no cell that is known here.
    """

    def __init__(
        self,
        flow: "type[FlowSpec]",
        show_output: bool = True,
        profile: str | None = None,
        env: Mapping[str, str] | None = None,
        base_dir: "str | os.PathLike[str] | None" = None,
        **options: Any,
    ) -> None:
        with framework_view():
            from evflow.deployments.deployer import Deployer

        self._file = CellFile(flow, base_dir)
        self.deployer = Deployer(self._file.path, show_output, profile, {**_NO_PARENT, **(env or {})}, self._file.folder, **options)

    def scheduler(self, name: str = "default") -> "SchedulerDeployer":
        """As `Deployer.scheduler`."""
        return self.deployer.scheduler(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.deployer, name)

    def cleanup(self) -> None:
        """Remove the flow's file. What was deployed has its code in the store."""
        self._file.remove()
