"""The environments of a flow's steps when a run of it begins, or when it is deployed: resolved, and their locks in the store.

What comes of it stands in the options of the run's first event: a list of

    {"steps": […], "kind": "pypi", "asked": "@pypi(…)", "lock": digest, "python": "3.12", "packages": 7}

or, where somebody allowed a run to go on without one, `"instead": why` in place of the lock. Steps that ask for the same are one.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from evflow.clock import now_us
from evflow.core.events import EnvironmentReplaced, EnvironmentResolved, Event
from evflow.core.values import value
from evflow.errors import EvflowError
from evflow.flow.steps import facts
from evflow.store.protocol import Store


@value
class Environments:
    """The environments of a run.

    Attributes:
        recorded: As the run's first event has them.
        facts: What the log is told besides.
    """

    recorded: tuple[dict[str, Any], ...] = ()
    facts: tuple[Event, ...] = ()


def settle(
    flow: type,
    store: Store,
    home: Path,
    *,
    before: Iterable[Mapping[str, Any]] = (),
    only: str | None = None,
    may_go_on: bool = False,
    notice: Callable[[str], None] | None = None,
) -> Environments:
    """Resolve what the steps of a flow ask for, and store the locks. Blocking; a flow that asks for nothing pays for a look at its decorators.

    Args:
        flow: The flow's class, without mistakes.
        store: Takes the locks.
        home: EVFLOW_HOME, where it is remembered what was resolved.
        before: The environments of the run that is resumed.
        only: A step that is run by itself; what the others ask for is not looked at.
        may_go_on: Steps whose environment cannot be resolved run in that of now.
        notice: Hears of that, and of what takes time.

    Raises:
        EvflowError: An environment cannot be resolved.
    """
    known = facts(flow)
    names = {decorator.name for step in known.steps for decorator in known.decorators(step)}
    if not hasattr(flow, "_evflow_environments") and names.isdisjoint(("pypi", "conda")):
        return Environments()
    from evflow.environments.building import is_known, resolved
    from evflow.environments.spec import Spec
    from evflow.flow.decorators.packages import asked_for

    steps_of: dict[str, tuple[Spec, list[str]]] = {}
    for step, asked in asked_for(flow).items():
        if only in (None, step):
            spec = Spec(*asked)
            steps_of.setdefault(str(spec), (spec, []))[1].append(step)
    held = {entry["asked"]: entry for entry in before if entry.get("lock")}
    recorded: list[dict[str, Any]] = []
    told: list[Event] = []
    for text, (spec, steps) in steps_of.items():
        entry: dict[str, Any] = {"steps": steps, "kind": spec.kind, "asked": text}
        began_us, how = now_us(), "origin"
        if text in held and store.exists(held[text]["lock"]):
            entry |= {name: held[text][name] for name in ("lock", "python", "packages")}
        else:
            try:
                how = "known" if is_known(home, spec) else "resolved"
                if how == "resolved" and notice is not None:
                    notice(f"Resolving the environment of {_steps(steps)}: {text}")
                lock = resolved(home, spec)
            except EvflowError as error:
                if not may_go_on:
                    raise
                recorded.append({**entry, "instead": error.message})
                told.append(EnvironmentReplaced(tuple(steps), spec.kind, text, error.message))
                if notice is not None:
                    verb = "runs" if len(steps) == 1 else "run"
                    notice(f"{error.message}\n{_steps(steps).capitalize()} {verb} in the environment of now (--fallback local).")
                continue
            entry |= {"lock": store.put([lock.to_bytes()]), "python": lock.python, "packages": lock.count}
        recorded.append(entry)
        said = (tuple(steps), spec.kind, text, entry["lock"], entry["python"], entry["packages"])
        told.append(EnvironmentResolved(*said, how, now_us() - began_us))
    return Environments(tuple(recorded), tuple(told))


def _steps(steps: list[str]) -> str:
    shown = ", ".join(f"'{step}'" for step in steps[:5]) + (f" and {len(steps) - 5} more" if len(steps) > 5 else "")
    return f"{'step' if len(steps) == 1 else 'steps'} {shown}"
