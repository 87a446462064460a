"""What a step's code is, as far as it can be read: the part of `@cached`'s key that changes when the code does.

The bytecode of the step's function and of the user's decorators around it counts, and of all that they name and that is the user's:
functions, methods of the flow and of classes, whole modules where a module is named, plain values. Of what is installed the version
counts where it says one. Comments, formatting and other steps do not.

What nobody can read from the code is not seen: attributes that are looked up by a text, what is put into a module at run time,
files that are read, the environment. `version=` is for that.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

from evflow.flow.decorators.base import StepDecorator
from evflow.flow.steps import Facts, facts

if TYPE_CHECKING:
    from evflow.flow.user_decorators import UserStepDecorator

_SCALARS: Final = (type(None), bool, int, float, complex, str, bytes)
_FROM_THE_INTERPRETER: Final = frozenset(
    {"__module__", "__qualname__", "__dict__", "__weakref__", "__doc__", "__firstlineno__", "__static_attributes__", "__annotations__", "__slots__"}
)  # fmt: skip
_OF_THE_SCHEDULER: Final = frozenset({"retry", "timeout", "catch", "card", "limit", "pool", "batch", "kubernetes", "resources", "cached"})
"""Decorators that decide when, where and how often a step runs, and not what comes of it."""


def code_digest(cls: type, step: str) -> bytes:
    """A digest of the code that a step runs, and of the decorators that may decide what comes of it.

    Args:
        cls: The flow.
        step: The step.
    """
    reader = _Reader(cls)
    reader.add(("python", sys.version_info[:2]))
    reader.function(facts(cls).steps[step])
    for decorator in facts(cls).decorators(step):
        if decorator.name not in _OF_THE_SCHEDULER:
            reader.decorator(decorator)
    for wrapper in facts(cls).wrapped.get(step, ()):
        reader.user_decorator(wrapper)
    return reader.digest()


def remember(cls: type) -> None:
    """Keep the texts of the user's modules that are loaded by now; before forks, each of which would read them again.

    A file that is changed while the run goes on is another one than what its tasks run: their results would be kept as those of the new text.

    Args:
        cls: The flow.
    """
    reader = _Reader(cls)
    folder = f"{_folder_of(cls)}{os.sep}"
    for module in [*sys.modules.values()]:
        file = str(getattr(module, "__file__", None) or "")
        if file.startswith(folder) and file not in _loaded and reader.is_own(module):
            with suppress(OSError):  # it is gone by now; each attempt meets that itself
                _loaded[file] = sha256(Path(file).read_bytes()).digest()


_loaded: Final[dict[str, bytes]] = {}
"""Digests of the texts of modules, by their files."""


def _text(file: Path) -> bytes:
    """The digest of a module's text: as it was loaded, or of one that the step will load, as it is now."""
    return _loaded.get(str(file)) or sha256(file.read_bytes()).digest()


