"""The code that a run ran: `run.code`, and the module that was `__main__` there."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Self

from evflow import config
from evflow.client.errors import CodeMissing
from evflow.errors import EvflowError
from evflow.flow import dialect, loading
from evflow.imports import framework_view, user_view
from evflow.store.artifacts import Code
from evflow.store.packages import extract, unpacked
from evflow.store.protocol import ObjectStore

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from evflow.client.history import RunHistory

_MODULES = "evflow_main_"
"""What a loaded flow's file is called in `sys.modules`, so that its classes can be pickled here again."""


class RunCode:
    """The code package of a run.

    Attributes:
        script_name: The flow's file, relative to the package.
        package: SHA-256 of the package.
    """

    def __init__(self, history: "RunHistory", package: bytes, file: str) -> None:
        self._history = history
        self._digest = package
        self.script_name = Path(file).name
        self.package = package.hex()

    @classmethod
    def of(cls, history: "RunHistory") -> Self | None:
        """The code of a run, or None where no package was made."""
        code = history.code()
        package: bytes | None = code.get("package")
        return cls(history, package, code.get("file") or "") if package else None

    @property
    def info(self) -> dict[str, str]:
        """What the code ran with."""
        from evflow.client.task import environment_of

        return environment_of(self._history)

    @property
    def path(self) -> str:
        """Where the package is."""
        return self._store.where(self._digest)

    @property
    def flowspec(self) -> str:
        """The text of the flow's file.

        Raises:
            ObjectMissing: The store has not the package.
        """
        return (folder_of(self._store, self._digest) / self.script_name).read_text("utf-8")

    def extract(self) -> "TemporaryDirectory[str]":
        """Unpack the code into a folder that goes away with the object: `with run.code.extract() as folder:`.

        Raises:
            ObjectMissing: The store has not the package.
        """
        from tempfile import TemporaryDirectory

        folder = TemporaryDirectory(prefix="evflow-code-")
        try:
            extract(self._store, self._digest, Path(folder.name))
        except BaseException:
            folder.cleanup()
            raise
        return folder

    @property
    def _store(self) -> ObjectStore:
        return self._history.data.store()

    def __repr__(self) -> str:
        return f"<RunCode of {self._history.run}: {self.script_name}, {self.package[:12]}>"


def folder_of(store: ObjectStore, package: bytes) -> Path:
    """A folder with a package's code, unpacked at most once on this machine."""
    return unpacked(store, package, config.home() / "cache")


def main_resolver(store: ObjectStore, package: bytes | None, file: str) -> Callable[[Code | None], ModuleType]:
    """What loads the module that was `__main__` where a value was made.

    Args:
        store: Where packages are.
        package: The run's package, for values that name none themselves.
        file: The run's file.
    """

    def resolve(code: Code | None) -> ModuleType:
        named = code.package if code is not None and code.package else package
        script = code.file if code is not None and code.file else Path(file).name
        if named is None:
            raise CodeMissing(script, "the run has no code package")
        name = f"{_MODULES}{named.hex()[:16]}_{Path(script).stem}"
        loaded = sys.modules.get(name)
        return loaded if loaded is not None else _load(name, store, named, script)

    return resolve


def _load(name: str, store: ObjectStore, package: bytes, script: str) -> ModuleType:
    """Run a flow's file as a module of this name; `F()` at its foot starts nothing."""
    try:
        with framework_view():
            folder = folder_of(store, package)
    except EvflowError as error:
        raise CodeMissing(script, error.message) from error
    path = folder / script
    try:
        source = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (OSError, SyntaxError) as error:
        raise CodeMissing(script, str(error)) from error
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    sys.path.insert(0, str(folder))
    try:
        with user_view(), loading.inert():
            try:
                exec(source, module.__dict__)  # noqa: S102 - it is the program that made the value
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] != dialect.METAFLOW:
                    raise
                from evflow.compat.metaflow import install_to_read

                install_to_read()
                exec(source, module.__dict__)  # noqa: S102 - as above
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(folder))
    return module
