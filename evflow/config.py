"""Every setting of evflow, where its value comes from, and one order for all of them.

    option  >  EVFLOW_*  >  evflow.toml (folder, then its parents)  >  ~/.evflow/config.toml  >  default

The rules:

* `SETTINGS` is the whole list. A name, its variable `EVFLOW_<NAME>` and its key in the files are the same word.
* The nearest `evflow.toml` with the key wins, so a project's file may leave the rest to its parent folders.
* A path in a file is relative to that file, a path in a variable or an option to the current folder.
* A bad value stops whoever asks for it and names its place. A key that nobody knows stops nothing (the file may serve
  a later version too): `unknown_keys` lists them, and `evflow config` and `evflow doctor` show them.
* Files are read once per process; variables are read at each call, so that a change inside a notebook counts.

Commands, client and workers import this module, so it imports little: `tomllib` only where a file exists, `pathlib`
(5 ms) only for whoever wants a `Path`.
"""

# pathlib is a heavy import, see above.
# ruff: noqa: PTH100, PTH111, PTH113, PTH118, PTH120, PTH123

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from evflow.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "evflow.toml"
HOME_FILE = "config.toml"


class ConfigInvalid(UsageError):
    """A setting has a value that it cannot have."""

    code = "config-invalid"

    def __init__(self, place: str, name: str, value: object, wanted: str) -> None:
        super().__init__(
            f"{place}: {name} is {value!r}, but it must be {wanted}.",
            "`evflow config` lists every setting, its value and its place.",
        )


class ConfigUnreadable(UsageError):
    """A file of settings exists and cannot be read."""

    code = "config-unreadable"

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place}: this file of settings cannot be read: {why}.", "Mend it or move it away.")


class UnknownSetting(UsageError):
    """There is no setting of that name."""

    code = "unknown-setting"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no setting '{name}'.", f"There are: {', '.join(SETTINGS)}.")


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


class Value(NamedTuple):
    """A setting's value and the place that it comes from.

    Attributes:
        layer: `option`, `environment`, `project`, `home` or `default`.
        place: The option, the variable, `file:line`, or an empty string for a default.
    """

    value: Any
    layer: str
    place: str


# --- kinds -----------------------------------------------------------------------------------------------


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw:
        raise TypeError
    return raw


def _name(raw: Any) -> str:
    if not _text(raw).isprintable():  # neither is a byte of the environment that is no UTF-8: no event could hold it
        raise ValueError
    return str(raw)


_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


def _url(raw: Any) -> str:
    if _text(raw).partition("://")[0] not in _SCHEMES or "://" not in raw:
        raise ValueError
    return str(raw)


def _integer(low: int, high: int | None = None) -> Kind:
    def read(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int | str):
            raise TypeError
        number = int(raw)
        if number < low or (high is not None and number > high):
            raise ValueError
        return number

    return Kind(f"a whole number, at least {low}" if high is None else f"a whole number from {low:,} to {high:,}", read)


def _number(low: float) -> Kind:
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


def _choice(*values: str) -> Kind:
    def read(raw: Any) -> str:
        if raw not in values:
            raise ValueError
        return str(raw)

    return Kind(f"one of {', '.join(values)}", read)


def _words(separator: str | None) -> Reader:
    """A list in a file; in a variable words separated by `separator` (None: white space)."""

    def read(raw: Any) -> tuple[str, ...]:
        items: list[Any] = [part.strip() for part in raw.split(separator)] if isinstance(raw, str) else list(raw)
        if not all(isinstance(item, str) for item in items):
            raise TypeError
        return tuple(item for item in items if item)

    return read


class _Fault(ValueError):
    """What is wrong with a value, for the message."""


def _read_by(name: str) -> Reader:
    """A list, each of which a function of `evflow.core.notifications` can read; what is wrong is part of the message."""

    def read(raw: Any) -> tuple[str, ...]:
        found: tuple[str, ...] = _words(",")(raw)
        if found:
            from evflow.core import notifications

            try:
                for text in found:
                    getattr(notifications, name)(text)
            except ValueError as error:
                raise _Fault(str(error)) from None
        return found

    return read


def _http_url(raw: Any) -> str:
    if not _text(raw).startswith(("http://", "https://")) or not raw.partition("://")[2]:
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
    return parsed(_text(raw))


