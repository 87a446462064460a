"""Show a run that somebody else carries out, from its log and from what its tasks print, until it is over."""

from evflow import config
from evflow.cli import explain_owner
from evflow.cli.live import LiveView, make_view
from evflow.core import events as ev
from evflow.core.apply import apply
from evflow.core.codec import decode
from evflow.core.ids import AttemptId, RunId, TaskId
from evflow.core.state import RunState
from evflow.core.summary import GONE
from evflow.log.owners import is_owned
from evflow.log.protocol import LogClient
from evflow.store.logs import find_folder, read_on
from evflow_executors.protocol import OutputLine
from evflow_scheduler.request import RunView

_WAIT_S = 1.0
"""How long one read waits at the server for the next event; then it is looked for what tasks print."""
_PICTURE_S = 0.25
"""The same where a live view has clocks that move."""

_ENDS = (
    ev.AttemptSucceeded, ev.AttemptFailed, ev.AttemptExited, ev.AttemptLost, ev.AttemptCrashed, ev.AttemptTimedOut, ev.AttemptCancelled,
)  # fmt: skip


def follow(log: LogClient, run: RunId, shard: str, *, quiet: bool) -> RunState:
    """Follow a run and show it.

    Raises:
        LogUnavailable: The log cannot be read any more; the run goes on.
        RunGone: The run never begins.
        KeyboardInterrupt: Ctrl-C: the run goes on, and that is said.
    """
    view = make_view(quiet=quiet, followed=True)
    wait_s = _PICTURE_S if isinstance(view, LiveView) else _WAIT_S
    state, output = RunState(), _Output(run, view)
    view.on_start(run)
    told = False
    try:
        while not state.sealed:
            if not state.seq and not told and not is_owned(log, shard):
                view.on_notice(explain_owner.waits(str(run), log, shard))
                told = True
            for stored in log.follow(shard, run, state.seq, wait_s):
                record = decode(stored.seq, stored.payload)
                apply(state, record)
                output.hear(record.event, state)
                view.on_event(record, state)
            if not state.seq:
                _raise_if_gone(log, run)
            output.look(state)
            view.tick()
    except KeyboardInterrupt:
        view.on_notice(f"{run} goes on without being watched: `evflow show {run}`; `evflow cancel {run}` ends it.")
        raise
    finally:
        view.close()
    return state


def _raise_if_gone(log: LogClient, run: RunId) -> None:
    line = log.run(run)
    if line is not None and line.summary.get("status") in GONE:
        from evflow.replay.load import RunGone

        raise RunGone(line)


class _Output:
    """What the attempts of a run print, where the store can be seen from here.

    The last lines of an attempt may be written a moment after its report, so one that has ended is looked at twice more. What is
    looked at is never more than what runs and what ended since: a run may have a hundred thousand tasks.
    """

    def __init__(self, run: RunId, view: RunView) -> None:
        self._run = run
        self._view = view
        self._folder: str | None = None
        self._running: dict[tuple[int, int], int] = {}
        self._ended: list[dict[tuple[int, int], int]] = [{}, {}]

    def hear(self, event: ev.Event, state: RunState) -> None:
        """An event is to be shown: what an attempt printed stands before the word that it has ended."""
        if isinstance(event, ev.AttemptStarted):
            self._running[event.task, event.attempt] = 0
        elif isinstance(event, _ENDS):
            attempt = (event.task, event.attempt)
            self._ended[0][attempt] = self._show(state, attempt, self._running.pop(attempt, 0))

    def look(self, state: RunState) -> None:
        """Show what was printed since the last look."""
        for offsets in (*reversed(self._ended), self._running):
            for attempt, offset in offsets.items():
                offsets[attempt] = self._show(state, attempt, offset)
        self._ended = [{}, self._ended[0]]

    def _show(self, state: RunState, attempt: tuple[int, int], offset: int) -> int:
        if self._folder is None:
            self._folder = find_folder(str(state.header.get("store") or ""), self._run, config.get("store"))
            if self._folder is None:
                return offset
        lines, offset = read_on(self._folder, *attempt, offset)
        name = AttemptId(self._run, TaskId(attempt[0]), attempt[1])
        for line in lines:
            self._view.on_line(OutputLine(name, line.stream, line.at_us, line.text))
        return offset
