"""The parameters of a deployed flow, described so that texts can become their values without the flow's code.

Types are those that a text can be turned into by everybody: the flow language's own, and click's `Choice`. A stand-in class with
parameters built from the descriptions goes through the same conversions as the flow's own class does on the command line.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from evflow.core.values import declared, fits, value
from evflow.errors import UsageError
from evflow.flow.includefile import ENCODING, IncludeFile
from evflow.flow.parameters import JSONType, Parameter

_KINDS: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "json": JSONType}
_CHOICE = "choice"
FILE: Final = "file"
"""The kind of a parameter that reads a file."""


class ParameterNeedsCode(UsageError):
    """A parameter's type is of the flow's own making: nothing but the flow's code turns a text into its value."""

    code = "parameter-needs-code"

    def __init__(self, parameter: Parameter[Any]) -> None:
        kind = getattr(parameter.type, "__name__", None) or type(parameter.type).__name__
        super().__init__(
            f"Parameter '{parameter.name}' ({parameter.where}) has the type {kind}, whose values only the flow's own code can read; runs of a "
            "deployment are asked for without it.",
            "Use int, float, str, bool, JSONType or a Choice of texts.",
        )


@value
class ParameterSpec:
    """A parameter of a deployed flow.

    Attributes:
        name: Its name on the command line.
        attribute: Its attribute in the flow.
        kind: `int`, `float`, `str`, `bool`, `json`, `choice` or `file`.
        required: A run cannot start without it: it has no default.
        separator: Where the text is split into a list, or None.
        help: A sentence for people.
        default_shown: The default for people, computed when the flow was deployed; its value is among the deployment's values.
        choices: The texts of a `choice`.
        case_sensitive: A `choice` tells cases apart.
        is_text: A `file` is text, else bytes.
        encoding: Of that text.
        multiple: It may be given more than once, and its value is a tuple.
        nargs: How many values it has, where its value is a tuple of so many; else 1.
    """

    name: str
    attribute: str
    kind: str = "str"
    required: bool = False
    separator: str | None = None
    help: str = ""
    default_shown: str = ""
    choices: tuple[str, ...] = ()
    case_sensitive: bool = True
    is_text: bool = True
    encoding: str = ENCODING
    multiple: bool = False
    nargs: int = 1


_SEVERAL: Final = {"multiple": False, "nargs": 1}
"""Left out of a manifest where they say nothing: that of a flow without them is as it was."""
_FIELDS = declared(ParameterSpec)


def spec_of(parameter: Parameter[Any], default_shown: str = "") -> ParameterSpec:
    """Describe a parameter.

    Raises:
        ParameterNeedsCode: Its type cannot be described.
    """
    if isinstance(parameter, IncludeFile):
        file: IncludeFile[Any] = parameter
        return ParameterSpec(
            file.name, file.attribute, FILE, is_required(file), None, file.help or "", default_shown,
            is_text=file.is_text, encoding=file.encoding,
        )  # fmt: skip
    kind, choices, case_sensitive = _kind_of(parameter)
    return ParameterSpec(
        parameter.name, parameter.attribute, kind, is_required(parameter), parameter.separator, parameter.help or "",
        default_shown, choices, case_sensitive, multiple=parameter.multiple, nargs=parameter.nargs,
    )  # fmt: skip


def is_required(parameter: Parameter[Any]) -> bool:
    """Whether no run can start without a value for it."""
    return parameter.required and parameter.default is None


def stand_in(flow: str, specs: Iterable[ParameterSpec]) -> type:
    """A class of the flow's name with its parameters, and nothing else of it."""
    return type(flow, (), {spec.attribute: _parameter(spec) for spec in specs})


def to_plain(spec: ParameterSpec) -> dict[str, Any]:
    """As a manifest holds it."""
    return {name: getattr(spec, name) for name in _FIELDS if name not in _SEVERAL or getattr(spec, name) != _SEVERAL[name]}


def from_plain(plain: Mapping[str, Any]) -> ParameterSpec:
    """The inverse of `to_plain`; fields of later versions are dropped.

    Raises:
        ValueError: It is no parameter, or of a kind that this version does not know.
    """
    known: dict[str, Any] = {}
    for name in _FIELDS.keys() & plain.keys():
        given = tuple(plain[name]) if isinstance(plain[name], list) else plain[name]
        if not fits(given, _FIELDS[name]):
            raise ValueError(f"a parameter's {name} is {type(given).__name__}")
        known[name] = given
    if not {"name", "attribute"} <= known.keys():
        raise ValueError("a parameter without a name")
    spec = ParameterSpec(**known)
    if spec.kind not in _KINDS and spec.kind not in (_CHOICE, FILE):
        raise ValueError(f"parameter '{spec.name}' is of the kind '{spec.kind}', which this evflow does not know")
    return spec


def _kind_of(parameter: Parameter[Any]) -> tuple[str, tuple[str, ...], bool]:
    for kind, of in _KINDS.items():
        if parameter.type is of:
            return kind, (), True
    choices = _choices(parameter.type)
    if choices is None:
        raise ParameterNeedsCode(parameter)
    return _CHOICE, tuple(choices), bool(getattr(parameter.type, "case_sensitive", True))


def _choices(kind: Any) -> Sequence[str] | None:
    """The texts of a `click.Choice`, which is recognised without importing click."""
    if type(kind).__name__ != "Choice" or type(kind).__module__.partition(".")[0] != "click":
        return None
    choices = list(kind.choices)
    return choices if all(isinstance(choice, str) for choice in choices) else None


def _parameter(spec: ParameterSpec) -> Parameter[Any]:
    if spec.kind == FILE:
        file: IncludeFile[Any] = IncludeFile(
            spec.name, is_text=spec.is_text, encoding=spec.encoding, required=spec.required, help=spec.help
        )
        return file
    kind = _KINDS.get(spec.kind)
    if kind is None:
        import click  # of flows without such a parameter nobody needs it

        kind = click.Choice(spec.choices, case_sensitive=spec.case_sensitive)
    several: dict[str, Any] = {"multiple": spec.multiple, "nargs": spec.nargs} if spec.multiple or spec.nargs != 1 else {}
    parameter: Parameter[Any] = Parameter(spec.name, type=kind, required=spec.required, help=spec.help, separator=spec.separator, **several)
    return parameter
