"""A flow's parameters as options of `run`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from evflow.flow.parameter_values import ParameterInvalid, converted, default_shown, one, resolve, type_name, variable
from evflow.flow.parameters import Parameter, of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_VARIABLE = click.core.ParameterSource.ENVIRONMENT


class ParameterOptions:
    """The options for a flow's parameters, and the way back from their values to parameters.

    Args:
        flow: The flow's class.
        resumed: The options are those of `resume`: what is not given is the origin's.
    """

    def __init__(self, flow: type, *, resumed: bool = False) -> None:
        self._flow = flow
        # An option's name inside click must be an identifier and must not meet the names of run's own options.
        self._parameters = {f"parameter_{index}": parameter for index, parameter in enumerate(of(flow))}
        self._from_variables: set[str] = set()
        self.options: list[click.Option] = [
            _option_anew(name, parameter) if resumed else _option(name, parameter) for name, parameter in self._parameters.items()
        ]

    def taken(self, given: dict[str, Any]) -> dict[str, Any]:
        """Take the parameters out of click's values: what the user gave, by the parameter's name."""
        context = click.get_current_context(silent=True)
        sources = {} if context is None else {name: context.get_parameter_source(name) for name in self._parameters}
        self._from_variables = {self._parameters[name].name for name, source in sources.items() if source is _VARIABLE}
        values = {parameter.name: given.pop(name, None) for name, parameter in self._parameters.items()}
        return {name: value for name, value in values.items() if value is not None and value != ()}

    def resolved(self, given: Mapping[str, Any], *, user: str) -> dict[str, Any]:
        """Every parameter's value by its attribute: what was given, else its default.

        Raises:
            UsageError: A default is not what the parameter takes.
        """
        variables = {variable(name): text for name, text in given.items() if name in self._from_variables}  # so that errors name them
        typed = {name: text for name, text in given.items() if name not in self._from_variables}
        return dict(resolve(self._flow, typed, variables, user=user))


def _option(name: str, parameter: Parameter[Any]) -> click.Option:
    return click.Option(
        [f"--{parameter.name}", name],
        type=_Kind(parameter),
        required=parameter.required and parameter.default is None,
        envvar=variable(parameter.name),
        help=described(parameter),
        **_flag(parameter),
    )


def _option_anew(name: str, parameter: Parameter[Any]) -> click.Option:
    return click.Option([f"--{parameter.name}", name], type=_Kind(parameter), help=parameter.help, **_flag(parameter))


def _flag(parameter: Parameter[Any]) -> dict[str, Any]:
    """Of a flag, its name alone says True; a value may follow all the same: a `Runner` gives one."""
    if parameter.is_several:
        return {"multiple": parameter.multiple, "nargs": max(1, parameter.nargs)}
    return {"is_flag": False, "flag_value": "True"} if parameter.is_flag else {}


def described(parameter: Parameter[Any]) -> str:
    """The parameter's help and default, for `--help` and `show`."""
    default = default_shown(parameter)
    if default is not None:
        note = f"[default: {default}]"
    elif callable(parameter.default):
        note = "[default: computed]"
    else:
        note = "[required]" if parameter.required else ""
    return "  ".join(part for part in (parameter.help or "", note) if part)


class _Kind(click.ParamType):  # type: ignore[type-arg]  # generic since 8.5 only
    """Checks a parameter's text as the flow language does, and leaves it a text: `resolved` converts it, once."""

    def __init__(self, parameter: Parameter[Any]) -> None:
        self._parameter = parameter
        self.name = type_name(parameter)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        """The files of the folder, where a file is wanted."""
        return click.Path().shell_complete(ctx, param, incomplete) if self._parameter.reads_file else []

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if self._parameter.reads_file:
            return value  # it is read once, when the run starts
        source = param.name and ctx.get_parameter_source(param.name) if param and ctx else None
        try:
            (one if self._parameter.is_several else converted)(
                self._parameter, value, source=variable(self._parameter.name) if source is _VARIABLE else ""
            )
        except ParameterInvalid as error:
            raise click.UsageError(error.message, ctx) from None
        return value
