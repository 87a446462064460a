"""What the codes in a log's reasons mean, for people.

Executors and decisions give reasons as codes, which stand in events and in JSON as they are: programs compare them. Wherever a
person reads one, it goes through here.
"""

import re

from evflow.core.graph import Policy
from evflow.core.retry import next_mode
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


def said(reason: str) -> str:
    """A reason in words: `the run's own process died` for `owner-died`; what is no code stays as it is."""
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
