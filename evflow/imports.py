"""Keeps the user's modules and the framework's apart where they have the same name.

A folder with `flow.py` may also hold a `redis.py`, a `click.py`, a `rich/`. Python puts that folder before
everything else, so the framework would import the user's module as its own. Here two *views* of the import
system exist, and each side sees its own:

* In the **user's view** everything is as Python has it: the user's folder comes first.
* In the **framework's view** the user's folder is not on `sys.path`, and the modules in `sys.modules` whose name
  both sides use are the framework's.

The rules: a process starts in the user's view. Where the user's folder is on its path, it imports the
framework's parts within `framework_view()` and runs the user's code within `user_view()`; they nest. Which names
are shared is found out once, by listing folders, and again only when `sys.path` was changed. Where none is
shared, which is nearly always so, a view is one assignment. A name that was loaded from elsewhere before the
user's folder was asked for it (`os`, `io`) is not shared: Python would give that one to the user as well.

The views are those of the whole process, not of a thread: a thread of the user's that imports while the
framework imports may see either side. That can happen only where a name is shared.

This module is imported before everything else of the framework, while the user's folder still comes first.
Therefore it imports nothing that the interpreter has not loaded at its start, `typing` included.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType, TracebackType
    from typing import Any, Final

_AT_START: Final = frozenset(sys.modules)
_OURS: Final = frozenset({"evflow", "evflow_scheduler", "evflow_executors", "__main__"})
_HOME: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib is a heavy import


def public(namespace: dict[str, Any], homes: Mapping[str, str], name: str) -> Any:
    """A public name of a package, which is loaded at its first use and kept there; for the package's `__getattr__`.

    Args:
        namespace: The package's globals.
        homes: Public name to the module that defines it.
        name: The name.

    Raises:
        AttributeError: It is none of them.
    """
    home = homes.get(name)
    if home is None:
        raise AttributeError(f"module '{namespace['__name__']}' has no attribute '{name}'")
    from importlib import import_module

    with framework_view():
        value = namespace[name] = getattr(import_module(home), name)
    return value


def framework_view() -> View:
    """A context in which imports see the framework's modules and never the user's folder."""
    return View(framework=True)


def user_view() -> View:
    """A context in which imports see what the user's code sees."""
    return View(framework=False)


def set_user_folder(folder: str) -> None:
    """Say which folder holds the user's modules, where the process was not started as `python flow.py`.

    Call it in the framework's view, before the folder is put on `sys.path`.
    """
    _state.folder = _real(folder)
    _state.scanned = None
    if _state.framework:
        _state.look()


def shared_names() -> frozenset[str]:
    """The top-level names that the user's folder and something else on the path both offer."""
    return _state.names


class View:
    """Switches the process to one view, and back at the end. Made by `framework_view` and `user_view`."""

    __slots__ = ("_before", "_framework")

    def __init__(self, *, framework: bool) -> None:
        self._framework = framework

    def __enter__(self) -> None:
        self._before = _state.framework
        if self._framework is not self._before:
            _state.switch(self._framework)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if _state.framework is not self._before:
            _state.switch(self._before)


class _State:
    """The view in force, and what the other one keeps.

    Attributes:
        framework: The view in force is the framework's.
        folder: The user's folder, absolute, or an empty string.
        names: The shared names.
        scanned: `sys.path`, in the user's view, as it was when the names were found out.
        kept: Modules with shared names that belong to the view that is not in force.
        hidden: The user's entries of `sys.path` with their places, while they are not on it.
    """

    def __init__(self) -> None:
        self.framework = False
        self.folder = _script_folder()
        self.names: frozenset[str] = frozenset()
        self.scanned: list[str] | None = None
        self.kept: dict[str, ModuleType] = {}
        self.hidden: list[tuple[int, str]] = []

    def switch(self, framework: bool) -> None:
        if framework and sys.path != self.scanned:
            self.look()
        self.framework = framework
        if not self.names:
            return
        leaving = self._take(self.names)
        sys.modules.update(self.kept)
        self.kept = leaving
        if framework:
            self._hide()
        else:
            self._show()

    def look(self) -> None:
        """Find out the shared names."""
        self.scanned = list(sys.path)
        mine = [entry for entry in sys.path if self._is_users(entry)]
        if self.folder and self.folder != _HOME and self.folder not in map(_real, mine):
            mine.append(self.folder)
        offered = frozenset[str]().union(*map(_modules_in, mine)) - _OURS
        shared = offered & sys.stdlib_module_names
        if offered:
            for entry in sys.path:
                if entry not in mine:
                    shared |= offered & _modules_in(entry)
        self.names |= frozenset(name for name in shared if name in self.names or not self._settled(name))

    def _settled(self, name: str) -> bool:
        """The name was loaded from elsewhere before the user's folder could be asked for it."""
        module = sys.modules.get(name)
        if module is None or (self.framework and name not in _AT_START):
            return False
        return not self._is_users(os.path.dirname(_file_of(module)))  # noqa: PTH120

    def _is_users(self, entry: str) -> bool:
        if entry in {"", "."}:
            return _real(".") != _HOME
        place = _real(entry)
        if not self.folder or place == _HOME or not _is_below(place, self.folder):
            return False
        return place == self.folder or not any(_is_below(place, _real(root)) for root in (sys.prefix, sys.base_prefix, _HOME))

    def _take(self, names: frozenset[str]) -> dict[str, ModuleType]:
        keys = [key for key in sys.modules if key.partition(".")[0] in names]
        return {key: sys.modules.pop(key) for key in keys}

    def _hide(self) -> None:
        self.hidden = [(index, entry) for index, entry in enumerate(sys.path) if self._is_users(entry)]
        for _, entry in self.hidden:
            sys.path.remove(entry)

    def _show(self) -> None:
        for index, entry in self.hidden:
            if entry not in sys.path:
                sys.path.insert(index, entry)
        self.hidden = []


def _script_folder() -> str:
    """The folder that Python itself put first: that of `python flow.py`, links followed, or with `-m` the current one."""
    if sys.flags.safe_path or not sys.path:
        return ""
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None)
    # While `-m` imports the packages above its module, argv says so and __main__ is empty yet.
    if sys.argv[:1] == ["-m"] or (script and getattr(main, "__spec__", None) is not None):
        places = [_real("."), _real(sys.path[0])]
    elif script:
        places = [os.path.dirname(_real(script)), _real(os.path.dirname(script))]  # noqa: PTH120
    else:
        return ""
    on_path = set(map(_real, sys.path))
    return next((place for place in places if place in on_path), "")


def _modules_in(folder: str) -> frozenset[str]:
    """The top-level names that can be imported from a folder.

    A folder without `__init__.py` does not count: Python prefers any regular module of that name.
    """
    try:
        with os.scandir(folder or ".") as entries:
            return frozenset(name for entry in entries if (name := _module_name(entry)))
    except OSError:
        return frozenset()


def _module_name(entry: os.DirEntry[str]) -> str:
    name, dot, suffix = entry.name.partition(".")
    if not name.isidentifier():
        return ""
    if not dot:
        return name if os.path.exists(f"{entry.path}/__init__.py") else ""  # noqa: PTH110
    return name if suffix in {"py", "pyc", "so"} or suffix.endswith((".so", ".pyd")) else ""


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or ""


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except FileNotFoundError:  # a relative one, and the current folder was removed under this process
        return ""


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


_state: Final = _State()
