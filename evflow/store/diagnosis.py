"""Why a value cannot be stored: which part of it, what that part is, and what to do instead.

Looked for only after pickling failed, so it may take its time, within a bound.
"""

import pickle
from collections.abc import Iterable, Iterator
from types import FunctionType, GeneratorType, MethodType, ModuleType, NoneType
from typing import Any, NamedTuple, cast

from evflow.errors import UsageError

MAX_TRIALS = 2_000
"""Parts that are pickled on their own before the search gives up and names the part it is in."""

MAX_DEPTH = 100

_TEXT_LIMIT = 300
_HARMLESS = frozenset({int, str, bytes, float, bool, NoneType})


class ArtifactNotSerializable(UsageError):
    """A value cannot become an artifact.

    Attributes:
        name: The artifact.
        type: The type of the part that cannot be stored.
        part: Where the part is: `model['hooks'][2]`, or the name alone.
        why: What is wrong with it, as the end of a sentence.
    """

    code = "artifact-not-serializable"

    def __init__(self, name: str, found: "Culprit") -> None:
        part = name + found.path
        within = "" if part == name else f" because of '{part}'"
        super().__init__(f"The artifact '{name}' cannot be stored{within}: {found.why}.", found.hint)
        self.name = name
        self.type = found.type
        self.part = part
        self.why = found.why


class Culprit(NamedTuple):
    """The innermost part that cannot be pickled."""

    path: str
    type: str
    why: str
    hint: str


def type_name(value: object) -> str:
    """The type as people write it: `list`, `pandas.DataFrame` by its full module."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def refused(value: object) -> Culprit | None:
    """Values that might pickle, but never as somebody who assigns them to an artifact means it."""
    if any(_is_a(kind, value) for kind in (FunctionType, MethodType, ModuleType, GeneratorType)) or _is_flow(value):
        return _culprit(value, "", None)
    return None


def find(value: object, error: BaseException) -> Culprit:
    """The innermost part of `value` that cannot be pickled, given the error of the whole."""
    if isinstance(error, RecursionError):
        return _culprit(value, "", error)
    try:
        found = _Search().of(value, "", error)
    except Exception:  # noqa: BLE001  looking runs the code of the value's classes, which may fail in more ways than one
        found = None
    return found or _culprit(value, "", error)


class _Search:
    """Goes down where pickling fails, within the bounds."""

    def __init__(self) -> None:
        self._trials = 0
        self._seen: set[int] = set()

    def of(self, value: object, path: str, error: BaseException, depth: int = 0) -> Culprit | None:
        """The culprit in `value`; None where it fails only because it holds what was looked at before."""
        self._seen.add(id(value))
        if _of_a_process(value):
            return _culprit(value, path, error)
        holds_seen = False
        for step, child in _children(value):
            if id(child) in self._seen:
                holds_seen = holds_seen or type(child) not in _HARMLESS
                continue
            self._trials += 1
            if self._trials > MAX_TRIALS or depth >= MAX_DEPTH:
                return _culprit(value, path, error)
            failure = _failure(child)
            if failure is not None and (found := self.of(child, path + step, failure, depth + 1)):
                return found
        return None if holds_seen else _culprit(value, path, error)


def _failure(value: object) -> BaseException | None:
    try:
        pickle.dumps(value, 5, buffer_callback=lambda _: False)
    except Exception as error:  # noqa: BLE001  a user's class raises what it likes; it is what we look for
        return error
    return None


def _children(value: object) -> Iterator[tuple[str, Any]]:
    """The parts that pickling would go into, with what to append to the path."""
    if type(value) is dict:
        for key, child in cast("dict[object, object]", value).items():
            yield f" (the key {_short(key)})", key
            yield f"[{_short(key)}]", child
    elif type(value) in {list, tuple}:
        for index, child in enumerate(cast("Iterable[object]", value)):
            yield f"[{index}]", child
    elif type(value) in {set, frozenset}:
        for child in cast("Iterable[object]", value):
            yield f" (the member {_short(child)})", child
    elif not isinstance(value, type | FunctionType | ModuleType):
        yield from _reduced(value)


def _reduced(value: object) -> Iterator[tuple[str, Any]]:
    """The parts of an object, as its class hands them to pickle."""
    try:
        parts = value.__reduce_ex__(5)
    except Exception:  # noqa: BLE001  the object itself refuses: it has no parts to look at
        return
    if not isinstance(parts, tuple):
        return
    made_by, arguments, state, items, pairs = _padded(parts)
    for attributes in _states(state):
        if _is_a(dict, attributes):
            for key, child in attributes.items():
                yield f".{key}", child
        else:
            yield " (its state)", attributes
    for index, child in enumerate(items or ()):
        yield f"[{index}]", child
    for key, child in pairs or ():
        yield f"[{_short(key)}]", child
    yield " (what makes it)", made_by
    for index, child in enumerate(arguments or ()):
        if child is not type(value):
            yield f" (argument {index})", child


def _padded(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """What `__reduce_ex__` gave, as (callable, arguments, state, list items, dict items)."""
    return (*parts, None, None, None, None, None)[:5]


def _states(state: Any) -> list[Any]:
    """An object's state; where it has slots, what is in its `__dict__` and what is in them."""
    states: list[Any] = [state]
    if _is_a(tuple, state) and len(state) == 2 and _is_a(dict, state[1]):
        states = [*state]
    return [one for one in states if one is not None]


