"""Parameters of a flow: declared in its class, given when a run starts, read-only in its steps.

A `Parameter` is a data descriptor: on the class it is itself, on an instance inside a task it is the run's value.
Values come, in this order, from the caller (the command line, a client), the variable `EVFLOW_RUN_<NAME>`, the default.

A user's import pays for this module; what only a starting run needs is in `evflow.flow.parameter_values`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Never, NoReturn, TypeVar, cast, overload

from evflow.flow.steps import LANGUAGE, NOT_MODIFIABLE, SCOPE, Where, caller, facts

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec
    from evflow.flow.parameter_values import ParameterContext

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

RESERVED: Final = frozenset(
    {"help", "max_log_size", "max_num_splits", "max_workers", "namespace", "obj", "params", "run_id", "run_id_file", "tag", "tags"}
    | {"decospecs", "runner_attribute_file", "task_id", "user_namespace", "with"}
)
"""Names that a parameter cannot have, dashes written as underscores: the command line's own options."""

IGNORED: Final = frozenset({"hidden", "metavar", "show_choices", "show_envvar"})
"""Fields that Metaflow hands to click, and that change nothing but its `--help`."""
_FLAG: Final = "is_flag"
_SEVERAL: Final = ("multiple", "nargs")


class JSONType:
    """The type of a parameter that takes any JSON value: `Parameter("sizes", type=JSONType, default="[1, 2]")`."""


