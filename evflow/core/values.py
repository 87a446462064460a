"""Values: immutable to the type checkers, cheap to define and to build.

A frozen dataclass sets each field through `object.__setattr__`, which makes building one four to ten times as dear as
building a plain one (1.3 against 0.2 microseconds for six fields), and a replay builds two for each event. Defining one
takes half a millisecond, most of it for compiling methods that all classes could share, and every command that somebody
waits for defines some seventy. So the promise not to change is kept where it costs nothing: assigning to a field is an
error of mypy and pyright, which the build runs; comparison, hash and text are the same functions for all; and `__init__` is
compiled when the first one is built, since most commands build few kinds of the many that they define.

An `entity` is defined in the same way and is not a value: it changes, and is equal to itself alone.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from types import GenericAlias, UnionType
from typing import Any, ClassVar, TypeVar, cast, dataclass_transform, get_origin

_T = TypeVar("_T")


class _Fresh:
    """A default that is made for each value."""

    __slots__ = ("default_factory",)

    def __init__(self, default_factory: Callable[[], Any]) -> None:
        self.default_factory = default_factory


def field(*, default_factory: Callable[[], _T]) -> _T:
    """A field whose default is made anew for each value."""
    return cast("_T", _Fresh(default_factory))


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[_T]) -> type[_T]:
    """Make a slotted class of annotated fields that nobody sets; equal and hashable by them.

    It is a dataclass to type checkers and, by way of `__dataclass_fields__`, to `dataclasses.replace` and its kin. It is
    made without that module, which pulls in `inspect`, `ast`, `dis` and `tokenize`: 8 ms of every start, and 2 MB that
    every fork of a worker would copy the tables of.
    """
    return _slotted(cls, __eq__=_equal, __hash__=_hash)


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def entity(cls: type[_T]) -> type[_T]:
    """Make a slotted class of annotated fields that its owner sets; each is equal to itself alone."""
    return _slotted(cls)


def _slotted(cls: type[_T], **methods: Any) -> type[_T]:
    names = tuple(name for name, kind in cls.__annotations__.items() if cast("object", get_origin(kind)) is not ClassVar)
    body: Any = {name: member for name, member in cls.__dict__.items() if name not in ("__dict__", "__weakref__")}
    defaults = {name: body.pop(name) for name in names if name in body}

    def compiled() -> Any:
        init = cast("Any", made).__init__ = _constructor(names, defaults, cls.__qualname__)
        _uncompiled.pop(made, None)
        return init

    def first(self: Any, *given: Any, **named: Any) -> None:
        compiled()(self, *given, **named)

    body.update(methods, __slots__=names, __match_args__=names, __init__=first, __dataclass_fields__=_Fields(defaults))
    body.setdefault("__repr__", _text)
    made = cast("type[_T]", type(cls.__name__, cls.__bases__, body))
    _uncompiled[made] = compiled
    _DEFAULTS[made] = defaults
    return made


_uncompiled: dict[type, Callable[[], Any]] = {}
_DEFAULTS: dict[type, dict[str, Any]] = {}


def compile_all() -> None:
    """Compile now what would be compiled at its first use: before forks, each of which would do it again."""
    for compiled in list(_uncompiled.values()):
        compiled()


def _constructor(names: tuple[str, ...], defaults: Mapping[str, Any], owner: str) -> Any:
    """`__init__`, compiled, since it is called a hundred thousand times."""
    arguments = ", ".join(f"{name}=_{name}" if name in defaults else name for name in names)
    lines = [
        f" self.{name} = _{name}.default_factory() if {name} is _{name} else {name}"
        if isinstance(defaults.get(name), _Fresh)
        else f" self.{name} = {name}"
        for name in names
    ]
    made: dict[str, Any] = {f"_{name}": default for name, default in defaults.items()}
    exec(f"def __init__(self, {arguments}):\n" + "\n".join(lines or [" pass"]), made)  # noqa: S102 - names of fields, nothing else
    made["__init__"].__qualname__ = f"{owner}.__init__"
    return made["__init__"]


def making(it: str, cls: type, given: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The statements that make a value without a call, for code that is compiled elsewhere, and the names that they use.

    Args:
        it: The variable that will hold it.
        cls: A value's class.
        given: Expressions for its first fields; the others take their defaults.
    """
    names: tuple[str, ...] = cast("Any", cls).__match_args__
    defaults = {f"{it}_{name}": _DEFAULTS[cls][name] for name in names[len(given) :]}
    others = [f"{name}.default_factory()" if isinstance(default, _Fresh) else name for name, default in defaults.items()]
    lines = [f"{it} = new({it}_class)", *(f"{it}.{name} = {source}" for name, source in zip(names, [*given, *others], strict=True))]
    return lines, {"new": object.__new__, f"{it}_class": cls, **defaults}


