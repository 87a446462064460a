"""Finds `metaflow` and its submodules: modules without a file, whose names are evflow's and are loaded when they are asked for.

The finder stands first in `sys.meta_path` and answers for every name below `metaflow`, so that no part of an installed Metaflow mixes in.
A name that is not there is one sentence, whether it is imported or read: what is missing, and where the page of what works is.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

from evflow.compat.metaflow.modules import MODULES
from evflow.errors import did_you_mean
from evflow.imports import framework_view

ROOT: Final = "metaflow"


class Part(ModuleType):
    """`metaflow` or one of its submodules."""

    def __getattr__(self, name: str) -> Any:
        names = MODULES[self.__name__]
        if name == "__all__":
            return [public for public in names if not public.startswith("_") and hasattr(self, public)]
        below = f"{self.__name__}.{name}"
        if name not in names and below in MODULES:
            return import_module(below)
        if name not in names:
            raise AttributeError(_unknown(self.__name__, name, names))
        home, _, attribute = names[name].partition(":")
        with framework_view():
            try:
                value = getattr(import_module(home), attribute or name)
            except (AttributeError, ModuleNotFoundError) as error:
                if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("evflow"):
                    raise  # something else is not installed, and the error says what
                raise AttributeError(_missing(below)) from None
        self.__dict__[name] = value
        return value

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *MODULES[self.__name__]})


class _Loader(Loader):
    """Makes a part; the first one, which is always the root, gives evflow's errors their names."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Part(spec.name, f"evflow, in the place of {spec.name}.")

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == ROOT:
            with framework_view():
                from evflow.compat.metaflow import errors

                errors.rename()
            if FINDER.has_rules:
                _begin()


def _begin() -> None:
    with framework_view():
        from evflow.compat.metaflow.rules import begin

        begin()


class _Finder(MetaPathFinder):
    """Answers for `metaflow` and for everything below it.

    Attributes:
        has_rules: With the import, Metaflow's rules are in force.
    """

    has_rules = False

    def say_rules(self, is_imported: bool) -> None:
        """Have Metaflow's rules with the import, or at once where that was before."""
        if is_imported and not self.has_rules:
            _begin()
        self.has_rules = True

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != ROOT and not fullname.startswith(f"{ROOT}."):
            return None
        if fullname in MODULES:
            return ModuleSpec(fullname, _LOADER, is_package=True)
        above, _, name = fullname.rpartition(".")
        names = MODULES.get(above, {})
        text = _missing(fullname) if name in names else _unknown(above, name, names)
        # With the name of the root: `from metaflow import x` looks for a module metaflow.x last, and has a poorer sentence of its own
        # for one that is not found.
        raise ModuleNotFoundError(text, name=ROOT)


def _missing(what: str) -> str:
    return f"This version of evflow has nothing that stands for {what} (docs/metaflow.md lists what works)."


def _unknown(module: str, name: str, names: Mapping[str, str]) -> str:
    return f"evflow knows no '{name}' in {module} (docs/metaflow.md lists what works).{did_you_mean(name, names)}"


_LOADER: Final = _Loader()
FINDER: Final = _Finder()


def is_ours(module: object) -> bool:
    """Whether a module stands for a part of Metaflow."""
    return isinstance(module, Part)
