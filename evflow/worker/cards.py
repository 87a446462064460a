"""The cards of an attempt: rendered in its process, after its body and before its report, which names them.

* Nothing here changes how the attempt ended. What goes wrong with a card becomes a page that says so, or a line on stderr.
* The report waits for each card no longer than its `timeout`, and for all of them together no longer than the scheduler waits for an attempt
  that has run into its own limit. A timer interrupts Python code; a library that stays in C for minutes is heard only then.
* The pages are whole in the store before the report names them, as it is with artifacts.
"""

import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

from evflow.cards.artifact import type_name
from evflow.cards.collector import CardPlan, Cards, draw_with as draw_with, warn
from evflow.cards.component import ours
from evflow.cards.facts import Around, Shown, TaskFacts
from evflow.cards.render import error_page, own_card, page_around, render, with_raw
from evflow.cards.types import CardType, own_type
from evflow.clock import monotonic_s, now_us
from evflow.core.cards import TYPES, RecordedCard
from evflow.core.events import AttemptFailed, AttemptSucceeded
from evflow.core.graph import Graph
from evflow.core.values import replaced
from evflow.errors import EvflowError
from evflow.flow import current, dialect
from evflow.flow.flowspec import FlowSpec
from evflow.flow.steps import facts
from evflow.imports import framework_view, user_view
from evflow.masking import masked_bytes
from evflow.store import ObjectStore, open_store
from evflow.store.artifacts import ArtifactView
from evflow.store.live_cards import write_live
from evflow.worker.spec import AttemptOrder, RunContext

Ended = AttemptSucceeded | AttemptFailed

_PAST_LIMIT_S: Final = 5.0
"""How long past an attempt's own limit its cards may take: the scheduler kills it after twice that."""
_AGAIN_S: Final = 0.5
"""A timer that a bare `except:` swallowed rings again so soon."""
_LEAST_S: Final = 1.0
_MOST_ARTIFACTS: Final = 200
_LOADED_BYTES: Final = 256 << 10
"""Values up to this size are loaded to be shown; larger ones are if the step had them in its hands."""
_FIELDS: Final = 5
"""What is recorded of every card; behind it the text that its class gave, where that is kept."""
_STAGES: Final = ("Created", "Queued", "Granted", "Launched")


class TookTooLong(BaseException):
    """The time for a card is over. No `except Exception` of a component's takes it."""


def preload(flow: type[FlowSpec]) -> None:
    """Do before attempts are forked what each of them would do again for its cards: 0.1 s of a processor, and 10 ms for each later one.

    The flow's sources are read, modules loaded, patterns and constructors compiled by making the page of a task that there is not.
    """
    from evflow.cards.markdown import Markdown

    for name in ("inspect", "textwrap", "traceback", "evflow.cards.default", "evflow.cards.table"):
        ours(name)
    plan = CardPlan("default")
    plan.add(Markdown("# Title"))
    step = next(iter(facts(flow).steps), "")
    code, file, line = _source(facts(flow).steps.get(step))
    shown = [Shown("name", "str", 1, "value", is_loaded=True)]
    times = [(name, at_us) for at_us, name in enumerate((*_STAGES, "Started", "Ended"), 1)]
    render(plan, TaskFacts(
        flow.__name__, "1", step, "1", parameters=shown, artifacts=shown, graph=_graph(flow), code=code or "pass", file=file, line=line,
        times=times,
    ))  # fmt: skip


def make_cards(flow: type[FlowSpec], context: RunContext, order: AttemptOrder, ended: Ended) -> Ended:
    """The report of an attempt, with the cards that its step asked for; they are in the store.

    Args:
        flow: The flow.
        context: The run.
        order: What the attempt was told.
        ended: Its report so far.
    """
    cards: Cards = current.current.card
    try:
        store = open_store(context.store_url)
        live = cards.redraw if isinstance(cards.redraw, LiveCards) else None
        made = tuple(_made(cards.plans, flow, context, order, ended, store, live))
    except (Exception, TookTooLong) as error:  # noqa: BLE001 - a card is never worth its task; said in the task's log
        warn(f"No card could be made: {type(error).__name__}: {error}")
        return ended
    return replaced(ended, cards=made)


