"""One attempt of one task, in a process of its own: from its order to its one report.

The body's exception, whatever it is, becomes a report; so does every mistake on the way to it and from it. Only two
ends have no report: a cancellation, because the scheduler asked for it and knows; and a log that cannot be reached in
time, because there is nobody to tell. The executor sees those by the exit.
"""

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Final, NoReturn

from evflow import masking
from evflow.clock import now_us
from evflow.core.codec import encode_report
from evflow.core.events import AttemptFailed, AttemptSucceeded
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.errors import EvflowError, UsageError
from evflow.flow import current, dialect
from evflow.flow.execution import Done, record_crash, run_step
from evflow.flow.flowspec import FlowSpec
from evflow.flow.steps import facts, is_mutated
from evflow.imports import framework_view, set_user_folder, user_view
from evflow.log import connect
from evflow.log.client import RedisLogClient
from evflow.log.errors import LogUnavailable
from evflow.log.wire import reply_timeout_s
from evflow.store import ObjectStore, open_store
from evflow.store.artifacts import ArtifactView, Code
from evflow.store.patience import hold_nothing, hold_results
from evflow.worker import descriptors, leftovers, locks, report, stdio
from evflow.worker.forks import EXIT_TWIN, EXIT_UNREPORTED, set_handler
from evflow.worker.rehearsal import rehearse
from evflow.worker.spec import AttemptOrder, RunContext

EXIT_REPORTED: Final = 0
"""The log has the report. So an exit with another code is an attempt without one."""
EXIT_NO_HOOKS: Final = 1
REPORT_WITHIN_S: Final = 30.0
"""How long an attempt tries to report: a killed server is back in a second or two, a failed-over one in ten."""
_SIGTERM: Final = int(signal.SIGTERM)
_HOST: Final = os.uname().nodename  # here, and not in each fork: it copies 13 pages for the answer


class Cancelled(BaseException):
    """SIGTERM came: the attempt ends. No `except Exception` of a body and no `@catch` takes it."""


class Surroundings:
    """What all attempts of a run use, made before they are forked; no connection and no artifact among it."""

    def __init__(self, context: RunContext) -> None:
        self.store = open_store(context.store_url)
        self.parameters = ArtifactView.open(self.store, context.parameters)
        self._met = b""
        self._shared: ArtifactView | None = None

    def expect(self, manifest: bytes) -> None:
        """Read what a task starts from, ahead of its fork, if the task before it began there, too: members of a foreach do.

        Raises:
            ObjectMissing, ObjectDamaged, StoreUnusable: It cannot be read.
        """
        if manifest == self._met and (self._shared is None or self._shared.digest != manifest):
            self._shared = ArtifactView.open(self.store, manifest)
            self._shared.sizes()
        self._met = manifest

    def view(self, manifest: bytes) -> ArtifactView:
        """What a task starts from.

        Raises:
            ObjectMissing, ObjectDamaged, StoreUnusable: It cannot be read.
        """
        if self._shared is not None and self._shared.digest == manifest:
            return self._shared
        return ArtifactView.open(self.store, manifest)


