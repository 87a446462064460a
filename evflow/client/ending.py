"""A task that ends here, as its readers will see it: for the cards that it makes of itself before its end stands in the log."""

from evflow.client.history import RunHistory
from evflow.client.objects import find_run
from evflow.client.task import Task
from evflow.core.apply import apply
from evflow.core.codec import Record
from evflow.core.events import AttemptFailed, AttemptSucceeded
from evflow.core.ids import Micros, Seq


class _Ending(RunHistory):
    """A run's history with an event behind it that is about to be reported. It is read once."""

    def __init__(self, of: RunHistory, ended: AttemptSucceeded | AttemptFailed) -> None:
        super().__init__(of.log, of.entry)
        self._ended = ended
        self._is_ended = False

    def _advance(self) -> None:
        if self._is_ended:
            return
        super()._advance()
        state = self._state
        if state.sealed:
            return
        self._folding = True
        apply(state, Record(Seq(state.seq + 1), state.turn, Micros(self._ended.ended_us or state.at_us), "worker", 0, self._ended))
        self._folding = False
        self._is_ended = True


def ending_task(parts: tuple[str, ...], ended: AttemptSucceeded | AttemptFailed | None) -> Task:
    """A task of this process.

    Args:
        parts: Its flow, run, step and number.
        ended: What its attempt came to; None while it goes on.

    Raises:
        EvflowNotFound: The run is in no log, as in a spin.
    """
    history = find_run(*parts[:2])
    return Task.of(parts, _Ending(history, ended) if ended is not None else history)
