"""The values of a flow's parameters for one run: from texts and Python values to what steps read.

Everything about parameters that only a starting run needs. Errors are `ParameterInvalid` and `ParameterMissing`, wrong usage
of the command.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TextIO, cast

from evflow.core.values import value
from evflow.errors import UsageError, did_you_mean
from evflow.flow.parameters import JSONType, Parameter, canonical, of
from evflow.flow.steps import Where, facts

PREFIX = "EVFLOW_RUN_"
"""A variable of this prefix and a parameter's name in capitals gives its value."""

_TRUE = {"1", "true", "t", "yes", "y", "on"}
_FALSE = {"0", "false", "f", "no", "n", "off"}
_WANTED: dict[object, str] = {int: "an integer", float: "a number", bool: "True or False", str: "a string", JSONType: "JSON"}
SHOWN_CHARS = 200
"""How much of a parameter's value stands in messages, in help and in the log, for people."""


class ParameterInvalid(UsageError):
    """A value does not fit its parameter."""

    code = "parameter-invalid"

    def __init__(self, name: str, value: object, wanted: str, source: str = "") -> None:
        place = f" ({source})" if source else ""
        super().__init__(f"Invalid value for '--{name}'{place}: {cut(repr(value))} is not {wanted}.")


class ParameterMissing(UsageError):
    """A required parameter has no value."""

    code = "parameter-missing"

    def __init__(self, names: list[str]) -> None:
        first = names[0]
        more = f" Also missing: {', '.join(f'--{name}' for name in names[1:])}." if len(names) > 1 else ""
        super().__init__(f"Missing option '--{first}'.{more}", f"Give it on the command line or in {variable(first)}.")
        self.names = names


class ParameterUnknown(UsageError):
    """A value was given for a parameter that the flow does not have."""

    code = "parameter-unknown"

    def __init__(self, flow: str, name: str, names: list[str]) -> None:
        has = f"It has: {', '.join(names)}.{did_you_mean(name, names)}" if names else "It has none."
        super().__init__(f"Flow {flow} has no parameter '{name}'.", has)


class ParameterFieldTypeMismatch(UsageError):
    """The function that computes a default returned a value of another type."""

    code = "parameter-field-type-mismatch"

    def __init__(self, parameter: Parameter[Any], value: object) -> None:
        super().__init__(
            f"The default of parameter '{parameter.name}' ({parameter.where}) returned {value!r}, a {type(value).__name__}, "
            f"but it must return {_WANTED.get(parameter.type, 'a value of its type')}."
        )


class ParameterDefaultFailed(UsageError):
    """The function that computes a default raised an exception."""

    code = "parameter-default-failed"

    def __init__(self, what: str, where: Where, traceback: str) -> None:
        super().__init__(f"{what} ({where}) raised an exception:\n{traceback.rstrip()}")


@value
class ParameterContext:
    """What a function that computes a default gets.

    Attributes:
        flow_name: The flow.
        user_name: Who starts the run.
        parameter_name: The parameter.
        logger: Prints a line for the user on stderr.
        ds_type: The kind of the object store: `local`.
        configs: The configurations by name, as keys and as attributes; empty for the defaults of configurations themselves.
    """

    flow_name: str
    user_name: str
    parameter_name: str
    logger: Any
    ds_type: str
    configs: Mapping[str, object]


def resolve(
    cls: type, given: Mapping[str, object], env: Mapping[str, str] | None = None, *, user: str = "", held: Collection[str] = ()
) -> dict[str, object]:
    """The values of all parameters of a run, by attribute.

    Args:
        cls: The flow.
        given: Values by parameter name: texts as from a command line, or values of the type. None counts as not given.
        env: The environment variables; without it the process's own.
        user: Who starts the run; for functions that compute a default.
        held: Attributes that have a value already, of the run that is resumed: left out, unless one is given.

    Raises:
        ParameterUnknown: A value is given for what is no parameter.
        ParameterInvalid: A value does not fit.
        ParameterMissing: A required one has no value.
        ParameterFieldTypeMismatch: A function for a default returned a value of another type.
        ParameterDefaultFailed: Such a function raised.
    """
    env = os.environ if env is None else env
    parameters = of(cls)
    by_name = {canonical(parameter.name): parameter for parameter in parameters}
    texts: dict[str, object] = {}
    for name, text in given.items():
        if canonical(name) not in by_name:
            raise ParameterUnknown(cls.__name__, name, [parameter.name for parameter in parameters])
        if text is not None:
            texts[canonical(name)] = text
    values: dict[str, object] = {}
    missing: list[str] = []
    for attribute, parameter in facts(cls).parameters.items():
        from_env = env.get(variable(parameter.name))
        if canonical(parameter.name) in texts:
            values[attribute] = converted(parameter, texts[canonical(parameter.name)])
        elif attribute in held:
            continue
        elif from_env:
            values[attribute] = converted(parameter, from_env, source=variable(parameter.name))
        elif parameter.default is not None:
            values[attribute] = _default(cls, parameter, user)
        elif parameter.required:
            missing.append(parameter.name)
        else:
            values[attribute] = () if parameter.multiple else None
    if missing:
        raise ParameterMissing(missing)
    return values