NAME = Kind("a text of printable characters", _name)
PATH = Kind("a path", _text, is_path=True)
PATIENCE = Kind("a number of seconds, at least 2", _patience)
TIMEOUT = Kind("a number of seconds, at least 0.1", _number(0.1).read)
SECONDS = Kind("a number of seconds, at least 0", _seconds)
SPAN = Kind("a time like 90s, 30m, 12h or 1d", _span)
FACTOR = Kind("a number, at least 0", _seconds)
LOG_URL = Kind("a URL like redis://host:6379/0, rediss://… or unix:///path", _url)
SWITCH = Kind("true or false", _switch)
PLACES = Kind("a list of PLACE=EVENT", _read_by("place_of"))
QUEUES = Kind("a list of URL=EVENT, URL?prefix=…&suffix=…&on=created|removed|any=EVENT", _read_by("queue_of"))
BUCKETS = Kind("a list of s3://BUCKET/PREFIX=EVENT, s3://BUCKET/PREFIX?suffix=…&every=SECONDS=EVENT", _read_by("bucket_of"))
ENDPOINT = Kind("a URL like http://localhost:4566", _http_url)
SECRET = Kind("a text", _text)
SHARDS = Kind("shards from 0 to 7, like 0-3,6", _shards)
LISTEN = Kind("HOST:PORT, or PORT alone for this machine only", _listen_address)

# --- defaults that follow from the machine or from other settings ------------------------------------------


def _default_user() -> str:
    import getpass

    try:
        return _name(getpass.getuser())
    except (KeyError, OSError, ImportError, TypeError, ValueError):  # no passwd entry, as in many containers; ImportError before 3.13
        return str(os.getuid())


def _default_store() -> str:
    return os.path.join(get("home"), "store")


def _default_namespace() -> str:
    return f"user:{get('user')}"