class Parameter(Generic[T_co]):
    """A value that a run of the flow is started with.

    Attributes:
        name: Its name on the command line.
        default: The default as the user wrote it: a value, a function of a `ParameterContext`, or None.
        type: `int`, `float`, `str`, `bool`, `JSONType`, or what else the user gave, before `separator` splits.
        help: A sentence for `--help`.
        required: A run cannot start without it.
        show_default: `--help` shows the default.
        separator: The text is split there into a list.
        has_type: The type was given, and does not follow from the default.
        where: Where it is defined.
        options: Other fields, which `check` tells of, but for `is_flag`, `multiple`, `nargs` and those of `IGNORED`.
    """

    is_flow_parameter = True
    reads_file: ClassVar[bool] = False
    """What is given is the path of a file, and the value is what the file holds (`evflow.flow.includefile`)."""
    fields: ClassVar[tuple[str, ...]] = ("name", "default", "type", "help", "required", "show_default", "separator")

    @overload
    def __init__(
        self: "Parameter[list[str]]",
        name: str,
        default: "str | Callable[[ParameterContext], str] | None" = None,
        type: type[str] | None = None,
        help: str | None = None,
        required: bool | None = None,
        show_default: bool = True,
        *,
        separator: str,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "Parameter[Any]",
        name: str,
        default: Any = None,
        *,
        type: type[JSONType],
        help: str | None = None,
        required: bool | None = None,
        show_default: bool = True,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "Parameter[T]",
        name: str,
        default: "Callable[[ParameterContext], T]",
        type: type[T] | None = None,
        help: str | None = None,
        required: bool | None = None,
        show_default: bool = True,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "Parameter[T]",
        name: str,
        *,
        type: type[T],
        help: str | None = None,
        required: bool | None = None,
        show_default: bool = True,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "Parameter[str]",
        name: str,
        default: None = None,
        type: None = None,
        help: str | None = None,
        required: bool | None = None,
        show_default: bool = True,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "Parameter[T]",
        name: str,
        default: T,
        type: type[T] | None = None,
        help: str | None = None,
        required: bool | None = None,
        show_default: bool = True,
        **options: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: "Parameter[Any]",
        name: str,
        default: Any = None,
        type: Any = None,
        help: str | None = None,
        required: bool | None = None,
        show_default: bool = True,
        separator: str | None = None,
        **options: Any,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        default: Any = None,
        type: Any = None,  # noqa: A002 - Metaflow's names
        help: str | None = None,  # noqa: A002
        required: bool | None = None,
        show_default: bool = True,
        separator: str | None = None,
        **options: Any,
    ) -> None:
        """Declare a parameter.

        Args:
            name: Its name on the command line: `run --name value`.
            default: A value of its type, or a function that gets a `ParameterContext` and returns one.
            type: `int`, `float`, `str`, `bool` or `JSONType`; without it the type of the default, else `str`.
            help: A sentence for `--help`.
            required: A run cannot start without it.
            show_default: Show the default in `--help`.
            separator: Split the text there: the value is a list of strings.
            options: `is_flag=True`: the name alone says True on the command line; `multiple=True`: it may be given more than once; `nargs=2`: so many words
                follow it. The value is a tuple with the last two. Other fields: see `IGNORED`.
        """
        for field in (name, type, separator, show_default):
            if getattr(field, "is_delayed", False):
                raise TypeError(f"{field!r} has no value yet: of a Parameter, only default and help may come from a configuration.")
        self.name = name
        self.default = default
        self.help = help
        self.required = bool(required)
        self.show_default = show_default
        self.separator = separator
        self.options = options
        self.has_type = type is not None
        self.type: Any = (_type_of_each(default) if self.is_several else type_of(default)) if type is None else type
        self.where = caller(1)
        self.attribute = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = self.attribute or name

    @overload
    def __get__(self, flow: None, owner: type) -> "Parameter[T_co]": ...
    @overload
    def __get__(self, flow: "FlowSpec", owner: type) -> T_co: ...
    def __get__(self, flow: "FlowSpec | None", owner: type) -> Any:
        if flow is None:
            return self
        scope = getattr(flow, SCOPE)
        if scope is None:
            raise AttributeError(f"Parameter '{self.name}' has a value only while a step runs.")
        return scope.parameter(self.attribute, self.made)

    @property
    def is_flag(self) -> bool:
        """On the command line its name alone says True, as in Metaflow with `is_flag=True`."""
        return bool(self.options.get(_FLAG))

    @property
    def multiple(self) -> bool:
        """It may be given more than once, and its value is a tuple."""
        return bool(self.options.get("multiple"))

    @property
    def nargs(self) -> int:
        """How many words follow it; with more than one its value is a tuple."""
        given = self.options.get("nargs", 1)
        return given if isinstance(given, int) else 1

    @property
    def is_several(self) -> bool:
        """Its value is a tuple."""
        return self.multiple or self.nargs != 1

    @property
    def made(self) -> Callable[[object], object] | None:
        """What makes the value in a step of what is stored; None where that is the value."""
        return None

    def __set__(self, flow: "FlowSpec", value: Never) -> NoReturn:
        raise AttributeError(f"{NOT_MODIFIABLE}: '{self.attribute}' is a Parameter. Keep the new value under another name.")

    def __repr__(self) -> str:
        return f"<Parameter {self.name} at {self.where}>"


def of(cls: type) -> list[Parameter[Any]]:
    """The parameters of a flow, inherited ones included, in the order of the source."""
    return list(facts(cls).parameters.values())


def canonical(name: str) -> str:
    """A parameter's name as names are compared: case, `-` and `_` do not count."""
    return name.lower().replace("-", "_")


