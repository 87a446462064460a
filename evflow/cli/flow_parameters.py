"""A flow's parameters as options of `run`."""

import json
from collections.abc import Mapping
from typing import Any

import click

from evflow.cli.flow_main import FlowContext


class ParameterOptions:
    """The options for a flow's parameters, and the way back from their values to parameters.

    Args:
        flow: The flow's class.
    """

    def __init__(self, flow: type) -> None:
        from evflow.flow.parameters import of

        self._flow = flow
        # An option's name inside click must be an identifier and must not meet the names of run's own options.
        self._parameters = {f"parameter_{index}": parameter for index, parameter in enumerate(of(flow))}
        self.options: list[click.Parameter] = [_option(name, parameter) for name, parameter in self._parameters.items()]

    def taken(self, given: dict[str, Any]) -> dict[str, Any]:
        """Take the parameters out of click's values: what the user gave, by the parameter's name."""
        values = {parameter.name: given.pop(name) for name, parameter in self._parameters.items()}
        return {name: value for name, value in values.items() if value is not None}

    def resolved(self, context: FlowContext, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter's value: what was given, else its default."""
        from evflow.flow.parameters import resolve

        return dict(resolve(self._flow, given))


def _option(name: str, parameter: Any) -> click.Option:
    return click.Option(
        [f"--{parameter.name}", name],
        type=_kind(parameter),
        required=bool(parameter.required),
        envvar=f"EVFLOW_RUN_{parameter.name.upper().replace('-', '_')}",
        help=_help(parameter),
    )


def _help(parameter: Any) -> str:
    text = str(parameter.help or "")
    default = parameter.default
    if default is None or callable(default) or parameter.show_default is False:
        return text
    shown = parameter.show_default if isinstance(parameter.show_default, str) else default
    return f"{text}  [default: {shown}]".strip()


class _Json(click.ParamType[Any]):
    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError as error:
            self.fail(f"{value!r} is not JSON: {error}", param, ctx)


def _kind(parameter: Any) -> Any:
    kind = parameter.type
    if getattr(kind, "__name__", type(kind).__name__) in ("JSONType", "JSONTypeClass"):
        return _Json()
    return kind if kind in (int, float, bool, str) or isinstance(kind, click.ParamType) else str
