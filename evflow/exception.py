"""The exceptions of the flow language that a step may catch or meet as a value, and those of the client.

Their names are those that Metaflow's users know. All of them belong to the families of `evflow.errors`.
"""

import sys
from collections.abc import Callable, Iterable, Sequence

from evflow.errors import EvflowError, UsageError
from evflow.masking import masked

__all__ = [
    "EvflowException",
    "EvflowInvalidPathspec",
    "EvflowNamespaceMismatch",
    "EvflowNotFound",
    "EvflowTaggingError",
    "ExceptionWrapper",
    "FailureHandledByCatch",
    "FunctionIsNoArtifact",
    "InvalidNextException",
    "MergeArtifactsException",
    "MissingInMergeArtifactsException",
    "SwitchValueUnknown",
    "TimeoutException",
    "UnhandledInMergeArtifactsException",
]

EvflowException = EvflowError
"""The base of everything that evflow raises on purpose."""

_BUILTIN = "builtins."


class InvalidNextException(UsageError):
    """A step said wrongly, twice or not at all which step comes next."""

    code = "invalid-next"


class SwitchValueUnknown(InvalidNextException, RuntimeError):
    """The variable of a switch has a value that is none of its cases."""

    code = "switch-value-unknown"

    def __init__(self, variable: str, value: object, cases: Sequence[object]) -> None:
        super().__init__(
            f"Switch condition variable '{variable}' has value {value!r} which is not in the available cases: {list(cases)!r}",
            f"Add a case for it, or let self.{variable} have one of these values.",
        )


class FunctionIsNoArtifact(UsageError):
    """A function stands where an artifact should: it could not be kept.

    Attributes:
        names: The artifacts.
    """

    code = "function-is-no-artifact"

    def __init__(self, flow: str, step: str, names: Iterable[tuple[str, object]]) -> None:
        named = dict(names)
        self.names = tuple(named)
        shown = [f"self.{name} ({_called(value)})" for name, value in named.items()]
        one = len(shown) == 1
        super().__init__(
            f"Step {step} of {flow} assigned {'a function' if one else 'functions'} to {', '.join(shown)}: "
            f"{'it' if one else 'they'} cannot be kept as {'an artifact' if one else 'artifacts'}.",
            "Define the function at the top of the file or as a method of the flow, or keep what it returns. "
            "A name that starts with __ is not kept, and may hold one.",
        )


class MergeArtifactsException(UsageError):
    """`merge_artifacts` was called where or how it cannot be."""

    code = "merge-artifacts"


class UnhandledInMergeArtifactsException(MergeArtifactsException):
    """Artifacts to merge have different values on the inputs, and the join did not choose.

    Attributes:
        artifact_names: The artifacts.
    """

    code = "unhandled-in-merge"

    def __init__(self, step: str, values: Sequence[tuple[str, str]]) -> None:
        names = [name for name, _ in values]
        details = "".join(f"\n  {name}: {who}" for name, who in values)
        super().__init__(
            f"Unhandled artifacts in merge: Step {step} cannot merge the following artifacts due to them having conflicting values: "
            f"[{', '.join(names)}].{details}",
            f"Set them before merge_artifacts (self.{names[0]} = ...), or leave them out with exclude={names!r}.",
        )
        self.artifact_names = names


class MissingInMergeArtifactsException(MergeArtifactsException):
    """`merge_artifacts(include=...)` names artifacts that no input has.

    Attributes:
        artifact_names: The artifacts.
    """

    code = "missing-in-merge"

    def __init__(self, step: str, names: Sequence[str], existing: Sequence[str]) -> None:
        super().__init__(
            f"Missing artifacts in merge: Step {step} includes artifacts that none of its inputs has: [{', '.join(names)}].",
            f"The inputs have: {', '.join(existing) or 'none'}.",
        )
        self.artifact_names = list(names)


class TimeoutException(UsageError):
    """The body of a step ran into its `@timeout`."""

    code = "timeout"

    def __init__(self, step: str, limit_s: float) -> None:
        super().__init__(f"Step {step} timed out after {duration(limit_s)}.", "Raise its @timeout if it needs longer.")
        self.limit_s = limit_s


