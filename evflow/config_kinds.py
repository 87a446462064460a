"""What values settings take: how each kind is read from a file or a variable, and how to say so to people.

Imported with `evflow.config` by every command and task, so it imports as little.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

Reader = Callable[[Any], Any]
"""Turns what a file or a variable holds into the setting's type; raises ValueError where it cannot."""


class Kind(NamedTuple):
    """What values a setting takes: how they are read, and how to say so to people."""

    wanted: str
    read: Reader
    is_path: bool = False


class Setting(NamedTuple):
    """One setting.

    Attributes:
        name: Its name, which is also its key in the files.
        kind: What values it takes.
        default: Its value where nobody said anything; a function of the other settings where it follows from them.
        help: What it does, in a sentence.
        option: The command line's option for it, or an empty string.
        secret: Its value may hold a password, which `shown` masks.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    option: str = ""
    secret: bool = False

    @property
    def env(self) -> str:
        """The variable that sets it."""
        return f"EVFLOW_{self.name.upper()}"


def text_of(raw: Any) -> str:
    """A text that is not empty."""
    if not isinstance(raw, str) or not raw:
        raise TypeError
    return raw


def _store(raw: Any) -> str:
    """A folder or a URL; one with a slash too few would be a folder of that name."""
    text = text_of(raw)
    if text.startswith(("s3:", "file:")) and "://" not in text:
        raise ValueError
    return text


def name_of(raw: Any) -> str:
    """A text of printable characters."""
    if not text_of(raw).isprintable():  # neither is a byte of the environment that is no UTF-8: no event could hold it
        raise ValueError
    return str(raw)


_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


def url_of(raw: Any) -> str:
    """A log's URL."""
    if text_of(raw).partition("://")[0] not in _SCHEMES or "://" not in raw:
        raise ValueError
    return str(raw)


def integer(low: int, high: int | None = None) -> Kind:
    """Whole numbers within bounds."""

    def read(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int | str):
            raise TypeError
        number = int(raw)
        if number < low or (high is not None and number > high):
            raise ValueError
        return number

    return Kind(f"a whole number, at least {low}" if high is None else f"a whole number from {low:,} to {high:,}", read)


def number(low: float) -> Kind:
    """Numbers from a bound on."""

    def read(raw: Any) -> float:
        number = _seconds(raw)
        if number < low:
            raise ValueError
        return number

    return Kind(f"a number, at least {low}", read)


def _seconds(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise TypeError
    number = float(raw)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _span(raw: Any) -> float:
    """Seconds, or a number with its unit: `90`, `30m`, `12h`, `1d`."""
    if isinstance(raw, str) and raw[-1:] in _UNITS_S:
        return _seconds(raw[:-1]) * _UNITS_S[raw[-1:]]
    return _seconds(raw)


def _patience(raw: Any) -> float:
    """More than two beats of a worker: one may be late."""
    number = _seconds(raw)
    if number < 2:
        raise ValueError
    return number


_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _switch(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    try:
        return _WORDS[str(raw).lower()]
    except KeyError:
        raise ValueError from None


def choice(*values: str) -> Kind:
    """One of a few words."""

    def read(raw: Any) -> str:
        if raw not in values:
            raise ValueError
        return str(raw)

    return Kind(f"one of {', '.join(values)}", read)


def words(separator: str | None) -> Reader:
    """A list in a file; in a variable words separated by `separator` (None: white space)."""

    def read(raw: Any) -> tuple[str, ...]:
        items: list[Any] = [part.strip() for part in raw.split(separator)] if isinstance(raw, str) else list(raw)
        if not all(isinstance(item, str) for item in items):
            raise TypeError
        return tuple(item for item in items if item)

    return read


class Fault(ValueError):
    """What is wrong with a value, for the message."""


def _read_by(name: str) -> Reader:
    """A list, each of which a function of `evflow.core.notifications` can read; what is wrong is part of the message."""

    def read(raw: Any) -> tuple[str, ...]:
        found: tuple[str, ...] = words(",")(raw)
        if found:
            from evflow.core import notifications

            try:
                for text in found:
                    getattr(notifications, name)(text)
            except ValueError as error:
                raise Fault(str(error)) from None
        return found

    return read


def _http_url(raw: Any) -> str:
    if not text_of(raw).startswith(("http://", "https://")) or not raw.partition("://")[2]:
        raise ValueError
    return str(raw)


def _listen_address(raw: Any) -> str:
    """`host:port`; a port alone listens on this machine only."""
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise TypeError
    host, separator, port = str(raw).rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 65_536) or (separator and not host):
        raise ValueError
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError
    return f"{host or '127.0.0.1'}:{int(port)}"


def _shards(raw: Any) -> tuple[int, ...]:
    """Numbers and ranges as a text, or a list of numbers."""
    from evflow.log.shard_sets import parsed

    if not isinstance(raw, str):
        items: list[Any] = [raw] if isinstance(raw, int) else list(raw)
        if not all(type(item) is int for item in items):
            raise TypeError
        raw = ",".join(map(str, items))
    return parsed(text_of(raw))


NAME = Kind("a text of printable characters", name_of)
PATH = Kind("a path", text_of, is_path=True)
STORE = Kind("a folder, file:///folder or s3://bucket/prefix", _store, is_path=True)
PATIENCE = Kind("a number of seconds, at least 2", _patience)
TIMEOUT = Kind("a number of seconds, at least 0.1", number(0.1).read)
SECONDS = Kind("a number of seconds, at least 0", _seconds)
SPAN = Kind("a time like 90s, 30m, 12h or 1d", _span)
FACTOR = Kind("a number, at least 0", _seconds)
LOG_URL = Kind("a URL like redis://host:6379/0, rediss://… or unix:///path", url_of)
SWITCH = Kind("true or false", _switch)
PLACES = Kind("a list of PLACE=EVENT", _read_by("place_of"))
QUEUES = Kind("a list of URL=EVENT, URL?prefix=…&suffix=…&on=created|removed|any=EVENT", _read_by("queue_of"))
BUCKETS = Kind("a list of s3://BUCKET/PREFIX=EVENT, s3://BUCKET/PREFIX?suffix=…&every=SECONDS=EVENT", _read_by("bucket_of"))
ENDPOINT = Kind("a URL like http://localhost:4566", _http_url)
SECRET = Kind("a text", text_of)
SHARDS = Kind("shards from 0 to 7, like 0-3,6", _shards)
LISTEN = Kind("HOST:PORT, or PORT alone for this machine only", _listen_address)
