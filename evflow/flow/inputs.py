"""What a join's second argument is.

It has no attributes but the names of the branches' last steps, so that no step's name is taken.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

from evflow.errors import did_you_mean

if TYPE_CHECKING:
    from evflow.flow.joined import JoinedTasks


class Inputs:
    """The joined tasks, by position, by slice, by the name of a branch's last step, or one after the other.

    The order is that of the foreach's items, or of the branches in the source. What is set on an input changes the copy in
    this step's memory only.
    """

    __slots__ = ("_evflow_joined",)

    def __init__(self, joined: "JoinedTasks") -> None:
        self._evflow_joined = joined

    def __len__(self) -> int:
        return len(self._evflow_joined)

    def __iter__(self) -> Iterator[Any]:
        return map(self._evflow_joined.flow, range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._evflow_joined.flow(position) for position in range(len(self))[index]]
        try:
            position = range(len(self))[index]
        except IndexError:
            raise IndexError(f"This join has {len(self)} inputs; there is no inputs[{index}].") from None
        return self._evflow_joined.flow(position)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"Inputs have no attribute '{name}'.")
        index = self._evflow_joined.find(name)
        if index is None:
            steps = self._evflow_joined.steps()
            text = f"No input of this join comes from a step '{name}'; they come from: {', '.join(steps)}."
            raise AttributeError(f"{text}{did_you_mean(name, steps)}")
        return self._evflow_joined.flow(index)

    def __repr__(self) -> str:
        return f"<{len(self)} inputs of {self._evflow_joined.cls.__name__}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("the inputs of a join cannot be kept as an artifact; keep the values that you need from them")
