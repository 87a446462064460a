"""Which offers a scheduler can carry out: what its own code, and a flow's fork server, take for granted of a run's first event.

Anybody who may write to the log can offer a run, with any version of evflow. The types of the fields are checked where the event is
read; what stands inside of them is checked here, before the run exists: a value that nobody can work with would end the loop of
all runs of its shard, or the fork server of all runs of its code, again with each owner.
"""

from typing import Any, Final, cast, get_args

from evflow.core.events import RunStarted
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log.keys import shared_shard
from evflow.worker.method import Method

_DIGEST_BYTES: Final = 32
_COUNTS: Final = ("max_workers", "max_log_size_mb")


class OfferUnfit(ValueError):
    """No scheduler can carry this run out."""


def check(started: RunStarted, shard: str) -> None:
    """See that a run can be carried out in a shard, as far as its first event says.

    Raises:
        OfferUnfit: It cannot.
    """
    for what, wrong in _faults(started, shard).items():
        if wrong:
            raise OfferUnfit(what)


def _faults(started: RunStarted, shard: str) -> dict[str, bool]:
    options, package, file = started.options, started.code.get("package"), started.code.get("file")
    home = shared_shard(RunId(FlowName(started.flow), RunNumber(started.number)))
    return {
        f"its shard is {home}": home != shard,
        "the parameters are no digest": not _is_digest(started.parameters),
        "the code package is no digest": package is not None and not _is_digest(package),
        "the flow's file has no name": package is not None and not _is_file(file),
        "a tag is no text": not _are_texts(started.tags) or not _are_texts(started.system_tags),
        "a decorator of --with is no text": not _are_texts(options.get("with", ())),
        "the start method is unknown": options.get("start_method") not in (None, "", "auto", *get_args(Method)),
        **{f"the option {name} is no count": not _is_count(options.get(name, 1)) for name in _COUNTS},
    }


def _is_digest(given: Any) -> bool:
    return isinstance(given, bytes) and len(given) == _DIGEST_BYTES


def _is_file(given: Any) -> bool:
    return isinstance(given, str) and given.rpartition("/")[2] not in ("", ".", "..") and "\0" not in given


def _are_texts(given: Any) -> bool:
    return isinstance(given, tuple) and all(isinstance(text, str) for text in cast("tuple[object, ...]", given))


def _is_count(given: Any) -> bool:
    return type(given) is int and given > 0
