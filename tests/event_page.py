"""Write `docs/events.md` from the events' own docstrings: `python -m tests.event_page`."""

import inspect
import re
from pathlib import Path
from typing import Any

from evflow.core import codec, flow_events
from evflow.core.events import TAGS, Event
from evflow.core.values import compile_all, declared

PAGE = Path(__file__).resolve().parent.parent / "docs" / "events.md"

EVERYWHERE = {
    "task": "The task's id.",
    "attempt": "The attempt's number, from 0.",
    "reason": "Why, in words or as a stable name.",
    "host": "The machine.",
    "pid": "The process's id on its host.",
    "started_us": "When the attempt began, by the clock of its machine; 0 where that is not known.",
    "ended_us": "When the attempt ended, by the clock of its machine; 0 where that is not known.",
    "executor": "The executor that runs it.",
    "slot": "The slot's number, from 0.",
    "count": "How many.",
    "limit_us": "The limit.",
    "forced": "Kill what runs, instead of asking it to end.",
    "owner": "The new owner's name, never used before.",
    "epoch": "The shard's fencing number under the new owner.",
    "at_us": "Not before this instant.",
    "mode": "`run`, or `catch` for the attempt that only records a crash for `@catch`.",
    "next_kind": "What `self.next` was told: `linear`, `split`, `foreach`, `switch` or `end`.",
    "next_steps": "The steps chosen at run time, in the order of the call.",
    "splits": "Number of items of a foreach.",
    "items": "Digest of the packed items of a foreach.",
    "variable": "The foreach's variable, or the switch's condition.",
    "caught": "The exception that `@catch` took, or None.",
    "artifacts": "How many artifacts the manifest names.",
    "size_bytes": "Their size, serialised.",
    "cards": "The cards that were made of the attempt, each as its type, its id, the digest of its page, the size of that, and whether it could not be rendered.",
    "manifest": "Digest of the manifest that names the task's artifacts.",
}
"""What fields mean that stand in many events; an event's own docstring goes before it."""

INTRO = f"""# Events

Every change of a run is an event in its log; the state of a run is what its events fold to, and nothing else. This page is
the reference of the format. It is made from the docstrings of `evflow/core/events.py` by `python -m tests.event_page`, and a
test fails where it is not up to date. `evflow events RUN` prints a run's events, `--json` with the names of their fields.

## A log

* An event of a run is a msgpack array `[tag, turn, at_us, principal, cause, *fields]`, the fields by position, in the order of
  the tables below. At most {codec.MAX_EVENT_BYTES // 1024} KiB; `RunStarted`, which holds the graph, {codec.MAX_START_BYTES // 1024} KiB. Longer parts are in the store, by digest.
* `seq` is its position, dense from 1: the id of its entry in the stream.
* `turn` numbers the turns, dense from 1. A turn is appended as a whole: its facts in their order, then the decisions that
  follow from them. What is too much for one turn goes on in the next one, which then has no facts.
* `at_us` is the turn's instant: microseconds since 1970-01-01T00:00:00Z by the server's clock, never backwards within a run.
* `principal` is who caused it: `user:ada`, `worker:host:pid`, `executor:host`, `scheduler`.
* `cause` is the position of the event that it answers, or 0. Every decision has one.
* A *fact* came from outside and was accepted. A *decision* follows from the facts before it: `decide` at each turn, with the
  turn's instant, gives exactly those that stand there. That is what `evflow replay RUN --verify` checks.
* Beside each event stand 16 bytes of the digest chain, `h(n) = SHA-256(h(n-1) || event n)`, from 32 zero bytes. All 32 bytes of
  the last one stand in the log's head and, of everything before it, in the seal.
* The seal also has the digest of the state, in the canonical encoding of `evflow/core/canonical.py`.

A report waits in an inbox as `[tag, principal, *fields]`. An event of a flow's log, which has no turns, is
`[tag, at_us, principal, *fields]`.

What does not change: a released tag is never renamed, a released field never moves or changes its meaning, and a new field goes
to the end with a default. Readers keep events of unknown tags and pass over surplus fields. `tests/histories/` holds logs
that released versions wrote.

Types are those of msgpack: `int`, `str`, `bytes`, `bool`, arrays and maps; `| None` where nil may stand. A digest is 32 bytes, a
SHA-256. Names that end in `_us` are microseconds.
"""


def page() -> str:
    """The whole page."""
    compile_all()  # only then do the classes say their fields' defaults
    parts = [INTRO, "## Events of a run\n"]
    parts += [_section(tag, cls) for tag, cls in TAGS.items()]
    parts += ["## Events of a flow\n\nWhat happens outside of runs: `{evflow:flow:<Flow>}:log`.\n"]
    parts += [_section(tag, cls) for tag, cls in flow_events.TAGS.items()]
    return "\n".join(parts)


def _section(tag: str, cls: type[Event]) -> str:
    summary, rest, fields = _documented(cls)
    kind = "Fact" if cls.is_fact else "Seal" if tag == "RunSealed" else "Decision"
    lines = [f"### {tag}\n", f"{kind}. {summary}\n"]
    lines += [f"{rest}\n"] if rest else []
    lines += ["| # | field | type | default | |", "|---|---|---|---|---|"]
    defaults = inspect.signature(cls).parameters
    for number, (name, declared_type) in enumerate(declared(cls).items()):
        default = defaults[name].default
        shown = "" if default is inspect.Parameter.empty else f"`{default!r}`"
        lines.append(f"| {number} | `{name}` | `{_type(declared_type)}` | {shown} | {fields.get(name) or EVERYWHERE[name]} |")
    return "\n".join(lines) + "\n"


def _type(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) else str(kind)
    return text.replace("typing.", "").replace("|", "\\|")


def _documented(cls: type) -> tuple[str, str, dict[str, str]]:
    """The docstring's first line, what follows it, and the meanings of the attributes."""
    text, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    summary, _, rest = text.strip().partition("\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", attributes, flags=re.MULTILINE)
    return summary, rest.strip(), {name: re.sub(r"\s+", " ", meaning) for name, meaning in found}


if __name__ == "__main__":
    PAGE.write_text(page())
