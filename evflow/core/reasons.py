"""What the codes in a log's reasons mean, for people.

Executors and decisions give reasons as codes, which stand in events and in JSON as they are: programs compare them. Wherever a
person reads one, it goes through here.
"""

import re
from collections.abc import Iterable, Mapping

from evflow.core.graph import Policy
from evflow.core.retry import next_mode
from evflow.core.reuse import RunAnew
from evflow.core.state import Task

CLAUSES = {
    "owner-died": "the run's own process died",
    "fork-server-died": "the process that starts attempts died",
    "never-started": "its process could not be started",
    "worker-lost": "its worker died",
    "worker-stopped": "its worker was stopped",
    "order-lost": "its pool does not know it any more",
    "unreported": "the log was away when it wanted to report",
    "attempt-runs": "the same attempt was running already",
    "out-of-memory": "the machine was out of memory",
    "container-stopped": "its container was told to end by its platform",
    "job-gone": "its platform does not know its job any more",
    "left-behind": "its platform did not answer, and its job may go on",
    "run-cancelled": "the run was cancelled",
    "run-failed": "the run had failed",
    "timeout": "its @timeout was over",
    "killed": "the run was to be killed",
    "gang-failed": "another node of its gang failed",
}
"""A code, and the clause that says it."""

_WORDS = frozenset(("timeout", "killed"))
"""Codes that are words of their own: only a whole reason is one."""

_CODE = re.compile(rf"(?:^|(?<=\) failed: ))({'|'.join(code for code in CLAUSES if code not in _WORDS)})(?=$|[ :])(?: (?=[A-Z@]))?")
"""A code at the beginning of a text, or behind the words with which a run's reason quotes a task's; and a sentence after it."""


_AS_IF_REPORTED = "the log's server has no report; did it lose its tail?"
_OR_LEFT = " Or did the body end its process itself, by os._exit?"
"""Exit code 0 without a report looks the same from outside, and the words of the decision stay as they are."""


def said(reason: str) -> str:
    """A reason in words: `the run's own process died` for `owner-died`; what is no code stays as it is."""
    if _AS_IF_REPORTED in reason:
        reason = reason.replace(_AS_IF_REPORTED, f"{_AS_IF_REPORTED}{_OR_LEFT}", 1)
    return CLAUSES.get(reason) or _CODE.sub(lambda found: CLAUSES[found[1]] + (". " if found[0].endswith(" ") else ""), reason, count=1)


def next_attempt(task: Task, policy: Policy, attempt: int, *, counted: bool) -> str:
    """What is said of an attempt that will be made: `attempt 1, retry 1 of 2`.

    Args:
        task: The task, behind the failure.
        policy: What its step asks for.
        attempt: The number of the attempt, from 0.
        counted: The attempt before counted against `@retry`.
    """
    caught = next_mode(task, policy) == "catch" if task.attempts else task.failures > policy.retry_times
    if not counted and not caught:
        return f"attempt {attempt}; the lost one does not count"
    if caught:
        return f"attempt {attempt}, in which @catch takes the failure"
    return f"attempt {attempt}, retry {task.failures} of {policy.retry_times}"


def anew(origin: str, why: RunAnew) -> str:
    """Why a task of a run that resumes `origin` was not taken over, as what follows `because`."""
    match why.code:
        case "named":
            return "its step was named"
        case "behind":
            return "it comes behind the step that was named"
        case "after":
            return f"{why.task} before it was run"
        case "unfinished":
            became = {"failed": "failed", "cancelled": "was cancelled", "skipped": "was skipped"}.get(why.status, "was not finished")
            return f"{origin}/{why.task} {became}"
        case "never":
            return f"{origin} never came to it"
        case "otherwise":
            return f"the flow of now cannot go on as {origin}/{why.task} did"
        case code:
            return code


def ran_anew(origin: str, tasks: Iterable[tuple[str, RunAnew]], most: int = 5) -> list[str]:
    """What a resumed run ran itself, a sentence for each reason.

    Args:
        origin: The run that was resumed.
        tasks: Each task's name, `step/id`, and why it was run.
        most: How many tasks a sentence names.
    """
    of_reason: dict[str, list[str]] = {}
    for name, why in tasks:
        of_reason.setdefault("what they depend on was run" if why.code == "after" else anew(origin, why), []).append(name)
    return [
        f"{', '.join(names[:most])}{f' and {len(names) - most:,} more' if len(names) > most else ''} ran because {text}."
        for text, names in of_reason.items()
    ]


def taken_with(origin: str, then: Mapping[str, str], now: Mapping[str, str], count: int) -> str | None:
    """What has to be said where a resumed run has other parameters than the tasks had that it takes over.

    Args:
        origin: The run that was resumed.
        then: Its parameters, as they are shown.
        now: Those of the run that resumes it.
        count: How many tasks were taken over.
    """
    changed = [f"--{name}" for name, text in now.items() if then.get(name, text) != text]
    if not changed or not count:
        return None
    tasks = "1 task was" if count == 1 else f"{count:,} tasks were"
    return f"{tasks} taken over that {origin} ran with another {' and '.join(changed)}; `resume STEP` runs all from that step on."