def _default_home() -> str:
    return os.path.join(os.path.expanduser("~"), ".evflow")


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("home", PATH, _default_home, "Folder of the embedded server, the store, the runs' locks and config.toml."),
        Setting(
            "redis_url",
            LOG_URL,
            None,
            "The log's server (redis://, rediss://, unix://, redis+sentinel://, redis+cluster://); unset: the embedded one.",
            secret=True,
        ),
        Setting(
            "log_timeout",
            TIMEOUT,
            5.0,
            "Seconds after which a server that does not answer counts as gone; its connection is made anew.",
        ),
        Setting("store", PATH, _default_store, "Where artifacts and tasks' output are kept: a folder or a file:// URL.", secret=True),
        Setting("server_binary", PATH, None, "The valkey-server or redis-server that the embedded log runs; unset: found."),
        Setting("linger_s", SECONDS, 10.0, "Seconds that the embedded server outlives its last client."),
        Setting("durability", _choice("everysec", "fsync", "replicated"), "everysec", "When an event counts as written.", "--durability"),
        Setting("user", NAME, _default_user, "Who starts runs."),
        Setting("namespace", NAME, _default_namespace, "Namespace of the client and of runs.", "--namespace"),
        Setting("default_decospecs", Kind("a list of decorators", _words(None)), (), "Decorators for every step of every flow.", "--with"),
        Setting("default_secrets_backend_type", NAME, None, "Type of the sources of `@secrets` that name none."),
        Setting("max_workers", _integer(1), 16, "Attempts of a run that may run at once.", "--max-workers"),
        Setting("max_num_splits", _integer(1), 100, "Tasks that one foreach may make.", "--max-num-splits"),
        Setting("max_log_size", _integer(1), 10, "Captured output of an attempt, in MB.", "--max-log-size"),
        Setting("task_budget", _integer(1), 1_000_000, "Tasks that one run may make, so that an endless loop ends."),
        Setting("start_method", _choice("auto", "fork", "spawn"), "auto", "How an attempt's process starts.", "--start-method"),
        Setting(
            "fallback",
            _choice("local", "wait", "error"),
            "local",
            "What a run does where a step's pool has no living worker, or its environment cannot be had: run it here, wait, or refuse.",
            "--fallback",
        ),
        Setting(
            "max_run_time", SPAN, None, "How long a run may take, pauses included, before it fails; unset: no limit.", "--max-run-time"
        ),
        Setting("on_failure", _choice("fail", "pause"), "fail", "What a run does when a task has no attempt left.", "--on-failure"),
        Setting("priority", _integer(-1_000_000, 1_000_000), 0, "Whose tasks get slots first: higher ones.", "--priority"),
        Setting("retry_scale", FACTOR, 1.0, "Factor on the waits of @retry; 0 retries at once."),
        Setting("package_suffixes", Kind("a list of suffixes", _words(",")), (".py", ".R", ".RDS"), "Files of the code package."),
        Setting("warm_memory", _integer(0), 1_000, "Memory that a scheduler's loaded flows without work may keep, in MB.", "--warm-memory"),
        Setting(
            "drain_timeout",
            SECONDS,
            None,
            "Seconds that a scheduler's attempts may go on after SIGTERM; unset: no limit.",
            "--drain-timeout",
        ),
        Setting(
            "hot_for", SPAN, 86_400.0, "How long the log of a run that is over stays at the server after it was archived.", "--hot-for"
        ),
        Setting("http", LISTEN, None, "Where a scheduler answers HTTP: health and metrics; unset: nowhere.", "--http"),
        Setting("shards", SHARDS, None, "Shards that a scheduler of this machine may own; unset: all.", "--shards"),
        Setting("keep_events_days", _number(0.001), 7.0, "For how many days published events and their ids are kept."),
        Setting("keep_events", _integer(1), 100_000, "How many published events are kept."),
        Setting(
            "worker_patience",
            PATIENCE,
            5.0,
            "Seconds unheard after which a pool's worker counts as dead, and ends what it runs.",
            "--worker-patience",
        ),
        Setting("event_streams", PLACES, (), "Redis Streams at the log's server whose entries are events, as STREAM=EVENT."),
        Setting("event_folders", PLACES, (), "Folders of this machine whose new files are events, as FOLDER=EVENT."),
        Setting("event_queues", QUEUES, (), "Queues of SQS whose messages are events, S3's notifications most of all, as URL=EVENT."),
        Setting(
            "event_buckets", BUCKETS, (), "Parts of buckets whose new objects are events, found by listing, as s3://BUCKET/PREFIX=EVENT."
        ),
        Setting("aws_region", NAME, None, "AWS's region, where a queue's URL does not name it; unset: what the platform says."),
        Setting("aws_endpoint", ENDPOINT, None, "URL of another server than AWS's: LocalStack, MinIO, ElasticMQ; unset: AWS."),
        Setting("http_token", SECRET, None, "Bearer token of those who publish events over HTTP; unset: none is taken.", secret=True),
        Setting("http_secret", SECRET, None, "Secret of the signatures of events over HTTP; unset: none is taken.", secret=True),
        Setting("view", _choice("auto", "live", "plain"), "auto", "How a run is shown: live in a terminal, or as lines.", "--view"),
        Setting("color", _choice("auto", "always", "never"), "auto", "Colours in a terminal's output."),
        Setting("log_level", _choice("debug", "info", "warning", "error"), "warning", "What evflow says about itself on stderr."),
        Setting(
            "log_format",
            _choice("auto", "json", "text"),
            "auto",
            "Form of these lines; auto: text in a terminal, JSON from a scheduler elsewhere.",
            "--log-format",
        ),
        Setting("debug", SWITCH, False, "Show the traceback of an internal error."),
    )
}
"""All settings, in the order in which they are shown. Each has a row in docs/configuration.md."""

# --- reading ---------------------------------------------------------------------------------------------

_options: dict[str, Value] = {}
_files: dict[str, "_File"] = {}
_folder: str | None = None


def get(name: str) -> Any:
    """The setting's value, in its type.

    Raises:
        UnknownSetting: There is no such setting.
        ConfigInvalid: The winning place holds a value that it cannot have.
        ConfigUnreadable: A file that could hold it cannot be read.
    """
    return source(name).value


def source(name: str) -> Value:
    """The setting's value and the place that it comes from.

    Raises:
        UnknownSetting, ConfigInvalid, ConfigUnreadable: As for `get`.
    """
    setting = _setting(name)
    if name in _options:
        return _options[name]
    raw = os.environ.get(setting.env)
    if raw:  # an empty variable is an unset one: shells make the two hard to tell apart
        return Value(_read(setting, raw, setting.env, ""), "environment", setting.env)
    for path, layer in _places(name):
        file = _file(path)
        if name in file.values:
            place = f"{path}:{_line(file, name)}"
            return Value(_read(setting, file.values[name], place, os.path.dirname(path)), layer, place)
    default = setting.default
    return Value(_read(setting, default(), "the default", "") if callable(default) else default, "default", "")


def set_option(name: str, value: Any, option: str) -> None:
    """Let an option of the command line decide a setting, for the rest of this process.

    Raises:
        ConfigInvalid: The value is not one that the setting takes.
    """
    setting = _setting(name)
    _options[name] = Value(_read(setting, value, option, ""), "option", option)