class AttemptRunner:
    """Runs attempts of a flow that is loaded in this process: one in each fork of it."""

    def __init__(self, flow: type[FlowSpec]) -> None:
        self._flow = flow
        self._ready: dict[tuple[str, int], Surroundings] = {}
        self._clients: dict[str, RedisLogClient] = {}
        self._has_run = False
        self.used_up = False

    def prepare(self, context: RunContext) -> None:
        """Make what all attempts of a run use."""
        facts(self._flow).bare = bool(context.options.get("skip_decorators"))
        if context.options.get("with"):  # known to the run, not yet to a fork server that was there before it
            from evflow.flow.decorators.spec import apply_with

            apply_with(self._flow, context.options["with"])
            _load_wanted(self._flow)
        with suppress(EvflowError):  # each attempt meets it itself, and reports it
            self._ready[context.flow, context.run] = Surroundings(context)
            self._client(context.log_url)

    def expect(self, context: RunContext, order: bytes) -> None:
        """Read what the attempt starts from, where its siblings start there as well."""
        told, ready = AttemptOrder.unpack(order), self._ready.get((context.flow, context.run))
        if ready is not None and told.parents and not told.takes_inputs:
            with suppress(EvflowError):  # the attempt meets it itself, and reports it
                ready.expect(told.parents[0][2])

    def forget(self, context: RunContext) -> None:
        """Drop what was made for a run."""
        self._ready.pop((context.flow, context.run), None)

    def rest(self) -> None:
        """The process goes on to another attempt, whose end it reports by the same connection."""
        hold_nothing()
        for client in self._clients.values():
            client.rest()

    def rehearse(self, context: RunContext, *, whole: bool = False) -> None:
        """See `evflow.worker.rehearsal`; never raises."""
        ready = self._ready.get((context.flow, context.run))
        if ready is not None:
            rehearse(context, ready.store, ready.parameters, whole=whole)

    def __call__(self, context: RunContext, order: bytes) -> int:
        """Run the attempt that an order describes; see `evflow.worker.launchers.Runner`."""
        told = AttemptOrder.unpack(order)
        set_handler(_SIGTERM, _Termination())
        try:
            _settle(context, told)
            locks.take(context.lock_file, told.task, told.attempt)
            if told.mode == "hook":
                return self._run_hooks(context, told)
            ended = self._report(context, told)
            if not isinstance(ended, AttemptSucceeded) or ended.caught is not None:
                self.used_up = True
            stdio.flush()
            return _deliver(context, ended, self._client(context.log_url))
        except locks.AttemptRuns as error:
            sys.stderr.write(f"{error}\n")
            return EXIT_TWIN
        except Cancelled:
            stdio.flush()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            raise  # not reached

    def _run_hooks(self, context: RunContext, order: AttemptOrder) -> int:
        """Run what is to be run when the run is over, in this process, which serves nothing else afterwards."""
        from evflow.worker.hooks import run_hooks

        self.used_up = True
        if facts(self._flow).configs:
            from evflow.flow.config_values import settle_from

            settle_from(self._flow, Surroundings(context).parameters)
        code = run_hooks(self._flow, context, order)
        stdio.flush()
        return code

    def _client(self, url: str) -> RedisLogClient:
        """The log, for all runs of it: not connected before the first report of this process."""
        if url not in self._clients:
            self._clients[url] = connect(url)
        return self._clients[url]

    def _report(self, context: RunContext, order: AttemptOrder) -> AttemptSucceeded | AttemptFailed:
        started_us = now_us()
        progress = _Progress()
        callbacks = _exit_callbacks()
        ended: AttemptSucceeded | AttemptFailed
        try:
            try:
                ended = self._run(context, order, progress, started_us)
            except Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - it becomes the report
                ended = _failure(order, open_store(context.store_url), error, progress.stage, started_us)
            if "card" in current.current:
                ended = self._with_cards(context, order, ended)
            return progress.keep(ended) if isinstance(ended, AttemptSucceeded) and progress.keep is not None else ended
        finally:
            if _finish_threads(callbacks):
                self.used_up = True

    def _with_cards(
        self, context: RunContext, order: AttemptOrder, ended: AttemptSucceeded | AttemptFailed
    ) -> AttemptSucceeded | AttemptFailed:
        """The report with the cards that the step asked for; nothing that goes wrong with them changes anything else of it."""
        from evflow.worker.cards import draw_with, make_cards

        try:
            return make_cards(self._flow, context, order, ended)
        finally:
            draw_with(None)
            current.attach("card", None)  # the next attempt of this process has others

    def _run(self, context: RunContext, order: AttemptOrder, progress: "_Progress", started_us: int) -> AttemptSucceeded:
        ready = self._ready.get((context.flow, context.run)) or Surroundings(context)
        if facts(self._flow).configs:  # of this run: the process may serve others
            from evflow.flow.config_values import settle_from

            settle_from(self._flow, ready.parameters)
        flow = report.instance(self._flow, order, ready.store, ready.parameters, ready.view)
        _enter(self._flow, context, order)
        if order.times_us:  # the step has cards
            from evflow.worker.cards import LiveCards, draw_with

            draw_with(LiveCards(self._flow, context, order, started_us))
        progress.stage = "exception"
        cache = None
        if any(decorator.name == "cached" for decorator in facts(self._flow).decorators(order.step)):
            from evflow.worker.cached import TaskCache

            cache = TaskCache.of(flow, context, order, ready.store)
            taken = cache.look(started_us) if cache is not None else None
            if taken is not None:
                return taken
        if not self._has_run:
            gc.freeze()  # what is there was the fork server's: to look at it would copy its pages
            gc.enable()  # which the fork server keeps off
        self._has_run = True
        try:
            done = record_crash(flow, order.crash) if order.mode == "catch" else _run_alone(flow, order)
        finally:
            descriptors.make_room()
        progress.stage = "artifact"
        hold_results()
        with user_view():  # pickle looks classes up by their modules' names
            code = Code(os.path.basename(context.flow_file), context.package)  # noqa: PTH119
            ended, outcome = report.kept(flow, order, ready.store, done, started_us, code=code, resumed=context.origin is not None)
            if cache is not None:
                progress.keep = partial(cache.keep, outcome)  # with its cards, which are not there yet
            return ended