def variable(name: str) -> str:
    """The environment variable that gives a parameter's value."""
    return PREFIX + name.upper().replace("-", "_")


def type_name(parameter: Parameter[Any]) -> str:
    """A parameter's type for `--help` and `show`."""
    if parameter.separator is not None:
        return "list"
    if parameter.reads_file:
        return "file"
    kind = parameter.type
    return "json" if kind is JSONType else str(getattr(kind, "__name__", None) or getattr(kind, "name", kind))


def shown(parameter: Parameter[Any], value: object) -> str:
    """A value as it is typed, in a short text for people."""
    if parameter.reads_file:
        from evflow.flow.includefile import content_shown

        return content_shown(value)
    if parameter.separator is not None and isinstance(value, list | tuple):
        return cut(parameter.separator.join(map(str, cast("list[object]", value))))
    if parameter.type is JSONType and value is not None:
        import json  # of flows without such a parameter nobody needs it

        return cut(json.dumps(value, ensure_ascii=False, default=str))
    return cut(str(value))


def cut(text: str) -> str:
    """The start of a text that is too long to be shown."""
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"


def default_shown(parameter: Parameter[Any]) -> str | None:
    """The default in a short text, or None where it is not to be shown or is computed."""
    if parameter.default is None or callable(parameter.default) or not parameter.show_default:
        return None
    if parameter.reads_file:
        return cut(str(parameter.default))
    return cut(parameter.default) if isinstance(parameter.default, str) else shown(parameter, parameter.default)


def converted(parameter: Parameter[Any], value: object, *, source: str = "") -> object:
    """A given value as the parameter's type has it.

    Raises:
        ParameterInvalid: It does not fit.
        IncludedFileUnreadable, IncludedFileNotText: It names a file that cannot be read.
    """
    if parameter.reads_file:
        from evflow.flow import includefile

        return includefile.read(cast("includefile.IncludeFile[Any]", parameter), value, source)
    if parameter.is_several:
        return _several(parameter, value, source)
    if parameter.separator is not None and isinstance(value, list | tuple):
        items = list(cast("list[object]", value))
        if all(isinstance(item, str) for item in items):
            return items
        raise ParameterInvalid(parameter.name, items, "a list of strings", source)
    plain = _plain(parameter, value, source)
    if parameter.separator is None or not isinstance(plain, str):
        return plain
    return plain.split(parameter.separator) if plain else []


def _several(parameter: Parameter[Any], value: object, source: str) -> tuple[object, ...]:
    """The values of a parameter that is given more than once, or with several words; a text is of a variable, and has spaces between them."""
    if not isinstance(value, str | list | tuple):
        raise ParameterInvalid(parameter.name, value, "a list", source)
    items: list[object] = [*value.split()] if isinstance(value, str) else [*cast("Iterable[object]", value)]
    if parameter.nargs != 1 and len(items) != parameter.nargs:
        raise ParameterInvalid(parameter.name, items, f"{parameter.nargs} values", source)
    return tuple(one(parameter, item, source=source) for item in items)


def one(parameter: Parameter[Any], value: object, *, source: str = "") -> object:
    """One of the values of a parameter that has several.

    Raises:
        ParameterInvalid: It does not fit.
    """
    return _plain(parameter, value, source)


