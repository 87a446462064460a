"""`Config`: what a flow is configured with before anything of it is looked at.

While the class is being read a configuration has no value yet: nobody has said which file it is in. So `cfg.a.b` there is a
`Delayed`, which decorators, defaults of parameters and attributes of the class take in place of a value, and which gets its
value when the configurations are settled (`evflow.flow.config_values`): by the command that reads the flow, by each task.
In a step `self.cfg` is the value, a `ConfigValue`.

A user's import pays for this module; what only a command or a task needs is in `evflow.flow.config_values`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Never, NoReturn, Self, cast, overload

from evflow.flow.named_parser import Parser
from evflow.flow.steps import LANGUAGE, NOT_MODIFIABLE, SCOPE, UNPACKED, Where, caller, facts, frame_above

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec
    from evflow.flow.parameter_values import ParameterContext

_OURS: Final = ("__", "evflow_", "_evflow_", UNPACKED)
"""Names that are asked of anything that stands in a class: no configuration has them."""


class Delayed:
    """An expression over configurations that has no value yet; attributes and items of it are such expressions too."""

    __slots__ = ("_evflow_expression", "_evflow_globals", "_evflow_path", "_evflow_where")

    is_delayed = True
    is_flow_parameter = False
    is_flow_config = False

    def __init__(
        self, expression: str, where: Where, variables: Mapping[str, Any] | None = None, path: tuple[tuple[str, object], ...] = ()
    ) -> None:
        """Take note of an expression.

        Args:
            expression: Python, in which configurations go by their names.
            where: Where it is written.
            variables: What else its names may mean.
            path: What is taken of its value: `(".", attribute)` and `("[", key)`.
        """
        self._evflow_expression = expression
        self._evflow_globals = variables
        self._evflow_path = path
        self._evflow_where = where

    def __getattr__(self, name: str) -> Any:  # to type checkers it is what it will be
        if name.startswith(_OURS):
            raise AttributeError(name)
        return self._evflow_step((".", name))

    def __getitem__(self, key: object) -> Any:
        if isinstance(key, str) and key.startswith(UNPACKED):
            return self
        return self._evflow_step(("[", key))

    def keys(self) -> Iterable[str]:
        """For `**cfg.a`: one key, that stands for all that there will be."""
        return (f"{UNPACKED}{id(self)}",)

    def __call__(self, context: object = None) -> Any:
        """The value, once configurations are settled: so it may stand where a function for a default does."""
        from evflow.flow.config_values import evaluate_now

        return evaluate_now(self)

    def _evflow_step(self, step: tuple[str, object]) -> "Delayed":
        return Delayed(self._evflow_expression, caller(2), self._evflow_globals, (*self._evflow_path, step))

    def __iter__(self) -> NoReturn:
        self._evflow_refuse("gone through")

    def __bool__(self) -> NoReturn:
        self._evflow_refuse("asked whether it is true")

    def __str__(self) -> str:
        self._evflow_refuse("made a text")

    def __format__(self, spec: str) -> str:
        self._evflow_refuse("put into a text")

    def _evflow_work(self, *_: object) -> NoReturn:
        self._evflow_refuse("worked with")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _evflow_work
    __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __or__ = __ror__ = __and__ = __rand__ = _evflow_work
    __int__ = __float__ = __index__ = __len__ = __contains__ = _evflow_work

    def _evflow_compare(self, _: object) -> bool:
        self._evflow_refuse("compared")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _evflow_compare
    __hash__ = object.__hash__

    def _evflow_refuse(self, what: str) -> NoReturn:
        raise TypeError(
            f"{self!r} has no value yet and cannot be {what} while the flow's class is read: nobody has said which file it is in. "
            f'Write config_expr("…"), which is worked out once it has.'
        )

    def __repr__(self) -> str:
        taken = "".join(f".{key}" if kind == "." else f"[{key!r}]" for kind, key in self._evflow_path)
        return (
            f"{self._evflow_expression}{taken}"
            if not taken or self._evflow_expression.isidentifier()
            else f"({self._evflow_expression}){taken}"
        )


class ConfigSpec:
    """What a `Config` was declared with; see `Config`."""

    __slots__ = ("attribute", "default", "default_value", "help", "name", "options", "parser", "plain", "required", "where")

    def __init__(self, name: str, default: Any, default_value: Any, where: Where) -> None:
        self.name = name
        self.default = default
        self.default_value = default_value
        self.where = where
        self.attribute = ""
        self.help: str | None = None
        self.required = False
        self.parser: Parser | None = None
        self.plain = False
        self.options: Mapping[str, object] = {}


class Config(Delayed):
    """A configuration of the flow.

    Its attributes are those of the configuration; what it was declared with is in `spec_of`.
    """

    __slots__ = ("_evflow_spec",)

    is_flow_config = True

    def __init__(
        self,
        name: str,
        default: "str | Callable[[ParameterContext], str] | None" = None,
        default_value: "str | Mapping[str, Any] | Callable[[ParameterContext], Any] | None" = None,
        help: str | None = None,  # noqa: A002 - Metaflow's names
        required: bool | None = None,
        parser: Parser | None = None,
        plain: bool | None = False,
        **options: Any,
    ) -> None:
        """Declare a configuration.

        Args:
            name: Its name on the command line: `--config name file`.
            default: A path, or a function that gets a `ParameterContext` and returns one. A relative one is looked for in the
                current folder, then beside the flow's file.
            default_value: A value, a text as a file would hold it, or a function that returns either. Not beside `default`.
            help: A sentence for people.
            required: The flow has no use without it. One that is not, and has no value, is None.
            parser: A function, or its dotted name, that makes of a file's text what it says; without it, JSON.
            plain: Steps get what the parser returned, whatever it is, and not a `ConfigValue`.
            options: Other fields, which change nothing but Metaflow's `--help`.
        """
        if getattr(name, "is_delayed", False):
            raise TypeError(f"{name!r} has no value yet: the name of a Config cannot come from a configuration.")
        where = caller(1)
        super().__init__(name, where)
        spec = ConfigSpec(name, default, default_value, where)
        spec.help, spec.required, spec.parser, spec.plain, spec.options = help, bool(required), parser, bool(plain), options
        self._evflow_spec = spec

    def __set_name__(self, owner: type, name: str) -> None:
        self._evflow_spec.attribute = self._evflow_spec.attribute or name

    @overload
    def __get__(self, flow: None, owner: type) -> Self: ...
    @overload
    def __get__(self, flow: "FlowSpec", owner: type) -> Any: ...
    def __get__(self, flow: "FlowSpec | None", owner: type) -> Any:
        if flow is None:
            return self
        spec = self._evflow_spec
        scope = getattr(flow, SCOPE)
        if scope is None:
            raise AttributeError(f"Config '{spec.name}' has a value only while a step runs.")
        return scope.parameter(spec.attribute, None if spec.plain else as_config)

    def __set__(self, flow: "FlowSpec", value: Never) -> NoReturn:
        raise AttributeError(f"{NOT_MODIFIABLE}: '{self._evflow_spec.attribute}' is a Config. Keep the new value under another name.")


def spec_of(config: Config) -> ConfigSpec:
    """What a configuration was declared with."""
    found: ConfigSpec = cast("Any", config)._evflow_spec  # noqa: SLF001 - its own attributes are the configuration's
    return found


class ConfigValue(dict[str, Any]):
    """A configuration that nobody can change; its entries are attributes too: `cfg.a.b` is `cfg["a"]["b"]`."""

    __slots__ = ()

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__({key: as_config(value) for key, value in values.items()})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            if name.startswith("__"):
                raise AttributeError(name) from None
            raise AttributeError(self._missing(name)) from None

    def __missing__(self, key: object) -> NoReturn:
        raise KeyError(self._missing(key))

    def _missing(self, key: object) -> str:
        from evflow.errors import did_you_mean

        has = f"It has: {', '.join(map(str, self))}.{did_you_mean(str(key), [*map(str, self)])}" if self else "It is empty."
        return f"The configuration has no '{key}' here. {has}"

    def to_dict(self) -> dict[str, Any]:
        """A dict of dicts, that may be changed."""
        return {key: as_plain(value) for key, value in self.items()}

    def copy(self) -> Self:
        """Itself: nobody can change it."""
        return self

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("A configuration cannot be changed. `to_dict()` gives a dict that can.")

    __setattr__ = __delattr__ = __setitem__ = __delitem__ = __ior__ = _refuse
    update = setdefault = pop = popitem = clear = _refuse  # pyright: ignore[reportAssignmentType]

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (ConfigValue, (self.to_dict(),))


def config_expr(expression: str) -> Any:
    """An expression over configurations, worked out when they have their values.

    `@resources(cpu=config_expr("cfg.workers * 2"))`. Configurations go by their names, everything else as in the module in
    which this is called.

    Args:
        expression: Python.
    """
    return Delayed(expression, caller(1), frame_above(1).f_globals)


def as_config(value: Any) -> Any:
    """A value with the dicts in it as `ConfigValue`s."""
    if isinstance(value, ConfigValue):
        return value
    if isinstance(value, Mapping):
        return ConfigValue(cast("Mapping[str, Any]", value))
    if type(value) in (list, tuple, set):
        return type(value)(as_config(item) for item in value)
    return value


def as_plain(value: Any) -> Any:
    """The inverse of `as_config`."""
    if isinstance(value, Mapping):
        return {key: as_plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if type(value) in (list, tuple, set):
        return type(value)(as_plain(item) for item in value)
    return value


def mistakes(cls: type) -> Iterator[tuple[str, Where, str, str]]:
    """What is wrong with a flow's configurations, as far as it shows without their values: code, place, message, hint."""
    from evflow.flow.named_parser import parser_mistake
    from evflow.flow.parameters import canonical

    found = facts(cls)
    seen = {canonical(str(parameter.name)): f"Parameter '{parameter.name}'" for parameter in found.parameters.values()}
    for attribute, config in found.configs.items():
        spec = spec_of(config)
        name = cast("object", spec.name)
        if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
            yield "config-name", spec.where, f"Config name {name!r} is not valid.", "Use letters, digits, dashes and underscores."
            continue
        if canonical(name) in seen:
            what = f"Config '{name}' and {seen[canonical(name)]} have the same name."
            yield "config-clash", spec.where, what, "Choose another name for one of them."
        seen[canonical(name)] = f"Config '{name}'"
        if attribute.startswith("_") or attribute in LANGUAGE:
            what = f"Config '{name}' is in the attribute '{attribute}', which is private or a word of the flow language."
            yield "config-attribute", spec.where, what, "Choose another name for the attribute."
        if spec.default is not None and spec.default_value is not None:
            yield "config-defaults", spec.where, f"Config '{name}' has both default and default_value.", "Keep one of them."
        wrong = parser_mistake(spec.parser)
        if wrong:
            yield "config-parser", spec.where, f"Config '{name}' has a parser that {wrong}.", ""