def prepare(flow: type[FlowSpec]) -> AttemptRunner:
    """Import what attempts of a flow need, ahead of the forks, and return what runs them."""
    from evflow.log import commands

    try:
        has_mutators = is_mutated(flow, facts(flow))
    except UsageError:
        return AttemptRunner(flow)  # its mutators are wrong: the command says so, and so would an attempt
    if has_mutators:
        from evflow.flow.mutators import stay_silent

        stay_silent()
    commands.report("", RunId(FlowName(""), RunNumber(0)), b"")  # reads its script
    reply_timeout_s()  # reads files of settings

    if _has_async_step(flow):
        from importlib import import_module

        import_module("anyio._backends._asyncio")
    _load_wanted(flow)
    return AttemptRunner(flow)


def _load_wanted(flow: type[FlowSpec]) -> None:
    """What cards need, where a step makes some, and what `@cached` needs, where a step has it."""
    names = {decorator.name for step in facts(flow).steps for decorator in facts(flow).decorators(step)}
    if "card" in names:
        from evflow.worker.cards import preload

        preload(flow)
    if "cached" in names:
        from importlib import import_module

        import_module("evflow.worker.cached")
        import_module("evflow.flow.code_key").remember(flow)


def load(context: RunContext) -> AttemptRunner:
    """Load a run's flow from its file, as `__main__`, and return what runs its attempts.

    Raises:
        UsageError: The file cannot be loaded, or does not define the flow.
    """
    from evflow.flow.loading import load_flow, stay_inert

    dialect.understand(context.options)
    set_user_folder(os.path.dirname(os.path.abspath(context.flow_file)))  # noqa: PTH100, PTH120 - pathlib is a heavy import
    stay_inert()
    with user_view():
        flow = load_flow(context.flow_file, context.flow)
    return prepare(flow)


def report_unloadable(context: RunContext, order: AttemptOrder, error: BaseException) -> int:
    """Report that an attempt's flow cannot be loaded; return the process's exit code."""
    from evflow.flow.loading import FlowFileRaised

    if isinstance(error, FlowFileRaised):
        error = error.raised  # what the user wrote, not what was made of it
    if order.mode == "hook":  # of no task: its exit says it
        from evflow.flow.tracebacks import show

        show(report.explained(error, "load"))
        stdio.flush()
        return EXIT_NO_HOOKS
    failed = _failure(order, open_store(context.store_url), error, "load", now_us())
    stdio.flush()
    return _deliver(context, failed, connect(context.log_url))


class UnloadableRunner:
    """Runs attempts of a flow that cannot be loaded: it reports that."""

    used_up = True

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def prepare(self, context: RunContext) -> None:
        """Nothing."""

    def expect(self, context: RunContext, order: bytes) -> None:
        """Nothing."""

    def forget(self, context: RunContext) -> None:
        """Nothing."""

    def rehearse(self, context: RunContext, *, whole: bool = False) -> None:
        """Nothing."""

    def rest(self) -> None:
        """Nothing."""

    def __call__(self, context: RunContext, order: bytes) -> int:
        """Report it."""
        return report_unloadable(context, AttemptOrder.unpack(order), self._error)


class _Progress:
    """How far an attempt has come: what kind a failure would be of, and who keeps its result for others, if anybody does."""

    __slots__ = ("keep", "stage")

    def __init__(self) -> None:
        self.stage = "load"
        self.keep: Callable[[AttemptSucceeded], AttemptSucceeded] | None = None


class _Termination:
    """The handler of SIGTERM: raises in the attempt, and ends a fork of it at once."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a child of the body, which has our handler
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        raise Cancelled


def _settle(context: RunContext, order: AttemptOrder) -> None:
    """Make the process the attempt's own: its environment, and randomness that no sibling shares."""
    os.environ[leftovers.ATTEMPT_VARIABLE] = f"{context.flow}/{context.run}/{order.task}.{order.attempt}"
    os.environ[leftovers.LOCKS_VARIABLE] = context.lock_file
    masking.announce_by(stdio.announce_masks)
    # `random` does it itself after each fork.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch_seed = getattr(sys.modules.get("torch"), "seed", None)
    if torch_seed is not None:  # nor has a module of the user's with that name one
        torch_seed()


