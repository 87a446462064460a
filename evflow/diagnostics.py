"""What evflow says about itself on stderr, as far as the setting `log_level` wants to hear it.

For whoever looks for a fault in evflow or its surroundings; what a user must know is an error or a notice. One line each, as
`key=value` pairs that begin with time, level and event; `run`, `task`, `attempt` and `seq` are called so everywhere:

    timestamp=2026-11-23T18:04:05.123456Z level=info event="shard taken" run=TrainFlow/3 epoch=17

or, where the setting `log_format` says `json`, as a JSON document with the same keys.

A process says nothing until it called `prepare`: the setting is read from files, and an event loop is no place for that.
structlog (0.13 s) is imported there where `debug` or `info` are wanted, else with the first warning, which is rare; so a
usual run never pays for it. It is used without its global configuration, which belongs to the user's own code in this
process. The core says nothing: what it decided stands in the log.
"""

import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from evflow import config

_LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_FIRST_KEYS: Final = ("timestamp", "level", "event", "run", "task", "attempt", "seq")

_SILENT: Final = 100

_threshold = _SILENT
_logger: Any = None
_out: Callable[[str], None] | None = None
_json = False


def prepare(out: Callable[[str], None] | None = None, *, at_once: bool = False) -> None:
    """Read the settings; from now on lines go to `out`, or to stderr. Before the event loop begins.

    Args:
        out: Takes the lines.
        at_once: For a process that stays: import now what the first line needs, whose loop must not wait for it then, and write
            JSON where stderr is no terminal and nothing else is set.

    Raises:
        ConfigInvalid: There is no such level or format.
    """
    global _threshold, _out, _json, _logger
    _threshold = _LEVELS[config.get("log_level")]
    _out = out
    form = config.get("log_format")
    json = form == "json" or (form == "auto" and at_once and not sys.stderr.isatty())
    if json != _json:
        _json, _logger = json, None
    if at_once or _threshold < _LEVELS["warning"]:
        _structlog()


def silence() -> None:
    """Say nothing any more, as before `prepare`."""
    global _threshold
    _threshold = _SILENT


def debug(event: str, **values: object) -> None:
    """Say what happened, for whoever follows every step."""
    _say("debug", event, values)


def info(event: str, **values: object) -> None:
    """Say what happened and does not happen all the time."""
    _say("info", event, values)


def warning(event: str, **values: object) -> None:
    """Say what should not have happened and was mended."""
    _say("warning", event, values)


def _say(level: str, event: str, values: Mapping[str, object]) -> None:
    if _LEVELS[level] >= _threshold:
        getattr(_structlog(), level)(event, **{key: _plain(value) for key, value in values.items()})


def _structlog() -> Any:
    global _logger
    if _logger is None:
        from evflow.imports import framework_view

        with framework_view():
            import structlog
            from structlog.processors import LogfmtRenderer, TimeStamper, add_log_level
        text = LogfmtRenderer(key_order=_FIRST_KEYS, drop_missing=True, bool_as_flag=False)
        _logger = structlog.wrap_logger(
            _Lines(),
            processors=[
                add_log_level,
                TimeStamper(fmt="iso", utc=True),
                _renderer() if _json else text,
            ],
            wrapper_class=structlog.BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=True,
        )
    return _logger


def _renderer() -> Callable[[object, str, MutableMapping[str, Any]], str]:
    """A line's keys and values as one JSON document, the first keys first."""
    import json

    import orjson

    def render(_: object, __: str, values: MutableMapping[str, Any]) -> str:
        ordered = {key: values.pop(key) for key in _FIRST_KEYS if key in values}
        line = {**ordered, **values}
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # a number of more than 64 bits, or a text that is no UTF-8, as names of files may be
            return json.dumps(line, default=str)

    return render


class _Lines:
    """The end of the way: a line of text."""

    def msg(self, line: str) -> None:
        """Write the line."""
        if _out is not None:
            _out(line)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is what the module is for

    debug = info = warning = error = msg


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