def mistakes(cls: type) -> Iterator[tuple[str, Where, str, str]]:
    """What is wrong with a flow's parameters: code, place, message, hint."""
    from evflow.errors import did_you_mean

    seen: dict[str, Parameter[Any]] = {}
    for attribute, parameter in facts(cls).parameters.items():
        name = cast("object", parameter.name)
        if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
            yield "parameter-name", parameter.where, f"Parameter name {name!r} is not valid.", "Use letters, digits and underscores."
            continue
        if canonical(name) in RESERVED:
            yield "parameter-reserved", parameter.where, f"Parameter name '{name}' is a reserved word.", "Choose another name for it."
        other = seen.setdefault(canonical(name), parameter)
        if other is not parameter:
            yield (
                "parameter-clash",
                parameter.where,
                f"Parameters '{other.name}' ({other.where}) and '{name}' have the same name: case, '-' and '_' do not count.",
                "Choose another name for one of them.",
            )
        if attribute.startswith("_"):
            yield (
                "parameter-private",
                parameter.where,
                f"Parameter '{name}' is in the private attribute '{attribute}'.",
                "Give it a name without the underscore.",
            )
        if attribute in LANGUAGE:
            yield (
                "parameter-attribute",
                parameter.where,
                f"Parameter '{name}' is in the attribute '{attribute}', which the flow language uses itself.",
                "Choose another name for the attribute.",
            )
        if parameter.is_flag and parameter.type is not bool:
            yield (
                "parameter-flag",
                parameter.where,
                f"Parameter '{name}' is a flag, and its type is not bool.",
                "Say type=bool or a default that is True or False, or leave is_flag out.",
            )
        if parameter.is_several or parameter.options.get("nargs", 1) != 1:
            yield from _several_mistakes(parameter)
        for option in parameter.options:
            if option not in IGNORED and option != _FLAG and option not in _SEVERAL:
                yield (
                    "parameter-field",
                    parameter.where,
                    f"Parameter '{name}' has no field '{option}'.",
                    f"Its fields are: {', '.join(parameter.fields)}.{did_you_mean(option, parameter.fields)}",
                )
        yield from _type_mistakes(parameter)


def _several_mistakes(parameter: Parameter[Any]) -> Iterator[tuple[str, Where, str, str]]:
    nargs: object = parameter.options.get("nargs", 1)
    if not isinstance(nargs, int) or isinstance(nargs, bool) or nargs < 1:
        yield (
            "parameter-nargs",
            parameter.where,
            f"Parameter '{parameter.name}' has nargs={nargs!r}.",
            "Say how many words follow it: 1 or more.",
        )
    beside = [name for name, there in (
        ("separator", parameter.separator is not None), ("is_flag", parameter.is_flag), ("a file", parameter.reads_file),
        ("nargs", parameter.multiple and parameter.nargs != 1),
    ) if there]  # fmt: skip
    if beside:
        what = "multiple" if parameter.multiple else "nargs"
        yield (
            "parameter-several",
            parameter.where,
            f"Parameter '{parameter.name}' has {what} and {' and '.join(beside)}, which do not go together.",
            "Leave one of them out.",
        )


def _type_of_each(default: object) -> Any:
    values = list(cast("Iterable[object]", default)) if isinstance(default, list | tuple) else []
    return type_of(values[0]) if values else str


def type_of(default: object) -> Any:
    """The type of a parameter that has a default and no type."""
    if default is None or callable(default):
        return str
    return JSONType if isinstance(default, dict | list | tuple) else type(default)


def _type_mistakes(parameter: Parameter[Any]) -> Iterator[tuple[str, Where, str, str]]:
    from evflow.flow.parameter_values import ParameterInvalid, converted

    if parameter.reads_file:  # whether there is such a file shows when a run starts
        from evflow.flow import includefile

        yield from includefile.mistakes(cast("includefile.IncludeFile[Any]", parameter))
        return
    kind = parameter.type
    if kind not in (int, float, str, bool, JSONType) and not hasattr(kind, "convert"):
        shown = getattr(kind, "__name__", repr(kind))
        yield (
            "parameter-type",
            parameter.where,
            f"Parameter '{parameter.name}' has the type {shown}, which no text can be turned into.",
            "Use int, float, str, bool or JSONType.",
        )
        return
    if parameter.separator is not None and kind is not str:
        yield (
            "parameter-separator",
            parameter.where,
            f"Parameter '{parameter.name}' has a separator and is no string.",
            "A separator splits a string into a list: remove type, or use JSONType.",
        )
        return
    if parameter.default is not None and not callable(parameter.default):
        try:
            converted(parameter, parameter.default)
        except ParameterInvalid as error:
            yield "parameter-default", parameter.where, f"The default does not fit: {error.message}", ""
