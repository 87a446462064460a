"""What the end of a job means for its attempt. Pure.

A platform says why a job ended in words of its own; its module maps them to a `Verdict`. Three kinds are told apart, by who can help:

* `exited`: the process ended by itself. Exit code and signal say how, and the run's decisions what follows.
* `lost`: nobody's fault in the task: the host died, a spot instance went away, a pod was evicted. It is made again and does not count.
* `failed`: another attempt meets the same, unless something changes: an image that cannot be pulled, memory that does not suffice.
  It counts against `@retry`; where nobody but the flow's author can help, no further attempt is made.
"""

import re
from typing import Final, Literal

from evflow.core.events import AttemptExited, AttemptFailed
from evflow.core.ids import AttemptId
from evflow.core.values import value
from evflow_executors.remote.bootstrap import EXIT_NO_EVFLOW, EXIT_NO_LOG, EXIT_NO_ORDER, EXIT_NO_PYTHON, EXIT_NO_STORE

_SIGNALLED: Final = 128
"""Shells and container engines give the exit code 128 + n to what signal n ended."""
_MOST_SIGNAL: Final = 64
_TEXT_CHARS: Final = 2_000

Code = Literal[
    "",
    "container-out-of-memory",
    "spot-interruption",
    "host-lost",
    "evicted",
    "preempted",
    "image-pull",
    "unschedulable",
    "container-timeout",
    "killed-by-hand",
    "job-gone",
    "job-unfit",
    "container-broken",
    "gang-ended",
    "container-stopped",
]

CONTAINER_STOPPED: Final[Code] = "container-stopped"
"""Why an attempt ended whose container got SIGTERM, as the container tells it."""

GANG_ENDED: Final[Code] = "gang-ended"
"""The code of a verdict on a node of a gang that its platform ended because another node had come to a bad end."""

PASSING_PULL: Final = re.compile(
    r"time(d )?out|deadline exceeded|too ?many ?requests|rate exceeded|connection (reset|refused)|no such host|name resolution|server misbehaving"
    r"|network is unreachable|no route to host|tls: ?handshake|tls handshake|\bEOF\b|try again"
    r"|\b50[0234] (internal|bad|service|gateway)|(status( code)?|http)\W{0,3}5\d\d\b",
    re.IGNORECASE,
)
"""What a registry that is away, busy or not reached says, by way of a container engine: another pull may help."""
UNFIT: Final = {
    EXIT_NO_PYTHON: "The image has no Python 3.11 or newer",
    EXIT_NO_EVFLOW: "evflow could not be had in the container",
    EXIT_NO_ORDER: "The container could not read what it is to do",
    EXIT_NO_LOG: "The log cannot be reached from the container",
    EXIT_NO_STORE: "The store does not take the attempt's report from the container",
}
"""Exit codes of ours: the attempt has not begun, or nothing can be told of it."""


@value
class Verdict:
    """What became of a job.

    Attributes:
        kind: `exited`, `lost` or `failed`, as above.
        code: Why, for programs.
        text: Why, for people: a sentence, with what to do.
        retryable: Of `failed`: another attempt may meet something else.
    """

    kind: Literal["exited", "lost", "failed"]
    code: Code = ""
    text: str = ""
    retryable: bool = True


EXITED: Final = Verdict("exited")


def end_of(attempt: AttemptId, verdict: Verdict, exit_code: int | None, log: str = "") -> AttemptExited | AttemptFailed:
    """What a run's log says of a job's end.

    Args:
        attempt: The attempt.
        verdict: What its platform made of the reason.
        exit_code: Of the container, as the platform has it: 128 + n where signal n ended it.
        log: The last lines of its output, for ends before its first line of ours.
    """
    if verdict.kind == "failed":
        return AttemptFailed(
            attempt.task, attempt.attempt, "container", verdict.code, verdict.text[:_TEXT_CHARS], retryable=verdict.retryable
        )
    if verdict.kind == "lost":
        return AttemptExited(attempt.task, attempt.attempt, None, None, f"{verdict.code}: {verdict.text}"[:_TEXT_CHARS])
    if exit_code in UNFIT:
        text = f"{UNFIT[exit_code]}: {log.strip() or 'its log is empty'}"
        return AttemptFailed(attempt.task, attempt.attempt, "container", "container-unfit", text[:_TEXT_CHARS])
    if exit_code is not None and _SIGNALLED < exit_code <= _SIGNALLED + _MOST_SIGNAL:
        return AttemptExited(attempt.task, attempt.attempt, None, exit_code - _SIGNALLED)
    return AttemptExited(attempt.task, attempt.attempt, exit_code, None, "" if exit_code is not None else "job-gone")