def _plain(parameter: Parameter[Any], value: object, source: str) -> object:
    kind = parameter.type
    wanted = _WANTED.get(kind, str(getattr(kind, "name", kind)))
    if kind is JSONType:
        return _json(parameter, value, source)
    if kind is bool:
        return _bool(parameter, value, source)
    if kind is str:
        if isinstance(value, str | int | float | os.PathLike):
            return str(cast("object", value))
        raise ParameterInvalid(parameter.name, value, wanted, source)
    if kind in (int, float):
        return _number(parameter, kind, value, source)
    try:
        # A type of click's, which is asked without importing click.
        result: object = kind.convert(value, None, None)
    except Exception as error:  # noqa: BLE001 - whatever a foreign type raises says that the value does not fit
        explain = getattr(error, "format_message", None)
        message = explain() if callable(explain) else str(error)
        raise ParameterInvalid(parameter.name, value, f"{wanted} ({message})", source) from None
    return result


def _number(parameter: Parameter[Any], kind: type[int] | type[float], value: object, source: str) -> object:
    try:
        if isinstance(value, str):
            return kind(value.strip())
        if isinstance(value, float) and kind is float:
            return float(value)  # NaN is no value that equals itself
        if isinstance(value, int | float) and not isinstance(value, bool) and kind(value) == value:
            return kind(value)
        index = getattr(value, "item", None)  # a number of numpy's
        if callable(index):
            return _number(parameter, kind, index(), source)
    except (ValueError, OverflowError):
        pass
    raise ParameterInvalid(parameter.name, value, _WANTED[kind], source)


def _bool(parameter: Parameter[Any], value: object, source: str) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise ParameterInvalid(parameter.name, value, _WANTED[bool], source)
    return word in _TRUE


def _json(parameter: Parameter[Any], value: object, source: str) -> object:
    import json

    try:
        if isinstance(value, str):
            return json.loads(value)
        return json.loads(json.dumps(value))
    except RecursionError:
        raise ParameterInvalid(parameter.name, "…", "JSON (it is nested too deeply)", source) from None
    except (TypeError, ValueError) as error:
        raise ParameterInvalid(parameter.name, value, f"JSON ({error})", source) from None


def _default(cls: type, parameter: Parameter[Any], user: str) -> object:
    if not callable(parameter.default):
        return converted(parameter, _found(cls, parameter, parameter.default), source="its default" if parameter.reads_file else "")
    value = called(cls, f"The default of parameter '{parameter.name}'", parameter.name, parameter.default, parameter.where, user)
    if value is None:
        return None
    if parameter.is_several:
        return converted(parameter, value)
    expected = {float: (float, int), JSONType: (str, dict, list, int, float, bool)}.get(parameter.type, (parameter.type,))
    wrong_bool = isinstance(value, bool) and parameter.type in (int, float, str)
    if all(isinstance(kind, type) for kind in expected) and (wrong_bool or not isinstance(value, cast("Any", expected))):
        raise ParameterFieldTypeMismatch(parameter, value)
    return converted(parameter, _found(cls, parameter, value))


def _found(cls: type, parameter: Parameter[Any], default: object) -> object:
    if not parameter.reads_file:
        return default
    from evflow.flow.includefile import beside

    return beside(cls, default)


def called(cls: type, what: str, name: str, default: Callable[[ParameterContext], Any], where: Where, user: str) -> Any:
    """What a function for a default returns.

    Args:
        cls: The flow.
        what: What it is, for messages.
        name: The parameter's or configuration's, or the decorator's field.
        default: The function.
        where: Where it is declared.
        user: Who starts the run, or an empty string for the user of this process.

    Raises:
        ParameterDefaultFailed: It raised an exception.
    """
    from evflow.imports import user_view

    context = ParameterContext(cls.__name__, user or _user(), name, _log, "local", _configs(cls))
    try:
        with user_view():
            return default(context)
    except UsageError:  # of a configuration's expression
        raise
    except Exception as error:  # noqa: BLE001 - it is shown to the user, whose function raised it
        from evflow.flow.tracebacks import user_traceback

        raise ParameterDefaultFailed(what, where, user_traceback(error)) from None


def _configs(cls: type) -> Mapping[str, object]:
    """The configurations of a flow, as far as they are settled."""
    found = facts(cls)
    if not found.configs:
        return {}
    from evflow.flow.configs import ConfigValue, spec_of

    return ConfigValue({spec_of(config).name: found.constants.get(attribute) for attribute, config in found.configs.items()})


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this uid
        return str(os.getuid())


def _log(text: object, stream: TextIO | None = None) -> None:
    import sys

    print(text, file=stream or sys.stderr)
