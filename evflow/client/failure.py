"""What an attempt failed with, as the value that `task.exception` gives."""

from evflow.client.history import RunHistory
from evflow.core.reasons import said
from evflow.core.state import Attempt
from evflow.errors import EnvironmentProblem
from evflow.exception import ExceptionWrapper, type_named

_TYPES = {
    "crashed": "evflow.AttemptCrashed",
    "lost": "evflow.AttemptLost",
    "timed-out": "evflow.exception.TimeoutException",
    "cancelled": "evflow.AttemptCancelled",
    "exited": "evflow.AttemptExited",
}
"""For an attempt that ended without telling why: named like the event that says so."""


def exception_of(history: RunHistory, attempt: Attempt) -> ExceptionWrapper:
    """The failure of an attempt that did not succeed."""
    wrapper = ExceptionWrapper()
    wrapper.exception = said(attempt.message or attempt.kind) or "The attempt ended without a report."
    wrapper.type = type_named(attempt.error) if attempt.error else _TYPES.get(attempt.outcome, attempt.outcome)
    wrapper.stacktrace = None
    if attempt.detail is not None:
        try:
            wrapper.stacktrace = history.data.text(attempt.detail)
        except EnvironmentProblem:
            wrapper.stacktrace = None  # the traceback is elsewhere or gone; the log still has class and text
    return wrapper