def use_folder(folder: "str | Path | None") -> None:
    """Look for `evflow.toml` from this folder upwards (a flow's folder); None: the current one."""
    global _folder
    _folder = None if folder is None else os.fspath(folder)


def reset() -> None:
    """Forget options, the folder and what was read of files."""
    _options.clear()
    _files.clear()
    use_folder(None)


def home() -> "Path":
    """The folder of everything that evflow keeps on this machine."""
    from pathlib import Path

    return Path(get("home"))


def shown(name: str, value: Any) -> Any:
    """The value as it may be shown to people: without passwords."""
    setting = _setting(name)
    if not (setting.secret and isinstance(value, str)):
        return value
    if setting.kind is SECRET:
        return "***"
    head, slashes, rest = value.partition("://")
    if not slashes and not setting.kind.is_path:  # a URL without its beginning is wrong, and its password is one all the same
        head, rest = "", head
    user, at, host = rest.rpartition("@")
    if not (at and ":" in user):
        return value
    return f"{head}{slashes}{user.partition(':')[0]}:***@{host}"


def files() -> list[str]:
    """The files of settings that exist, the strongest first."""
    return [path for path, _ in _places("") if os.path.isfile(path)]


def unknown_keys() -> list[tuple[str, str]]:
    """Keys in the files that name no setting: `(file:line, key)`.

    Raises:
        ConfigUnreadable: A file cannot be read.
    """
    read = [(path, _file(path)) for path, _ in _places("")]
    return [(f"{path}:{_line(file, key)}", key) for path, file in read for key in file.values if key not in SETTINGS]


def _setting(name: str) -> Setting:
    try:
        return SETTINGS[name]
    except KeyError:
        raise UnknownSetting(name) from None


def _read(setting: Setting, raw: Any, place: str, folder: str) -> Any:
    try:
        value = setting.kind.read(raw)
    except (ValueError, TypeError) as error:
        why = f": {str(error).rstrip('.')}" if isinstance(error, _Fault) else ""
        raise ConfigInvalid(place, setting.name, shown(setting.name, raw), f"{setting.kind.wanted}{why}") from None
    if setting.kind.is_path and "://" not in value:
        try:
            value = os.path.abspath(os.path.join(folder, os.path.expanduser(value)))
        except FileNotFoundError:
            raise ConfigInvalid(place, setting.name, raw, "an absolute path: the current folder does not exist any more") from None
    if isinstance(value, str) and not _is_utf8(value):
        raise ConfigInvalid(place, setting.name, value, f"{setting.kind.wanted} in UTF-8")
    return value


def _is_utf8(text: str) -> bool:
    """Whether a log can hold the text: a variable or a path may have bytes that are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _places(name: str) -> Iterator[tuple[str, str]]:
    """The files that may hold the setting, the strongest first."""
    yield from ((os.path.join(folder, FILE), "project") for folder in _folders_above())
    if name != "home":  # it lies in there
        yield os.path.join(get("home"), HOME_FILE), "home"


def _folders_above() -> Iterator[str]:
    """The folder in which a project's file is looked for first, then its parents."""
    try:
        folder = os.path.abspath(_folder or "")
    except FileNotFoundError:  # the current folder was removed under this process
        return
    while True:
        yield folder
        above = os.path.dirname(folder)
        if above == folder:
            return
        folder = above


class _File(NamedTuple):
    """A file of settings as it was when it was read; empty where there was none."""

    values: Mapping[str, Any]
    text: str


def _file(path: str) -> _File:
    """The file, read at its first use."""
    if path not in _files:
        _files[path] = _load(path)
    return _files[path]


def _load(path: str) -> _File:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return _File({}, "")
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # no such file can be there: whoever needs the folder says so
            return _File({}, "")
        # A folder above the project that we may not look into is none of our business; a file we may not read is.
        if isinstance(error, PermissionError) and not os.access(os.path.dirname(path), os.X_OK):
            return _File({}, "")
        raise ConfigUnreadable(path, error.strerror or str(error)) from error
    import tomllib

    try:
        text = data.decode()
        return _File(tomllib.loads(text), text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigUnreadable(path, str(error)) from error


def _line(file: _File, name: str) -> int:
    """The line of a top-level key, 1 where it is written in a way that this simple search does not see."""
    for number, line in enumerate(file.text.splitlines(), start=1):
        key = line.partition("=")[0].strip().strip("\"'")
        if key in (name, f"[{name}]"):
            return number
    return 1
