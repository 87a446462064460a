"""Every setting of evflow, where its value comes from, and one order for all of them.

    option  >  EVFLOW_*  >  evflow.toml (folder, then its parents)  >  ~/.evflow/config.toml  >  default

The rules:

* `SETTINGS` is the whole list. A name, its variable `EVFLOW_<NAME>` and its key in the files are the same word.
* The nearest `evflow.toml` with the key wins, so a project's file may leave the rest to its parent folders.
* A path in a file is relative to that file, a path in a variable or an option to the current folder.
* A bad value stops whoever asks for it and names its place. A key that nobody knows stops nothing (the file may serve
  a later version too): `unknown_keys` lists them, and `evflow config` and `evflow doctor` show them.
* A variable that begins with EVFLOW_ and is no setting stops nothing either: `evflow.config_variables` finds them.
* Files are read once per process; variables are read at each call, so that a change inside a notebook counts.

Commands, client and workers import this module, so it imports little: `tomllib` only where a file exists, `pathlib`
(5 ms) only for whoever wants a `Path`.
"""

# pathlib is a heavy import, see above.
# ruff: noqa: PTH100, PTH111, PTH113, PTH118, PTH120, PTH123

import errno
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from evflow.config_cloud import cloud_settings
from evflow.config_kinds import (
    BUCKETS,
    ENDPOINT,
    FACTOR,
    LISTEN,
    LOG_URL,
    NAME,
    PATH,
    PATIENCE,
    PLACES,
    QUEUES,
    SECONDS,
    SECRET,
    SHARDS,
    SPAN as SPAN,
    STORE,
    SWITCH,
    TIMEOUT,
    Fault,
    Kind as Kind,
    Setting as Setting,
    choice,
    integer,
    name_of,
    number,
    words,
)
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


class Value(NamedTuple):
    """A setting's value and the place that it comes from.

    Attributes:
        layer: `option`, `environment`, `project`, `home` or `default`.
        place: The option, the variable, `file:line`, or an empty string for a default.
    """

    value: Any
    layer: str
    place: str


# --- defaults that follow from the machine or from other settings ------------------------------------------


def _default_user() -> str:
    import getpass

    try:
        return name_of(getpass.getuser())
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
        Setting("store", STORE, _default_store, "Where artifacts and tasks' output are kept: a folder or a file:// URL.", secret=True),
        Setting("server_binary", PATH, None, "The valkey-server or redis-server that the embedded log runs; unset: found."),
        Setting("linger_s", SECONDS, 10.0, "Seconds that the embedded server outlives its last client."),
        Setting("durability", choice("everysec", "fsync", "replicated"), "everysec", "When an event counts as written.", "--durability"),
        Setting("user", NAME, _default_user, "Who starts runs."),
        Setting("namespace", NAME, _default_namespace, "Namespace of the client and of runs.", "--namespace"),
        Setting("default_decospecs", Kind("a list of decorators", words(None)), (), "Decorators for every step of every flow.", "--with"),
        Setting("default_secrets_backend_type", NAME, None, "Type of the sources of `@secrets` that name none."),
        Setting("max_workers", integer(1), 16, "Attempts of a run that may run at once.", "--max-workers"),
        Setting("max_num_splits", integer(1), 100, "Tasks that one foreach may make.", "--max-num-splits"),
        Setting("max_log_size", integer(1), 10, "Captured output of an attempt, in MB.", "--max-log-size"),
        Setting("task_budget", integer(1), 1_000_000, "Tasks that one run may make, so that an endless loop ends."),
        Setting("start_method", choice("auto", "fork", "spawn"), "auto", "How an attempt's process starts.", "--start-method"),
        Setting(
            "fallback",
            choice("local", "wait", "error"),
            "local",
            "What a run does where a step's pool has no living worker, or its environment cannot be had: run it here, wait, or refuse.",
            "--fallback",
        ),
        Setting(
            "max_run_time", SPAN, None, "How long a run may take, pauses included, before it fails; unset: no limit.", "--max-run-time"
        ),
        Setting("on_failure", choice("fail", "pause"), "fail", "What a run does when a task has no attempt left.", "--on-failure"),
        Setting("priority", integer(-1_000_000, 1_000_000), 0, "Whose tasks get slots first: higher ones.", "--priority"),
        Setting("retry_scale", FACTOR, 1.0, "Factor on the waits of @retry; 0 retries at once."),
        Setting("package_suffixes", Kind("a list of suffixes", words(",")), (".py", ".R", ".RDS"), "Files of the code package."),
        Setting("warm_memory", integer(0), 1_000, "Memory that a scheduler's loaded flows without work may keep, in MB.", "--warm-memory"),
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
        Setting("keep_events_days", number(0.001), 7.0, "For how many days published events and their ids are kept."),
        Setting("keep_events", integer(1), 100_000, "How many published events are kept."),
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
        Setting("view", choice("auto", "live", "plain"), "auto", "How a run is shown: live in a terminal, or as lines.", "--view"),
        Setting("color", choice("auto", "always", "never"), "auto", "Colours in a terminal's output."),
        Setting("log_level", choice("debug", "info", "warning", "error"), "warning", "What evflow says about itself on stderr."),
        Setting(
            "log_format",
            choice("auto", "json", "text"),
            "auto",
            "Form of these lines; auto: text in a terminal, JSON from a scheduler elsewhere.",
            "--log-format",
        ),
        Setting("debug", SWITCH, False, "Show the traceback of an internal error."),
        *cloud_settings(),
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
        why = f": {str(error).rstrip('.')}" if isinstance(error, Fault) else ""
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
        return _File({_known(key): value for key, value in tomllib.loads(text).items()}, text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigUnreadable(path, str(error)) from error


def _known(key: str) -> str:
    """A key as its setting is called: `max-workers` is read as well, as the options have it."""
    name = key.replace("-", "_")
    return name if name in SETTINGS else key


def _line(file: _File, name: str) -> int:
    """The line of a top-level key, 1 where it is written in a way that this simple search does not see."""
    for place, line in enumerate(file.text.splitlines(), start=1):
        key = line.partition("=")[0].strip().strip("\"'")
        if key in (name, f"[{name}]") or _known(key) == name:
            return place
    return 1
