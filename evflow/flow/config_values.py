"""The values of a flow's configurations for one run: read, parsed, and put wherever the flow's class uses them.

`resolve` reads them where a flow's command begins; they are stored with the parameters of the run, as artifacts. `settle` puts
them into the class: into decorators, defaults of parameters, attributes. Every task does so with its own run's, because one
process may serve runs with other configurations.
"""

import copy
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

from evflow.errors import UsageError, did_you_mean
from evflow.flow import dialect
from evflow.flow.configs import Config, ConfigSpec, Delayed, as_config, as_plain, spec_of
from evflow.flow.decorators.base import StepDecorator
from evflow.flow.named_parser import NamedParser, ParserNotFound
from evflow.flow.parameters import Parameter, canonical, type_of
from evflow.flow.steps import UNPACKED, Facts, Where, facts, is_mutated

FILES_VARIABLE: Final = "EVFLOW_FLOW_CONFIG"
"""A JSON map of names to paths; names of other flows' configurations mean nothing."""
VALUES_VARIABLE: Final = "EVFLOW_FLOW_CONFIG_VALUE"
"""A JSON map of names to values, or to texts as a file would hold them."""
CLASS_DECORATORS: Final = (
    "_evflow_schedules",
    "_evflow_triggers",
    "_evflow_concurrency",
    "_evflow_environments",
    "_evflow_projects",
    "_evflow_exit_hooks",
)


class ConfigUnknown(UsageError):
    """A configuration was given that the flow does not have."""

    code = "config-unknown"

    def __init__(self, flow: str, name: str, names: Sequence[str]) -> None:
        has = f"It has: {', '.join(names)}.{did_you_mean(name, names)}" if names else "It has none."
        super().__init__(f"Flow {flow} has no Config '{name}'.", has)


class ConfigGivenTwice(UsageError):
    """A configuration was given by a file and by a value."""

    code = "config-given-twice"

    def __init__(self, name: str) -> None:
        super().__init__(f"Config '{name}' was given a file and a value.", "Keep one of them.")


class ConfigMissing(UsageError):
    """A required configuration has no value."""

    code = "config-missing"

    def __init__(self, flow: str, names: Sequence[str]) -> None:
        what = f"Config '{names[0]}' of {flow} has" if len(names) == 1 else f"The Configs {', '.join(map(repr, names))} of {flow} have"
        given = " ".join(f"--config {name} FILE" for name in names)
        super().__init__(f"{what} no value.", f"Give one before the command: {given}, or --config-value {names[0]} JSON.")


class ConfigUnreadable(UsageError):
    """A configuration's file cannot be read."""

    code = "config-unreadable"

    def __init__(self, name: str, path: str, why: str, source: str) -> None:
        super().__init__(
            f"The file {path!r} of Config '{name}' ({source}) cannot be read: {why}.",
            f"Give another one before the command: --config {name} FILE.",
        )


class ConfigInvalid(UsageError):
    """What a configuration was given is not what it takes."""

    code = "config-invalid"


class ConfigVariableInvalid(UsageError):
    """A variable of the environment that gives configurations is no JSON map."""

    code = "config-variable-invalid"

    def __init__(self, variable: str, why: str) -> None:
        super().__init__(f"{variable} is no JSON map of configurations: {why}.", f"""Write {variable}='{{"NAME": …}}'.""")


class ConfigExpressionFailed(UsageError):
    """What is taken of a configuration is not there, or cannot be worked out."""

    code = "config-expression-failed"

    def __init__(self, delayed: Delayed, where: Where, error: BaseException) -> None:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        known = isinstance(error, KeyError | AttributeError)
        super().__init__(f"{delayed!r} ({where}) has no value: {text if known else f'{type(error).__name__}: {text}'}")


class _View(Protocol):
    """A run's parameters as they are stored."""

    def load(self, name: str) -> object: ...
    def __contains__(self, name: object, /) -> bool: ...