class FailureHandledByCatch(UsageError):
    """Stands for a crash (killed, out of memory, segmentation fault) in the variable of `@catch`."""

    code = "failure-handled-by-catch"

    def __init__(self, step: str, crash: str) -> None:
        super().__init__(f"Step {step} crashed and @catch let the flow go on: {crash}")


class ExceptionWrapper(Exception):
    """What `@catch(var=...)` leaves in its variable: an exception as text, loadable everywhere.

    Attributes:
        exception: The exception's text.
        type: Its class, `module.Class`; a builtin's as `builtins.ValueError`, as Metaflow has it.
        stacktrace: Its traceback, the user's frames only, or None.
    """

    exception: str
    type: str
    stacktrace: str | None

    def __init__(self, exception: BaseException | None = None, stacktrace: str | None = None) -> None:
        super().__init__()
        if exception is not None:
            self.exception = text_of(exception)
            self.type = type_named(class_name(exception))
            self.stacktrace = stacktrace

    def __reduce__(self) -> tuple[object, ...]:
        return _wrapper, (), self.__dict__  # not by the class, which may have another name here than where it is read

    def __str__(self) -> str:
        return self.stacktrace or f"{self.type.removeprefix(_BUILTIN)}: {self.exception}"

    def __repr__(self) -> str:
        return f"ExceptionWrapper({self.type.removeprefix(_BUILTIN)}: {self.exception})"


def _wrapper() -> ExceptionWrapper:
    """An `ExceptionWrapper` that a pickle fills."""
    return ExceptionWrapper()


# --- of the client ---------------------------------------------------------------------------------------


class EvflowNotFound(UsageError):
    """There is no such flow, run, step, task or artifact."""

    code = "not-found"

    def __init__(self, kind: str, pathspec: str, hint: str = "") -> None:
        super().__init__(f"{kind}('{pathspec}') does not exist.", hint)
        self.pathspec = pathspec


class EvflowNamespaceMismatch(UsageError):
    """The object exists, and is not in the namespace in force.

    Attributes:
        namespace: That namespace.
    """

    code = "namespace-mismatch"

    def __init__(self, kind: str, pathspec: str, namespace: str, tags: Iterable[str]) -> None:
        if kind == "Flow":
            what = f"No run of Flow('{pathspec}') is in the namespace '{namespace}'."
        else:
            what = f"{kind}('{pathspec}') is not in the namespace '{namespace}'. Its run has the tags: {', '.join(sorted(tags))}."
        super().__init__(what, "namespace(None) makes all runs visible, namespace('user:NAME') those of a user.")
        self.namespace = namespace


class EvflowInvalidPathspec(UsageError):
    """The text is not of the form that the class wants."""

    code = "invalid-pathspec"

    def __init__(self, kind: str, form: str, given: object) -> None:
        super().__init__(f"Expects {kind}('{form}'), not {given!r}.")


class EvflowTaggingError(UsageError):
    """These are no tags that a run can have."""

    code = "tagging"


# --- parts -----------------------------------------------------------------------------------------------


def class_name(exception: BaseException) -> str:
    """The class of an exception as `module.Class`; a builtin's as `Class` alone."""
    kind = type(exception)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def type_named(name: str) -> str:
    """The `type` of an `ExceptionWrapper` for what `class_name` gave, as it stands in the log."""
    return name if "." in name else f"{_BUILTIN}{name}"


def text_of(value: object, make: Callable[[object], str] = str) -> str:
    """What `make` says of an object of the user's, whose class may fail at being shown, and in more ways than one."""
    try:
        return masked(make(value))
    except (Exception, SystemExit, KeyboardInterrupt) as second:  # noqa: BLE001 - it is said in the text
        return f"<its text cannot be made: {type(second).__name__}>"


def duration(seconds: float) -> str:
    """A span of time for people: `2 hours 5 seconds`."""
    whole, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(whole), 60)
    parts = [(hours, "hour"), (minutes, "minute"), (rest, "second")]
    shown = [f"{number:g} {unit}{'' if number == 1 else 's'}" for number, unit in parts if number]
    return " ".join(shown) or "0 seconds"


def _called(value: object) -> str:
    function = getattr(value, "__func__", value)
    code = getattr(function, "__code__", None)
    name = getattr(value, "__qualname__", repr(value))
    if code is None or code.co_filename.startswith(sys.prefix):
        return name
    return f"{name}, {code.co_filename}:{code.co_firstlineno}"
