"""What a `Runner` asks of a flow's process: names and values of Python, made into the words of a command of this flow.

The command itself says which options it has, so each name is checked before anything of it runs; values of parameters are written
as their parameters read them.
"""

import json
import os
from collections.abc import Iterator
from typing import Any, cast

import click

from evflow.cli.lazy import alike
from evflow.errors import UsageError, did_you_mean
from evflow.flow.parameter_values import ParameterInvalid, converted
from evflow.flow.parameters import JSONType, Parameter, of
from evflow.flow.steps import facts

OPTION = "--runner-call"
_CHUNK_BYTES = 1 << 16
_WITH = frozenset({"decospecs", "with-specs"})


class ArgumentUnknown(UsageError):
    """A command has no such option, and the flow no such parameter."""

    code = "argument-unknown"

    def __init__(self, flow: type, command: str, name: str, parameters: list[str], options: list[str]) -> None:
        has = f"Its parameters are {', '.join(parameters)}." if parameters else f"{flow.__name__} has no parameters."
        super().__init__(
            f"{flow.__name__} has no parameter '{name}', and '{command}' no such option.{did_you_mean(name, [*parameters, *options])}",
            f"{has} Options of '{command}' are {', '.join(options)}.",
        )


def words(flow: type, name: str, command: click.Command, descriptor: int, typed: list[str]) -> list[str]:
    """The words of a command: those that were typed, and those of the call that is to be read from a descriptor.

    Raises:
        ArgumentUnknown: The command has no such option.
        UsageError: A value is none of the option's, or of the parameter's.
    """
    call: dict[str, Any] = json.loads(_line(descriptor))
    options = {alike(word.removeprefix("--")): option for option in _options(command) for word in option.opts if word.startswith("--")}
    found = [*typed, *_of_options(flow, name, options, call["options"])]
    return [*found, "--", *call["arguments"]] if call["arguments"] else found


def _line(descriptor: int) -> bytes:
    """The call: to its end of line, since others may hold the pipe open."""
    taken = bytearray()
    while not taken.endswith(b"\n"):
        data = os.read(descriptor, _CHUNK_BYTES)
        if not data:
            raise UsageError(f"{OPTION}: nobody calls.", "A Runner starts processes with it; nobody else does.")
        taken += data
    os.close(descriptor)
    return bytes(taken)


def _options(command: click.Command) -> list[click.Option]:
    return [option for option in command.params if isinstance(option, click.Option)]


def _of_options(flow: type, command: str, options: dict[str, click.Option], given: dict[str, Any]) -> Iterator[str]:
    parameters = {alike(parameter.name): parameter for parameter in of(flow)}
    attributes = {alike(attribute): alike(parameter.name) for attribute, parameter in facts(flow).parameters.items()}
    for typed, value in given.items():
        key = alike(typed)
        key = key if key in options else attributes.get(key) or _ours(key)
        if key not in options:
            own = sorted(option.opts[0].removeprefix("--").replace("-", "_") for one, option in options.items() if one not in parameters)
            shown = [name for name in own if not options[alike(name)].hidden]
            raise ArgumentUnknown(flow, command, typed, [one.name for one in parameters.values()], shown)
        option = options[key]
        if key in parameters and parameters[key].is_several:
            yield from _several(option.opts[0], parameters[key], value)
        elif key in parameters:
            yield f"{option.opts[0]}={_text(parameters[key], value)}"
        else:
            yield from _of_option(typed, option, value)


def _ours(name: str) -> str:
    """The option of a name in Python that is another word."""
    return "with" if name in _WITH else "tag" if name == "tags" else name


def _of_option(typed: str, option: click.Option, value: Any) -> Iterator[str]:
    word = option.opts[0]
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{typed}={value!r}: it is True or False.")
        yield from [word] if value else option.secondary_opts[:1]
    elif isinstance(value, list) and option.multiple:
        yield from (f"{word}={one}" for one in cast("list[object]", value))
    elif isinstance(value, list | dict):
        raise UsageError(f"{typed}={value!r}: it is one value.")
    else:
        yield f"{word}={value}"


def _several(word: str, parameter: Parameter[Any], value: object) -> Iterator[str]:
    """The words of a parameter that is given more than once, or with several words."""
    fitting = cast("tuple[object, ...]", converted(parameter, value))
    items = [json.dumps(item) if parameter.type is JSONType else str(item) for item in fitting]
    yield from [word, *items] if parameter.nargs != 1 else (f"{word}={item}" for item in items)


def _text(parameter: Parameter[Any], value: object) -> str:
    """A value as the parameter reads it on a command line.

    Raises:
        ParameterInvalid: It does not fit.
    """
    if isinstance(value, str):
        return value
    if parameter.reads_file:
        raise ParameterInvalid(parameter.name, value, "the path of a file")
    fitting = converted(parameter, value)
    if parameter.type is JSONType:
        return json.dumps(fitting)
    if parameter.separator is not None and isinstance(fitting, list):
        items = cast("list[str]", fitting)
        if any(parameter.separator in item for item in items) or items == [""]:
            raise ParameterInvalid(parameter.name, items, f"a list of strings without {parameter.separator!r}, which separates them")
        return parameter.separator.join(items)
    return str(value)
