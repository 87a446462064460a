"""A run's artifacts: its store, its manifests, and the code that the classes of `__main__` are from."""

import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from evflow import config
from evflow.client.errors import DataElsewhere
from evflow.errors import EnvironmentProblem
from evflow.imports import framework_view, user_view
from evflow.store import ObjectMissing, Store, open_store
from evflow.store.artifacts import ArtifactNotLoadable, ArtifactView, Entry, load_entry, load_item

if TYPE_CHECKING:
    from evflow.client.history import RunHistory

T = TypeVar("T")

KEPT_VIEWS = 256
"""Manifests of a run that stay in memory: the tasks of a foreach that set nothing share one, others have one each."""

KEPT_NAMES = 10_000
"""Manifests whose names stay in memory."""


class RunData:
    """What a run's tasks left behind in its store."""

    def __init__(self, history: "RunHistory") -> None:
        self._history = history
        header = history.known().header
        self._host: str = header.get("host") or ""
        self._package: bytes | None = history.code().get("package")
        self._url: str = header.get("store") or config.get("store")
        self._stores = [open_store(self._url)]
        configured: str = config.get("store")
        if configured != self._url:
            self._stores.append(open_store(configured))  # a store that was moved is found by the setting
        self._names: dict[bytes, tuple[str, ...]] = {}
        self._public: dict[bytes, tuple[str, ...]] = {}
        self._views: OrderedDict[bytes, ArtifactView] = OrderedDict()

    def view(self, manifest: bytes) -> ArtifactView:
        """The artifacts that a manifest names.

        Raises:
            DataElsewhere: It lies on another machine.
            ObjectMissing: It is nowhere.
            ObjectDamaged: It is not what was written.
        """
        found = self._views.get(manifest)
        if found is None:
            found = self._views[manifest] = self._from_store(lambda store: ArtifactView.open(store, manifest))
            if len(self._views) > KEPT_VIEWS:
                self._views.popitem(last=False)
        return found

    def names(self, manifest: bytes) -> tuple[str, ...]:
        """The names of the artifacts of a manifest, sorted; errors as for `view`."""
        found = self._names.get(manifest)
        if found is None:
            found = self._names[manifest] = tuple(self.view(manifest).names())
            if len(self._names) > KEPT_NAMES:
                del self._names[next(iter(self._names))]
        return found

    def public_names(self, manifest: bytes) -> tuple[str, ...]:
        """Those that do not begin with `_`; errors as for `view`."""
        found = self._public.get(manifest)
        if found is None:
            found = self._public[manifest] = tuple(name for name in self.names(manifest) if not name.startswith("_"))
            if len(self._public) > KEPT_NAMES:
                del self._public[next(iter(self._public))]
        return found

    def load(self, name: str, entry: Entry) -> Any:
        """An artifact's value.

        Raises:
            ArtifactNotLoadable: A module or class is missing here, or a class raises.
            DataElsewhere, ObjectMissing, ObjectDamaged: As for `view`.
        """

        def from_(store: Store) -> Any:
            with user_view():
                return load_entry(store, entry, name=name, main=self._main(store))

        return self._with_modules_of_the_package(lambda: self._from_store(from_))

    def item(self, items: bytes, index: int) -> Any:
        """An item of a foreach; errors as for `load`."""

        def from_(store: Store) -> Any:
            with user_view():
                return load_item(store, items, index, main=self._main(store))

        return self._with_modules_of_the_package(lambda: self._from_store(from_))

    def text(self, digest: bytes) -> str:
        """An object that is a text; errors as for `view`."""
        return bytes(self._from_store(lambda store: store.get(digest))).decode("utf-8", "replace")

    def store(self) -> Store:
        """The run's store."""
        return self._stores[0]

    def _from_store(self, read: Callable[[Store], T]) -> T:
        missing: ObjectMissing | None = None
        for store in self._stores:
            try:
                return read(store)
            except ObjectMissing as error:
                missing = missing or error
        assert missing is not None
        host = os.uname().nodename
        if self._host and self._host != host:
            raise DataElsewhere(f"The data of Run '{self._history.run}'", self._host, f"the store {self._url}", missing.where) from missing
        raise missing

    # --- code -----------------------------------------------------------------------------------------------

    def _main(self, store: Store) -> Any:
        from evflow.client.code import main_resolver

        return main_resolver(store, self._package, self._history.code().get("file") or "")

    def _with_modules_of_the_package(self, load: Callable[[], T]) -> T:
        """Load; where a module is missing that lay beside the flow, once more with the package's folder on the path."""
        try:
            return load()
        except ArtifactNotLoadable as error:
            if self._package is None or not isinstance(error.__cause__, ModuleNotFoundError):
                raise
            from evflow.client.code import folder_of

            package = self._package
            try:
                with framework_view():
                    folder = str(self._from_store(lambda store: folder_of(store, package)))
            except EnvironmentProblem:
                raise error from None
            name = (error.__cause__.name or "").partition(".")[0]
            if not any(os.path.exists(f"{folder}/{name}{suffix}") for suffix in (".py", "/__init__.py")):  # noqa: PTH110
                raise
        sys.path.append(folder)  # behind everything else: it stands in for what is missing, and shadows nothing
        try:
            return load()
        finally:
            sys.path.remove(folder)