def resolve(
    cls: type,
    files: Mapping[str, str] | None = None,
    values: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    *,
    user: str = "",
) -> dict[str, object]:
    """The values of all configurations of a flow, by attribute.

    Args:
        cls: The flow.
        files: Name to path.
        values: Name to a text as a file would hold it, or to a value.
        env: The environment variables; without it the process's own.
        user: Who starts the run; for functions that compute a default.

    Raises:
        ConfigUnknown, ConfigGivenTwice, ConfigMissing: What is given does not fit the flow.
        ConfigUnreadable, ConfigInvalid, ParserNotFound, ConfigVariableInvalid: A configuration cannot be read.
    """
    env = os.environ if env is None else env
    specs = {canonical(str(spec.name)): spec for spec in map(spec_of, facts(cls).configs.values())}
    by_file, by_value = _by_name(cls, specs, files or {}), _by_name(cls, specs, values or {})
    env_files, env_values = _from_env(env, FILES_VARIABLE), _from_env(env, VALUES_VARIABLE)
    found: dict[str, object] = {}
    missing: list[str] = []
    for name, spec in specs.items():
        for these_files, these_values, how in ((by_file, by_value, "--config"), (env_files, env_values, FILES_VARIABLE)):
            if name in these_files and name in these_values:
                raise ConfigGivenTwice(spec.name)
            if name in these_files:
                found[spec.attribute] = _from_file(spec, these_files[name], how)
                break
            if name in these_values:
                found[spec.attribute] = _from_value(spec, these_values[name], f"{how}-value" if how == "--config" else VALUES_VARIABLE)
                break
        else:
            found[spec.attribute] = _default(cls, spec, user)
        if found[spec.attribute] is None and spec.required:
            missing.append(spec.name)
    if missing:
        raise ConfigMissing(cls.__name__, missing)
    return found


def settle(cls: type, values: Mapping[str, object]) -> None:
    """Put the values of configurations wherever the flow's class uses them; again, with others, where that was done before.

    Args:
        cls: The flow.
        values: By attribute. From now on they are constants of the flow.

    Raises:
        ConfigExpressionFailed: Something is taken of them that is not there.
        DecoratorInvalid: A decorator does not have a field that they give it.
    """
    found = facts(cls)
    known: dict[str, object] = {}
    for attribute, config in found.configs.items():
        spec = spec_of(config)
        value = values.get(attribute)
        known[spec.name] = known[attribute] = value if spec.plain else as_config(value)
        found.constants[attribute] = value
    found.configured.clear()
    decorators = [decorator for name in found.steps for decorator in found.decorators(name)]
    decorators += [decorator for attribute in CLASS_DECORATORS for decorator in getattr(cls, attribute, ())]
    for decorator in decorators:
        if _has_delayed(decorator.given):
            found.configured[decorator] = _configured(decorator, known)
    found.parameters = dict(found.declared)
    if is_mutated(cls, found):
        _mutate(cls, known)
    for name, delayed in found.delayed.items():
        value = evaluate(delayed, known)
        found.constants[name] = as_plain(value)
        setattr(cls, name, value)
    _settle_parameters(found, known)
    _settled.update(known)


def _mutate(cls: type, known: Mapping[str, object]) -> None:
    """Let mutators change the flow, and put the values of configurations into what they added."""
    from evflow.flow.mutators import mutate

    found = facts(cls)
    mutate(cls, found, lambda value: _valued(value, known))
    added = [one for changed in (*found.changed.values(), *found.classwide.values()) for one in changed if _has_delayed(one.given)]
    found.configured.update({one: _configured(one, known) for one in added})


def _settle_parameters(found: Facts, known: Mapping[str, object]) -> None:
    for attribute, parameter in list(found.parameters.items()):
        found.parameters[attribute] = _parameter(parameter, known)


def mutate_again(cls: type) -> None:
    """The same after `--with` has added decorators, if the configurations are settled; else they will be."""
    found = facts(cls)
    if all(attribute in found.constants for attribute in found.configs):
        _mutate(cls, _settled if found.configs else {})
        _settle_parameters(found, _settled)


def settle_from(cls: type, stored: _View) -> None:
    """Put the configurations of a run, as it began with them, into the flow's class.

    Raises:
        EvflowError: As `settle`.
    """
    settle(cls, {attribute: stored.load(attribute) for attribute in facts(cls).configs if attribute in stored})