class _Fields:
    """`__dataclass_fields__`, made when somebody asks for it."""

    def __init__(self, defaults: Mapping[str, Any]) -> None:
        self._defaults = defaults

    def __get__(self, _: object, owner: type) -> Any:
        import dataclasses

        body: dict[str, Any] = {
            name: dataclasses.field(default_factory=default.default_factory) if isinstance(default, _Fresh) else default
            for name, default in self._defaults.items()
        }
        made: Any = dataclasses.dataclass(type(owner.__name__, (), {"__annotations__": owner.__annotations__, **body}))
        cast("Any", owner).__dataclass_fields__ = made.__dataclass_fields__
        return made.__dataclass_fields__


def declared(cls: type) -> dict[str, Any]:
    """The fields of a value's class, in order, and their declared types."""
    return {name: cls.__annotations__[name] for name in cast("Any", cls).__match_args__}


def fits(value: Any, declared: Any) -> bool:
    """Whether a value that was read is what its field declares. A bool is no int here, and a whole number is a float."""
    if declared is Any or type(value) is declared:  # nearly always
        return True
    if declared is float:
        return type(value) is int
    if isinstance(declared, UnionType):
        return any(fits(value, one) for one in declared.__args__)
    if not isinstance(declared, GenericAlias):
        return False
    kind: Any = dict if declared.__origin__ is Mapping else declared.__origin__
    if type(value) is not kind:
        return False
    if kind is dict:
        names, values = declared.__args__
        return all(fits(name, names) and fits(item, values) for name, item in value.items())
    return all(fits(item, declared.__args__[0]) for item in value)


def replaced(before: _T, **changed: Any) -> _T:
    """A value with other contents in some fields: `dataclasses.replace`, without the import of that module."""
    cls: Any = type(before)
    return cast("_T", cls(**{name: getattr(before, name) for name in cls.__match_args__} | changed))


_CONTENTS: dict[type, Callable[[Any], Any]] = {}


def contents(value: object) -> tuple[Any, ...]:
    """A value's fields, in order."""
    cls = value.__class__
    found = (_CONTENTS.get(cls) or _contents(cls))(value)
    return found if len(cls.__dict__["__match_args__"]) != 1 else (found,)


def _contents(cls: type) -> Callable[[Any], Any]:
    """What gives a value's fields at once, of a single one the field itself: ten times as fast as asking for one after the other in Python."""
    names: tuple[str, ...] = cls.__dict__["__match_args__"]
    found = _CONTENTS[cls] = attrgetter(*names) if names else lambda _: ()
    return found


def _equal(self: Any, other: Any) -> Any:
    cls: Any = self.__class__
    if type(other) is not cls:
        return NotImplemented
    contents = _CONTENTS.get(cls) or _contents(cls)
    return contents(self) == contents(other)


def _hash(self: Any) -> int:
    cls: Any = self.__class__
    return hash((_CONTENTS.get(cls) or _contents(cls))(self))


def _text(self: Any) -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__name__}({fields})"
