"""Loading a user's file so that nothing starts: in a worker, a client, a spawned attempt.

The file runs as `__main__`, as it does under `python flow.py`, so that pickled objects of its classes are found
there; `F()` at its foot sees that it is being loaded and returns. `FlowSpec` imports this module, so it imports
next to nothing.
"""

import sys
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

from evflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evflow.flow.flowspec import FlowSpec

MAIN: Final = "__main__"

_started: "list[type] | None" = None
"""While a file is being loaded: the flows whose `F()` it called. None while nothing is loaded."""
_inert = False


class FlowFileUnreadable(UsageError):
    """The file is not there, or cannot be read."""

    code = "flow-file-unreadable"

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"The flow's file {file} cannot be read: {why}.", "Is the path right?")


class FlowFileBroken(UsageError):
    """The file has a syntax error."""

    code = "flow-file-broken"

    def __init__(self, file: str, error: SyntaxError) -> None:
        shown = f"\n    {error.text.strip()}" if error.text else ""
        super().__init__(f"{error.filename or file}:{error.lineno}: {type(error).__name__}: {error.msg}{shown}", "Mend this line.")


class FlowFileRaised(UsageError):
    """The file raised an exception while it was loaded.

    Attributes:
        traceback: The user's frames.
        raised: The exception.
    """

    code = "flow-file-raised"

    def __init__(self, file: str, traceback: str, raised: BaseException) -> None:
        super().__init__(f"{file} raised an exception while it was loaded:\n{traceback.rstrip()}")
        self.traceback = traceback
        self.raised = raised


class NoFlowInFile(UsageError):
    """The file defines no flow, or not the one that was asked for."""

    code = "no-flow-in-file"

    def __init__(self, file: str, name: str | None, found: "Sequence[str]") -> None:
        what = f"no flow '{name}'" if name else "no flow"
        hint = f"It defines: {', '.join(found)}." if found else "A flow is a class that derives from evflow.FlowSpec."
        super().__init__(f"{file} defines {what}.", hint)


class SeveralFlowsInFile(UsageError):
    """The file defines several flows, and nothing says which is meant."""

    code = "several-flows-in-file"

    def __init__(self, file: str, found: "Sequence[str]") -> None:
        super().__init__(
            f"{file} defines several flows: {', '.join(found)}.", f"Name one of them, or start one at the foot of the file: {found[-1]}()."
        )


def is_inert(cls: type) -> bool:
    """Whether instantiating a flow starts nothing now. Called by `FlowSpec.__init__`, which it takes note of."""
    if _started is not None:
        _started.append(cls)
    return _inert


def stay_inert() -> None:
    """From now on no flow of this process starts a command line: the process belongs to a task or a client."""
    global _inert
    _inert = True


class inert:  # noqa: N801 - used like a function; contextlib is not for a module that every flow imports
    """A context in which no flow starts a command line: code of somebody's is being loaded for its classes."""

    def __enter__(self) -> None:
        global _inert
        self._before = _inert
        _inert = True

    def __exit__(self, *_: object) -> None:
        global _inert
        _inert = self._before


def load_flow(file: str, class_name: str | None = None) -> "type[FlowSpec]":
    """Run a user's file as `__main__`, without starting its flow, and return the flow's class.

    The module takes the place of `__main__` for good, the file's folder goes to the front of `sys.path`; on an
    error both are as before. Call it in the user's view of imports (`evflow.imports`).

    Args:
        file: The file's path.
        class_name: The flow's name; without it, the flow that the file starts, or the only one that it defines.

    Raises:
        FlowFileUnreadable: There is no such file.
        FlowFileBroken: It has a syntax error.
        FlowFileRaised: It raised an exception.
        NoFlowInFile: It defines no flow, or none of that name.
        SeveralFlowsInFile: It defines several, and none of them is named or started.
    """
    global _inert, _started
    import os

    path = os.path.abspath(file)  # noqa: PTH100 - pathlib costs a fork server 5 ms
    code = compiled(path)
    module = _main_module(path)
    before, path_before = sys.modules.get(MAIN), list(sys.path)
    outer, was_inert = _started, _inert
    _started, _inert = [], True
    sys.modules[MAIN] = module
    folder = os.path.dirname(path)  # noqa: PTH120
    package, root = _package(folder)
    module.__package__ = package
    # The file may have been started as `python flow.py` or as `python -m package.flow`.
    sys.path[:0] = [entry for entry in dict.fromkeys((folder, root)) if entry not in sys.path]
    try:
        _execute(code, module, path)
        return _chosen(path, module, class_name, _started)
    except BaseException:
        sys.path[:] = path_before
        if before is not None:
            sys.modules[MAIN] = before
        raise
    finally:
        _started, _inert = outer, was_inert


def compiled(path: str) -> CodeType:
    """A user's file as code.

    Raises:
        FlowFileUnreadable: There is no such file.
        FlowFileBroken: It has a syntax error.
    """
    try:
        with open(path, "rb") as source:  # noqa: PTH123
            text = source.read()
    except OSError as error:
        raise FlowFileUnreadable(path, error.strerror or str(error)) from None
    try:
        return compile(text, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise FlowFileBroken(path, error) from None
    except ValueError as error:  # null bytes
        raise FlowFileUnreadable(path, str(error)) from None


def _main_module(path: str) -> ModuleType:
    module = ModuleType(MAIN)
    module.__file__ = path
    module.__dict__.update(__builtins__=__builtins__, __cached__=None, __annotations__={})
    return module


def _package(folder: str) -> tuple[str, str]:
    """The package that a folder is, and the folder that the package is imported from; an empty name for a plain folder."""
    import os

    names: list[str] = []
    while os.path.exists(os.path.join(folder, "__init__.py")):  # noqa: PTH110, PTH118
        folder, name = os.path.split(folder)
        names.insert(0, name)
    return ".".join(names), folder


def _execute(code: CodeType, module: ModuleType, path: str) -> None:
    try:
        exec(code, module.__dict__)  # noqa: S102 - it is the user's own program
    except SyntaxError as error:  # of a module that the file imports
        raise FlowFileBroken(path, error) from None
    except (Exception, SystemExit) as error:
        from evflow.flow.tracebacks import user_traceback

        if isinstance(error, UsageError):
            raise
        raise FlowFileRaised(path, user_traceback(error), error) from None


def _chosen(path: str, module: ModuleType, name: str | None, started: "Sequence[type]") -> "type[FlowSpec]":
    from evflow.flow.flowspec import FlowSpec

    def is_flow(value: object) -> bool:
        return isinstance(value, type) and issubclass(value, FlowSpec) and value is not FlowSpec

    reachable: dict[str, Any] = {value.__name__: value for value in vars(module).values() if is_flow(value)}
    own = {key: value for key, value in reachable.items() if value.__module__ == MAIN}
    if name is not None:
        named = {cls.__name__: cls for cls in started} | reachable
        if name not in named:
            raise NoFlowInFile(path, name, list(own))
        return cast("type[FlowSpec]", named[name])
    if started:
        return cast("type[FlowSpec]", started[0])
    bases = {base for value in own.values() for base in value.__mro__[1:]}
    leaves = [value for value in own.values() if value not in bases]
    if not leaves:
        raise NoFlowInFile(path, None, list(own))
    if len(leaves) > 1:
        raise SeveralFlowsInFile(path, [value.__name__ for value in leaves])
    return cast("type[FlowSpec]", leaves[0])