def _made(
    plans: list[CardPlan],
    flow: type[FlowSpec],
    context: RunContext,
    order: AttemptOrder,
    ended: Ended,
    store: ObjectStore,
    live: "LiveCards | None",
) -> Iterator[tuple[Any, ...]]:
    left_us = (ended.started_us or now_us()) + int((order.timeout_s + _PAST_LIMIT_S) * 1e6) if order.timeout_s else 0
    task: TaskFacts | None = None
    for place, plan in enumerate(plans):
        limit_s = plan.timeout_s
        if left_us:
            limit_s = min(limit_s or _PAST_LIMIT_S, max(_LEAST_S, (left_us - now_us()) / 1e6))
        failed: BaseException | None = None
        page, raw = "", None
        try:
            with _limited(limit_s):
                if task is None:
                    task = _facts(flow, context, order, ended, store)
                with user_view():  # components may be the user's, and so are the values that are shown
                    page, raw = with_raw(plan, task, around=_around(flow, context, order, ended))
        except (Exception, SystemExit, TookTooLong) as error:  # noqa: BLE001 - it becomes the page
            failed = TimeoutError(f"It took longer than {limit_s:.3g} s.") if isinstance(error, TookTooLong) else error
            warn(f"The card '{plan.id or plan.type}' could not be rendered: {type(failed).__name__}: {failed}")
            if not plan.save_errors:
                continue
            page = error_page(plan, task or _bare(context, order, ended), failed)
        data = _bytes(page)
        # Programs written for Metaflow get it as `Card.get()`; who looks at the card has the page.
        text = _bytes(raw) if raw is not None and dialect.is_metaflow() else None
        try:
            digest = store.put([data])
            given = () if text is None else (store.put([text]),)
        except (EvflowError, OSError) as error:
            warn(f"The card '{plan.id or plan.type}' could not be stored: {error}")
            continue
        if live is not None:
            live.finish(place, plan, data, text)
        yield (*RecordedCard(plan.type, plan.id or "", digest, len(data), failed is not None)[:_FIELDS], *given)


def _bytes(text: str) -> bytes:
    """A text as it is kept."""
    return masked_bytes(text.encode("utf-8", "backslashreplace"))


@contextmanager
def _limited(limit_s: float) -> Generator[None]:
    """Raise `TookTooLong` in this thread after `limit_s`; 0 for no limit."""
    over = False

    def ring(_: int, __: FrameType | None) -> None:
        if not over:
            raise TookTooLong

    try:
        before = signal.signal(signal.SIGALRM, ring)
    except ValueError:  # not the main thread, as in a test
        yield
        return
    try:
        signal.setitimer(signal.ITIMER_REAL, limit_s, _AGAIN_S)
        yield
    finally:
        over = True  # what rings from here on is too late
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- while the task goes on --------------------------------------------------------------------------------


class LiveCards:
    """Draws cards while their attempt goes on: `current.card.refresh()`.

    Args:
        flow: The flow.
        context: The run.
        order: What the attempt was told.
        started_us: When it began.
    """

    def __init__(self, flow: type[FlowSpec], context: RunContext, order: AttemptOrder, started_us: int) -> None:
        self._flow, self._context, self._order, self._started_us = flow, context, order, started_us
        self._task: TaskFacts | None = None
        self._drawn_s: dict[int, float] = {}
        self._own: dict[int, tuple[int, str]] = {}  # of types of one's own: how often they were drawn, and the last one's token
        self._warned = False

    def __call__(self, plans: list[CardPlan], plan: CardPlan, force: bool) -> None:
        """Draw a card, unless that was done less than its `refresh_interval` ago; what goes wrong is said once."""
        place = plans.index(plan)
        now_s = monotonic_s()
        before_s = self._drawn_s.get(place)
        if not self._context.log_folder or (before_s is not None and not force and now_s - before_s < plan.refresh_interval_s):
            return
        self._drawn_s[place] = now_s
        try:
            with framework_view():
                self._draw(place, plan)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a card is never worth its task; said in the task's log
            if not self._warned:
                warn(f"The card '{plan.id or plan.type}' could not be refreshed: {type(error).__name__}: {error}")
            self._warned = True

    def _draw(self, place: int, plan: CardPlan) -> None:
        if self._task is None:
            so_far = AttemptFailed(self._order.task, self._order.attempt, "", "", "", started_us=self._started_us)
            store = open_store(self._context.store_url)
            self._task = replaced(_facts(self._flow, self._context, self._order, so_far, store), status="running", error="")
        again_s = max(1, round(plan.refresh_interval_s))
        if plan.type not in TYPES and (kind := own_type(plan.type)) is not None:
            self._draw_own(place, plan, kind, self._task, again_s)
            return
        with user_view():
            page, raw = with_raw(plan, self._task, again_s)
        self.write(place, plan, _bytes(page))
        self._write_raw(place, plan, raw)

    def _draw_own(self, place: int, plan: CardPlan, kind: type[CardType], task: TaskFacts, again_s: int) -> None:
        """Draw a card of a type of one's own, as far as its class wants to be drawn now, and write what is new for programs."""
        if not kind.RUNTIME_UPDATABLE:
            if not plan.told:
                warn(f"A card of type '{plan.type}' is drawn at the end alone: its class has not RUNTIME_UPDATABLE = True.")
            plan.told = True
            return
        number, before = self._own.get(place, (0, ""))
        card = own_card(plan, task, _around(self._flow, self._context, self._order, None))
        with user_view():
            content, token = card.meanwhile(number + 1, before if number else None)
            news = card.news(number + 1)
        self._own[place] = (number + 1, token)
        if content is not None:
            self.write(place, plan, _bytes(page_around(plan, task, content, again_s)))
            self._write_raw(place, plan, card.raw)
        if news is not None:
            self.write(place, plan, masked_bytes(news.encode()), "json")

    def _write_raw(self, place: int, plan: CardPlan, raw: str | None) -> None:
        if raw is not None and dialect.is_metaflow():
            self.write(place, plan, _bytes(raw), "raw")

    def write(self, place: int, plan: CardPlan, page: bytes, kind: str = "html") -> None:
        """Put a page where those who look while the task goes on find it; or what is new of it (`json`), or what its class gave (`raw`).

        Raises:
            OSError: It cannot be written.
        """
        write_live(self._context.log_folder, self._order.task, self._order.attempt, place, plan.type, plan.id or "", page, kind)

    def finish(self, place: int, plan: CardPlan, page: bytes, raw: bytes | None) -> None:
        """The last page, which asks for no other one: for who has the card open."""
        if place in self._drawn_s:
            with suppress(OSError):  # the card that counts is in the store
                self.write(place, plan, page)
                if raw is not None:
                    self.write(place, plan, raw, "raw")