_settled: dict[str, object] = {}
"""The configurations that were settled last in this process, for a `Delayed` that is called."""


def evaluate_now(delayed: Delayed) -> object:
    """The value with the configurations that were settled last."""
    return evaluate(delayed, _settled)


def evaluate(delayed: Delayed, known: Mapping[str, object]) -> Any:
    """The value of an expression.

    Raises:
        ConfigExpressionFailed: It has none.
    """
    from evflow.imports import user_view

    inside: Any = delayed  # its own attributes are the configuration's
    expression, path, where = inside._evflow_expression, inside._evflow_path, inside._evflow_where  # noqa: SLF001
    variables: Mapping[str, Any] = inside._evflow_globals or {}  # noqa: SLF001
    try:
        with user_view():
            value: Any = known[expression] if expression in known else eval(expression, {**variables, **known})  # noqa: S307 - it is the user's
            for kind, key in path:
                value = getattr(value, key) if kind == "." else value[key]
    except Exception as error:  # noqa: BLE001 - whatever the user's expression raises is shown
        raise ConfigExpressionFailed(delayed, where, error) from None
    return value


def shown(cls: type) -> dict[str, str]:
    """The configurations as they were settled, for people: how they are given, and the names that they hold.

    What those names have may be secret, and is in the store alone.
    """
    from evflow.flow.parameter_values import cut

    found = facts(cls)
    return {f"config {spec_of(config).name}": cut(_outline(found.constants.get(attribute))) for attribute, config in found.configs.items()}


def _outline(value: object) -> str:
    if value is None:
        return "None"
    if not isinstance(value, Mapping):
        return f"a value of type {type(value).__name__}"
    return f"{{{', '.join(map(str, cast('Mapping[object, object]', value)))}}}"