def _is_a(kind: type, value: Any) -> bool:
    # isinstance, without telling the type checkers: what they conclude of a user's value is of no use.
    return isinstance(value, kind)


_OPEN_HINT = "Keep it in a local variable, and open it in each step that uses it."
_KINDS = (
    ("_io.", "an open file", "Store its path or its content instead."),
    ("tempfile.", "an open temporary file", "Store its content instead."),
    ("socket.", "an open socket", _OPEN_HINT),
    ("ssl.", "an open connection", _OPEN_HINT),
    ("sqlite3.", "an open database", _OPEN_HINT),
    ("_thread.", "a lock", "Locks mean nothing in another process: keep it in a local variable."),
    ("threading.", "a thread or a lock of threads", "It means nothing in another process: keep it in a local variable."),
    ("concurrent.futures.", "a pool of threads or processes", _OPEN_HINT),
    ("coroutine", "a coroutine", "Await it and store the result."),
    ("async_generator", "an asynchronous generator", "Collect its items in a list and store that."),
    ("generator", "a generator", "A generator can be walked once, here: store list(...) of it."),
)


def _culprit(value: object, path: str, error: BaseException | None) -> Culprit:
    why, hint = _explain(value, error)
    return Culprit(path, type_name(value), why, hint)


def _explain(value: object, error: BaseException | None) -> tuple[str, str]:
    if _is_flow(value):
        return "it is the flow itself", "Store the values that you need of it, one by one."
    if isinstance(value, ModuleType):
        return f"it is the module '{value.__name__}'", "Import the module in each step that uses it."
    if isinstance(value, FunctionType | MethodType):
        return _explain_function(value)
    if isinstance(value, type) and "<locals>" in value.__qualname__:
        return f"it is the class '{value.__qualname__}', defined inside a function", "Define the class at the top of a module."
    if "<locals>" in type(value).__qualname__:
        return (
            f"its class '{type(value).__qualname__}' is defined inside a function",
            "Define the class at the top of a module, where the process that loads the artifact can find it.",
        )
    name = type_name(value)
    if kind := _of_a_process(value):
        return f"it is {kind[0]} ({name})", kind[1]
    if isinstance(error, RecursionError):
        return f"its parts ({name}) are nested too deeply", "Store a flat form of it: a list or a table of its parts."
    return (
        f"pickling {name} failed with {type(error).__name__}: {_cut(str(error))}",
        "Store its parts, or give its class the methods __getstate__ and __setstate__.",
    )


def _of_a_process(value: object) -> tuple[str, str] | None:
    """What the value is, and a hint, if it is a kind of thing that exists in one process only."""
    name = type_name(value)
    return next(((what, hint) for beginning, what, hint in _KINDS if name.startswith(beginning)), None)


def _explain_function(value: FunctionType | MethodType) -> tuple[str, str]:
    hint = "Call it where it is needed, and store the result; a function belongs in the flow's module, not in an artifact."
    if value.__name__ == "<lambda>":
        return "it is a lambda", hint
    inside = ", defined inside a function" if "<locals>" in value.__qualname__ else ""
    return f"it is the {'method' if isinstance(value, MethodType) else 'function'} '{value.__qualname__}'{inside}", hint


def _is_flow(value: object) -> bool:
    # By name: the store knows nothing of flows, and must not import them.
    return any(kind.__name__ == "FlowSpec" and kind.__module__.startswith("evflow.") for kind in type(value).__mro__)


def _short(key: object) -> str:
    try:
        return _cut(repr(key), 40)
    except Exception:  # noqa: BLE001  a user's __repr__ raises what it likes
        return f"<{type_name(key)}>"


def _cut(text: str, limit: int = _TEXT_LIMIT) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