# --- what is known of the task -----------------------------------------------------------------------------


def _bare(context: RunContext, order: AttemptOrder, ended: Ended) -> TaskFacts:
    """What needs nothing but values at hand."""
    error = ""
    status = "succeeded"
    if isinstance(ended, AttemptFailed):
        status, error = "failed", f"{ended.error}: {ended.message}" + (f"\n{ended.where}" if ended.where else "")
    elif ended.caught is not None:
        status, error = "caught", ended.caught
    stages = [*zip(_STAGES, order.times_us[1:], strict=False), ("Started", ended.started_us), ("Ended", ended.ended_us)]
    return TaskFacts(
        flow=context.flow,
        run=str(context.run),
        step=order.step,
        task=str(order.task),
        attempt=order.attempt,
        status=status,
        error=error,
        user=context.user,
        tags=context.tags,
        host=os.uname().nodename,
        python=".".join(map(str, sys.version_info[:3])),
        place=[(frame[6] or frame[0], frame[3], frame[4]) for frame in order.frames],
        times=[(name, at_us) for name, at_us in stages if at_us],
    )


def _around(flow: type[FlowSpec], context: RunContext, order: AttemptOrder, ended: Ended | None) -> Around:
    """What the class of a card is told; nothing of it is made before it asks."""

    def task() -> Any:
        # By name: the client stands beside this in the layers, and only cards of types of one's own look through it.
        pathspec = (context.flow, str(context.run), order.step, str(order.task))
        return ours("evflow.client.ending").ending_task(pathspec, ended)

    return Around(task, lambda: ours("evflow.flow.graph_view").graph_info(flow)["steps"], lambda: flow(use_cli=False))


def _facts(flow: type[FlowSpec], context: RunContext, order: AttemptOrder, ended: Ended, store: ObjectStore) -> TaskFacts:
    bare = _bare(context, order, ended)
    parameters = ArtifactView.open(store, context.parameters)
    own = facts(flow)
    artifacts: list[Shown] = []
    more = 0
    if isinstance(ended, AttemptSucceeded):
        view = ArtifactView.open(store, ended.manifest)
        given = {*own.parameters, *own.constants}
        names = [name for name in view.names() if not name.startswith("_") and name not in given]
        artifacts = [_shown(view, name) for name in names[:_MOST_ARTIFACTS]]
        more = max(0, len(names) - _MOST_ARTIFACTS)
    code, file, line = _source(own.steps.get(order.step))
    graph = _graph(flow)
    return replaced(
        bare,
        parameters=[_shown(parameters, name) for name in own.parameters if name in parameters],
        artifacts=artifacts,
        more_artifacts=more,
        graph=graph,
        doc=graph[order.step].doc if graph is not None and order.step in graph else "",
        code=code,
        file=os.path.basename(file),  # noqa: PTH119 - pathlib is a heavy import in an attempt
        line=line,
    )


def _shown(view: ArtifactView, name: str) -> Shown:
    entry = view.entry(name)
    if entry.size > _LOADED_BYTES:
        return Shown(name, entry.type, entry.size)
    try:
        with user_view():  # pickle looks classes up by their modules' names
            value = view.load(name)
    except Exception:  # noqa: BLE001 - a class of the user's that cannot be loaded again is shown by its type
        return Shown(name, entry.type, entry.size)
    return Shown(name, type_name(value), entry.size, value, is_loaded=True)


def _graph(flow: type[FlowSpec]) -> Graph | None:
    from evflow.flow.graph import read_graph

    try:
        return read_graph(flow)
    except EvflowError:  # its source cannot be had any more
        return None


def _source(step: Any) -> tuple[str, str, int]:
    """A step's source, its file and its first line; empty where it cannot be had."""
    try:
        lines, first = ours("inspect").getsourcelines(step)
        return ours("textwrap").dedent("".join(lines)), step.__code__.co_filename, first
    except (OSError, TypeError, AttributeError):
        return "", "", 1