def _by_name(cls: type, specs: Mapping[str, ConfigSpec], given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        if canonical(name) not in specs:
            raise ConfigUnknown(cls.__name__, name, [str(spec.name) for spec in specs.values()])
    return {canonical(name): value for name, value in given.items()}


def _from_env(env: Mapping[str, str], variable: str) -> dict[str, Any]:
    text = env.get(variable)
    if not text:
        return {}
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ConfigVariableInvalid(_as_set(env, variable), str(error)) from None
    if not isinstance(given, dict):
        raise ConfigVariableInvalid(_as_set(env, variable), f"it is {_kind(given)}")
    return {canonical(name): value for name, value in cast("dict[str, Any]", given).items()}


def _as_set(env: Mapping[str, str], variable: str) -> str:
    """The name under which somebody set a variable: Metaflow's, where ours was made of that."""
    theirs = variable.replace("EVFLOW_", "METAFLOW_", 1)
    return theirs if dialect.is_metaflow() and env.get(theirs) == env[variable] else variable


def _default(cls: type, spec: ConfigSpec, user: str) -> object:
    from evflow.flow.includefile import beside

    if spec.default is not None:
        path = _computed(cls, spec, spec.default, user)
        return None if path is None else _from_file(spec, beside(cls, path), "its default")
    if spec.default_value is not None:
        return _from_value(spec, _computed(cls, spec, spec.default_value, user), "its default")
    return None


def _computed(cls: type, spec: ConfigSpec, default: Any, user: str) -> Any:
    if not callable(default):
        return default
    from evflow.flow.parameter_values import called

    return called(cls, f"The default of Config '{spec.name}'", spec.name, default, spec.where, user)


def _from_file(spec: ConfigSpec, given: object, source: str) -> object:
    if not isinstance(given, str | os.PathLike):
        raise ConfigUnreadable(spec.name, repr(given), "it is no path", source)
    path = os.path.expanduser(cast("str", os.fspath(given)))  # noqa: PTH111 - pathlib is not worth its time here
    try:
        with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123 - Windows's editors begin a file with a mark
            text = file.read()
    except UnicodeDecodeError as error:
        raise ConfigUnreadable(spec.name, path, f"it is no text in UTF-8 ({error.reason} at byte {error.start})", source) from None
    except OSError as error:
        raise ConfigUnreadable(spec.name, path, error.strerror or str(error), source) from None
    except ValueError as error:
        raise ConfigUnreadable(spec.name, path, str(error), source) from None
    return _parsed(spec, text, path)


def _from_value(spec: ConfigSpec, given: object, source: str) -> object:
    if isinstance(given, str):
        return _parsed(spec, given, source)
    return _checked(spec, as_plain(given), source)


def _parsed(spec: ConfigSpec, text: str, source: str) -> object:
    if spec.parser is None and spec.plain and dialect.is_metaflow():
        return text  # there, what is plain and has no parser is the text itself
    if spec.parser is None:
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigInvalid(
                f"Config '{spec.name}' ({source}) is no JSON: {str(error) if isinstance(error, ValueError) else 'it is nested too deeply'}.",
                f"Mend it, or give the Config a parser, such as parser=evflow.yaml_parser ({spec.where}).",
            ) from None
    else:
        try:
            value = NamedParser(spec.parser, f"Config '{spec.name}' ({spec.where})")(text)
        except ParserNotFound:
            raise
        except UsageError as error:
            raise ConfigInvalid(f"Config '{spec.name}' ({source}): {error.message}", error.hint) from None
        except Exception as error:  # noqa: BLE001 - whatever a parser raises says that the text does not fit
            from evflow.exception import class_name, text_of

            raise ConfigInvalid(
                f"Config '{spec.name}' ({source}) cannot be parsed: {class_name(error)}: {text_of(error)}",
                f"Mend it, or the parser ({spec.where}).",
            ) from None
    return _checked(spec, value, source)


def _checked(spec: ConfigSpec, value: object, source: str) -> object:
    if spec.plain or value is None:
        return value
    if isinstance(cast("Any", value), Mapping):
        try:
            as_plain(value)
        except RecursionError:
            raise ConfigInvalid(
                f"Config '{spec.name}' ({source}) holds itself, or is nested too deeply.", "Steps could not have it."
            ) from None
        return value
    raise ConfigInvalid(
        f"Config '{spec.name}' ({source}) is {_kind(value)}, and a configuration is a map of names to values.",
        f"plain=True takes anything ({spec.where}).",
    )


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _has_delayed(value: object) -> bool:
    if isinstance(value, Delayed):
        return True
    if isinstance(value, dict):
        return any(map(_has_delayed, cast("dict[object, object]", value).values()))
    return isinstance(value, list | tuple | set) and any(map(_has_delayed, cast("Iterable[object]", value)))


def _valued(value: Any, known: Mapping[str, object]) -> Any:
    """A value with the expressions in it worked out, as what the user would have written in their place."""
    if isinstance(value, Delayed):
        return as_plain(evaluate(value, known))
    if isinstance(value, dict):
        given: dict[Any, Any] = {}
        for key, item in cast("Any", value).items():
            made: Any = _valued(item, known)
            if isinstance(key, str) and key.startswith(UNPACKED):
                if not isinstance(made, Mapping):
                    raise ConfigInvalid(f"**{item!r}: it is {_kind(made)}, and ** takes a map of names to values.")
                given.update(cast("Any", made))
            else:
                given[key] = made
        return given
    if type(value) in (list, tuple, set):
        return type(value)(_valued(item, known) for item in value)
    return value


def _configured(decorator: StepDecorator, known: Mapping[str, object]) -> StepDecorator:
    return type(decorator)(_valued(decorator.given, known), decorator.where)


def _parameter(parameter: Parameter[Any], known: Mapping[str, object]) -> Parameter[Any]:
    if not any(map(_has_delayed, (parameter.default, parameter.help))):
        return parameter
    settled = copy.copy(parameter)
    settled.default, settled.help = _valued(parameter.default, known), _valued(parameter.help, known)
    if not parameter.has_type:
        settled.type = type_of(settled.default)
    return settled


def configs_of(cls: type) -> list[Config]:
    """The configurations of a flow, inherited ones included, in the order of the source."""
    return list(facts(cls).configs.values())
