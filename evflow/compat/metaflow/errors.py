"""Metaflow's names for evflow's errors: the classes themselves get them, so that `except`, reports and `@catch` agree.

The names change with the first `import metaflow` of a process. Classes of modules that are loaded later get theirs when they are made,
so that nothing is imported for it. Errors that Metaflow has and evflow has no condition for are defined here.
"""

from collections.abc import Mapping
from typing import Any, Final

from evflow import exception
from evflow.errors import EnvironmentProblem, EvflowError, UsageError

_NAMES: Final = {
    ("evflow.errors", "EvflowError"): ("metaflow.exception", "MetaflowException"),
    ("evflow.errors", "InternalError"): ("metaflow.exception", "MetaflowInternalError"),
    ("evflow.exception", "EvflowInvalidPathspec"): ("metaflow.exception", "MetaflowInvalidPathspec"),
    ("evflow.exception", "EvflowNamespaceMismatch"): ("metaflow.exception", "MetaflowNamespaceMismatch"),
    ("evflow.exception", "EvflowNotFound"): ("metaflow.exception", "MetaflowNotFound"),
    ("evflow.exception", "EvflowTaggingError"): ("metaflow.exception", "MetaflowTaggingError"),
    ("evflow.exception", "FailureHandledByCatch"): ("metaflow.plugins.catch_decorator", "FailureHandledByCatch"),
    ("evflow.exception", "InvalidNextException"): ("metaflow.flowspec", "InvalidNextException"),
    ("evflow.exception", "MissingInMergeArtifactsException"): ("metaflow.exception", "MissingInMergeArtifactsException"),
    ("evflow.exception", "TimeoutException"): ("metaflow.plugins.timeout_decorator", "TimeoutException"),
    ("evflow.exception", "UnhandledInMergeArtifactsException"): ("metaflow.exception", "UnhandledInMergeArtifactsException"),
    ("evflow.flow.checks", "FlowInvalid"): ("metaflow.lint", "LintWarn"),
    ("evflow.flow.decorators.base", "DecoratorInvalid"): ("metaflow.exception", "InvalidDecoratorAttribute"),
    ("evflow.flow.parameter_values", "ParameterDefaultFailed"): ("metaflow.exception", "ParameterFieldFailed"),
    ("evflow.flow.parameter_values", "ParameterFieldTypeMismatch"): ("metaflow.exception", "ParameterFieldTypeMismatch"),
    **{
        ("evflow.datatools.problems", name): ("metaflow.plugins.datatools.s3.s3", f"Metaflow{name}")
        for name in ("S3AccessDenied", "S3Exception", "S3InvalidObject", "S3InvalidRange", "S3NotFound", "S3URLException")
    },
    ("evflow.store.diagnosis", "ArtifactNotSerializable"): ("metaflow.datastore.exceptions", "UnpicklableArtifactException"),
}
"""A class's module and name here, and there."""

_HEADLINES: Final = {
    "CommandException": "Invalid command",
    "ExternalCommandFailed": "External command failed",
    "FailureHandledByCatch": "Task execution failed but @catch handled it",
    "InvalidDecoratorAttribute": "Unknown decorator attribute",
    "InvalidNextException": "Invalid self.next() transition detected",
    "LintWarn": "Validity checker found an issue",
    "MetaflowDataMissing": "Data missing",
    "MetaflowInternalError": "Internal error",
    "MetaflowInvalidPathspec": "Invalid pathspec",
    "MetaflowNamespaceMismatch": "Object not in the current namespace",
    "MetaflowNotFound": "Object not found",
    "MetaflowTaggingError": "Tagging error",
    "MetaflowUnknownUser": "Unknown user",
    "MissingInMergeArtifactsException": "Missing artifacts in merge",
    "ParameterFieldFailed": "Parameter field failed",
    "ParameterFieldTypeMismatch": "Parameter field with a mismatching type",
    "TimeoutException": "@timeout",
    "UnhandledInMergeArtifactsException": "Unhandled artifacts in merge",
}
"""What Metaflow puts above an error, which programs read as `error.headline`."""


class ExternalCommandFailed(EnvironmentProblem):
    """A program that was started failed; for code that raises or catches it."""


class CommandException(UsageError):
    """A command was called wrongly; for code that raises or catches it."""


class MetaflowDataMissing(EnvironmentProblem):
    """Data is not there; for code that raises or catches it."""


class MetaflowUnknownUser(EnvironmentProblem):
    """Nobody knows who the user is, which evflow always does; for code that raises or catches it."""


def rename() -> None:
    """Give evflow's errors the names and the constructor of Metaflow's, those that exist and those that are made later."""
    _rename_all(EvflowError)
    _give_name(exception.ExceptionWrapper, "metaflow.exception", "MetaflowExceptionWrapper")
    for own in (CommandException, ExternalCommandFailed, MetaflowDataMissing, MetaflowUnknownUser):
        _give_name(own, "metaflow.exception", own.__name__)
    base: Any = EvflowError
    base.__init__, base.__init_subclass__ = _init, classmethod(_made)
    base.headline = "Flow failed"


_variables: dict[str, str] = {}
"""The variables of evflow's that were made of Metaflow's, and what those are called."""


def say_variables(called: Mapping[str, str]) -> None:
    """From now on, errors call variables as their user does."""
    _variables.clear()
    _variables.update(sorted(called.items(), key=lambda pair: -len(pair[0])))  # some begin as another one


def _init(
    self: EvflowError,
    message: str = "",
    hint: object = "",
    *,
    msg: str | None = None,
    lineno: int | None = None,
    source_file: str | None = None,
) -> None:
    """As `MetaflowException(msg, lineno, source_file)` takes them; evflow's own errors give a message and a hint."""
    message = _called(message if msg is None else msg)
    Exception.__init__(self, message)
    self.message = message
    self.hint = _called(hint) if isinstance(hint, str) else ""
    said: Any = self
    said.line_no = hint if isinstance(hint, int) else lineno
    said.source_file = source_file


def _called(text: str) -> str:
    for ours, theirs in _variables.items():
        text = text.replace(ours, theirs)
    return text


def _made(cls: type) -> None:
    _rename(cls)


def _rename_all(cls: type[EvflowError]) -> None:
    _rename(cls)
    for below in cls.__subclasses__():
        _rename_all(below)


def _rename(cls: type) -> None:
    name = _NAMES.get((cls.__module__, cls.__qualname__))
    if name is not None:
        _give_name(cls, *name)


def _give_name(cls: type, module: str, name: str) -> None:
    cls.__module__, cls.__name__, cls.__qualname__ = module, name, name
    if name in _HEADLINES:
        named: Any = cls
        named.headline = _HEADLINES[name]