def _enter(flow: type[FlowSpec], context: RunContext, order: AttemptOrder) -> None:
    """Tell `current` where it is."""
    current.enter(
        flow_name=context.flow,
        run_id=context.run,
        step_name=order.step,
        task_id=order.task,
        retry_count=order.attempt,
        origin_run_id=context.origin.rpartition("/")[2] if context.origin else None,
        namespace=context.namespace or None,
        username=context.user,
        tags=dialect.tags_of(context.tags),
        graph=lambda: _graph(flow),
        parameter_names=tuple(facts(flow).parameters),
        trigger=context.trigger,
    )
    if (project := context.options.get("project")) is not None:
        from evflow.flow.decorators.project import enter

        enter(project)
    current.enter_gang(order.task, order.gang, order.main_ip)


def _graph(flow: type[FlowSpec]) -> dict[str, Any]:
    with framework_view():  # few steps ask for it, and those in the middle of the user's code
        from evflow.flow.graph_view import graph_info
    return graph_info(flow)


def _run_alone(flow: FlowSpec, order: AttemptOrder) -> Done:
    """Run the step; a fork that the body made, and that comes to its end as well, leaves: the result is its parent's to give."""
    own = os.getpid()
    try:
        done = run_step(flow, timeout_s=order.timeout_s, last=order.last)
    except BaseException as error:
        if os.getpid() != own:
            _leave_fork(own, error)
        raise
    if os.getpid() != own:
        _leave_fork(own, None, code=0 if done.caught is None else 1)
    return done


def _leave_fork(parent: int, error: BaseException | None, *, code: int = 1) -> NoReturn:
    """End a process that the body forked, with the code that its end asks for and without a report."""
    try:
        text = f"Process {os.getpid()}, which the step's body forked, ends here: the task's result is that of process {parent}.\n"
        if isinstance(error, SystemExit):
            code = 0 if error.code is None else error.code & 0xFF if isinstance(error.code, int) else 1
        elif error is not None:
            from evflow.flow.tracebacks import user_traceback

            text += user_traceback(error)
        sys.stderr.write(text)
    finally:
        stdio.flush()
        os._exit(code)


def _failure(order: AttemptOrder, store: ObjectStore, error: BaseException, stage: str, started_us: int) -> AttemptFailed:
    """The report of what went wrong, which is printed to the attempt's own stderr as well."""
    from evflow.flow.tracebacks import show

    text = report.explained(error, stage)
    show(text)
    return report.failure(order, store, error, stage, started_us, text)


def _deliver(context: RunContext, ended: AttemptSucceeded | AttemptFailed, client: RedisLogClient) -> int:
    payload = encode_report(ended, principal=f"worker:{_HOST}:{os.getpid()}")
    if "failures" in context.options and isinstance(ended, AttemptFailed):
        report.leave(context.options["failures"], ended, payload)
    if "reports" in context.options:  # of a run whose log is in its owner's memory
        report.leave(context.options["reports"], ended, payload)
        return EXIT_REPORTED
    run = RunId(FlowName(context.flow), RunNumber(context.run))
    patience_s = float(context.options.get("report_within_s", REPORT_WITHIN_S))
    try:
        client.report(context.shard, run, payload, patience_s=patience_s)
    except LogUnavailable as error:
        sys.stderr.write(f"The end of this attempt could not be reported within {patience_s:g} s: {error}\n")
        return EXIT_UNREPORTED
    return EXIT_REPORTED


def _has_async_step(flow: type[FlowSpec]) -> bool:
    is_coroutine = 0x80  # inspect.CO_COROUTINE, whose module is a heavy import
    return any(getattr(getattr(step, "__code__", None), "co_flags", 0) & is_coroutine for step in facts(flow).steps.values())


def _exit_callbacks() -> int:
    return int(vars(atexit)["_ncallbacks"]())


def _finish_threads(callbacks: int) -> bool:
    """Do what a Python program does at its end, before finalisation: wait for threads, call what was registered for it.

    Returns:
        Whether there was anything to do. If so, Python takes the program for ended: it starts no threads any more.
    """
    found = False
    with user_view():
        threading = sys.modules.get("threading")
        if threading is not None and threading.active_count() > 1:
            vars(threading)["_shutdown"]()
            found = True
        if _exit_callbacks() > callbacks:
            vars(atexit)["_run_exitfuncs"]()
            found = True
    return found