class _Reader:
    """Walks through code, each piece once, and digests what it meets in the order in which it is named."""

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._facts: Facts = facts(cls)
        self._folder = _folder_of(cls)
        self._seen: set[int] = set()
        self._inside: set[int] = set()  # not `_seen`: whether equal constants are one object depends on how a module was loaded
        self._held: list[object] = []  # keeps the ids of `_seen` from being given to others
        self._sha = sha256()

    def digest(self) -> bytes:
        return self._sha.digest()

    def add(self, value: object) -> None:
        """Digest a value whose `repr` says all of it."""
        text = repr(value).encode("utf-8", "backslashreplace")
        self._sha.update(len(text).to_bytes(8, "little") + text)

    def decorator(self, decorator: StepDecorator) -> None:
        self.add(decorator.name)
        for field, value in sorted(decorator.given.items()):
            self.add(field)
            self.value(value)

    def user_decorator(self, wrapper: "UserStepDecorator") -> None:
        """A decorator around the body that is the user's: its code, and what it was written with."""
        _, name, args, kwargs = wrapper.spec()
        self.add(name)
        self.value(args)
        self.value(kwargs)
        self.value(type(wrapper))

    def function(self, function: object) -> None:
        """A function, and what it names."""
        if not self._is_new(function):
            return
        plain = cast("Any", function)
        code = getattr(plain, "__code__", None)
        if not isinstance(code, CodeType):
            self.add(getattr(plain, "__qualname__", type(function).__name__))
            return
        self.value(plain.__defaults__)
        self.value(plain.__kwdefaults__)
        closure = {name: _content(cell) for name, cell in zip(code.co_freevars, plain.__closure__ or (), strict=True)}
        self._code(code, plain.__globals__, closure)
        wrapped = getattr(plain, "__wrapped__", None)
        if wrapped is not None:
            self.value(wrapped)

    def value(self, value: object) -> None:
        """Whatever a name stands for."""
        kind = type(value).__name__
        if isinstance(value, _SCALARS):
            self.add(value)
        elif isinstance(value, tuple | list):
            self._many(kind, cast("tuple[object, ...]", value))
        elif isinstance(value, set | frozenset):
            self._many(kind, sorted(cast("set[object]", value), key=repr))
        elif isinstance(value, Mapping):
            pairs = cast("Mapping[object, object]", value)
            self._many(kind, [one for pair in sorted(pairs.items(), key=lambda pair: repr(pair[0])) for one in pair])
        elif isinstance(value, partial):
            parts = cast("partial[object]", value)
            self._many("partial", [parts.func, parts.args, parts.keywords])
        elif isinstance(value, ModuleType):
            self._module(value)
        elif isinstance(value, MethodType):
            self.value(value.__func__)
        elif isinstance(value, property):
            self._many("property", [value.fget, value.fset])
        elif isinstance(value, staticmethod | classmethod):
            self.value(cast("Any", value).__func__)
        elif isinstance(value, CodeType):
            self._code(value, {}, {})
        elif isinstance(value, FunctionType | type):
            self._definition(value)
        elif isinstance(value, BuiltinFunctionType):
            self.add(value.__qualname__)
        else:
            self._instance(value)

    def _instance(self, value: object) -> None:
        """An object of a class, of which its class is what can be read, and for one that wraps a function (`functools.cache`) that."""
        self._definition(type(value))
        wrapped = getattr(value, "__wrapped__", None)
        if isinstance(wrapped, FunctionType):
            self.value(wrapped)

    def _many(self, kind: str, values: "list[object] | tuple[object, ...]") -> None:
        self.add((kind, len(values)))
        if id(values) in self._inside:  # it contains itself
            return
        self._inside.add(id(values))
        for one in values:
            self.value(one)
        self._inside.discard(id(values))

    def _definition(self, definition: "FunctionType | type") -> None:
        """A function or a class: all of it where it is the user's, else its name and the version of what it is from."""
        module = sys.modules.get(definition.__module__ or "")
        self.add(definition.__qualname__)
        if not self.is_own(module):
            self._installed(definition.__module__ or "")
        elif isinstance(definition, FunctionType):
            self.function(definition)
        elif definition is not self._cls:
            self._class(definition)

    def _class(self, cls: type) -> None:
        if not self._is_new(cls):
            return
        for base in cls.__bases__:
            self.value(base)
        for name, member in sorted(cls.__dict__.items()):
            if name not in _FROM_THE_INTERPRETER:
                self.add(name)
                self.value(member)

    def _module(self, module: ModuleType) -> None:
        """A module: its text where it is the user's, since nobody knows which of its names are used how."""
        self.add(module.__name__)
        if not self.is_own(module):
            self._installed(module.__name__)
        elif self._is_new(module):
            file = Path(str(module.__file__))
            files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
            for one in files:
                self._sha.update(_text(one))

    def _installed(self, name: str) -> None:
        version = getattr(sys.modules.get(name.partition(".")[0]), "__version__", "")
        self.add((name, version if isinstance(version, str) else ""))

    def _code(self, code: CodeType, names: Mapping[str, object], closure: Mapping[str, object]) -> None:
        """A piece of bytecode, without where it stands."""
        self.add((code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_argcount, code.co_flags))
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._code(constant, names, closure)
            else:
                self.value(constant)
        for name in (*code.co_names, *code.co_freevars):
            self._named(name, names, closure)

    def _named(self, name: str, names: Mapping[str, object], closure: Mapping[str, object]) -> None:
        """What a name may stand for: a variable of the module or of a function around, a member of the flow, a module that is imported there."""
        if name in closure:
            self.value(closure[name])
        elif name in names:
            self.value(names[name])
        for member in self._members(name):
            self.value(member)
        module = None if name in names else self._imported_there(name)
        if module is not None:
            self.value(module)

    def _members(self, name: str) -> Iterator[object]:
        """What the flow's class has under a name and is no step: methods, properties, and values that are no constant of the run."""
        if name in self._facts.steps or name in self._facts.constants or name in self._facts.parameters:
            return
        for base in self._cls.__mro__:
            if name in base.__dict__ and self.is_own(sys.modules.get(base.__module__)):
                yield base.__dict__[name]
                return

    def _imported_there(self, name: str) -> ModuleType | None:
        """A module of the user's that is imported when the step runs, whether it is loaded by now or not."""
        if not self._folder or not all(part.isidentifier() for part in name.split(".")):
            return None
        place = self._folder.joinpath(*name.split("."))
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                found = ModuleType(name)
                found.__file__ = str(file)
                return found
        return None

    def is_own(self, module: ModuleType | None) -> bool:
        """Whether a module is the user's: the flow's own, or a file below its folder that is no installed one."""
        if module is None or module.__name__ in ("__main__", self._cls.__module__):
            return module is not None
        file = getattr(module, "__file__", None)
        if not self._folder or not file:
            return False
        place = Path(str(file))
        return place.is_relative_to(self._folder) and "site-packages" not in place.parts and "dist-packages" not in place.parts

    def _is_new(self, value: object) -> bool:
        if id(value) in self._seen:
            self.add("again")
            return False
        self._seen.add(id(value))
        self._held.append(value)
        return True


def _folder_of(cls: type) -> Path | None:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return Path(str(file)).absolute().parent if file else None


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that was never set
        return None
