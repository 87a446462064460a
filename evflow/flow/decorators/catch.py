"""`@catch`: a flow goes on although a step failed."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from evflow.exception import ExceptionWrapper
from evflow.flow.decorators.base import F, StepDecorator, apply

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec


class Catch(StepDecorator):
    """See `catch`."""

    name = "catch"
    defaults = MappingProxyType({"var": None, "print_exception": True})

    def mistakes(self) -> Iterator[str]:
        """`var` can be an artifact's name."""
        var = self.value("var")
        if var is not None and not (isinstance(var, str) and var.isidentifier() and not var.startswith("__")):
            yield f"@catch takes the name of an artifact as var, not {var!r}."

    def policy(self) -> Mapping[str, object]:
        """That it stands there, and its variable."""
        return {"catch": True, "catch_var": self.value("var")}

    def after(self, flow: "FlowSpec") -> None:
        """Say in the variable that nothing was caught."""
        if self.value("var"):
            setattr(flow, self.value("var"), None)

    def takes(self, flow: "FlowSpec", error: BaseException) -> bool:
        """Take the exception: show it, and keep it in the variable."""
        from evflow.flow.tracebacks import show, user_traceback

        stacktrace = user_traceback(error)
        if self.value("print_exception"):
            show(stacktrace)
        if self.value("var"):
            setattr(flow, self.value("var"), ExceptionWrapper(error, stacktrace))
        return True


@overload
def catch(function: F, /) -> F: ...
@overload
def catch(*, var: str | None = None, print_exception: bool = True) -> Callable[[F], F]: ...
def catch(function: Any = None, /, **fields: Any) -> Any:  # noqa: D417
    """Let the flow go on after the last attempt of a step failed.

    The artifacts that the step set before stay. It must have one `self.next`, and lead neither into a foreach nor a switch.

    Args:
        function: The step, where it is used bare.
        var: The artifact that takes the exception (an `ExceptionWrapper`), or None where the step succeeded.
        print_exception: Print the exception on the step's stderr.
    """
    return apply(Catch, function, fields)
