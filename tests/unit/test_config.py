import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow import config
from evflow.errors import UsageError


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    config.reset()
    yield
    config.reset()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_default_says_so() -> None:
    assert config.source("max_workers") == (16, "default", "")


def test_the_home_folder_decides_over_the_default(evflow_home: Path) -> None:
    path = write(evflow_home / "config.toml", "# mine\nmax_workers = 3\n")
    assert config.source("max_workers") == (3, "home", f"{path}:2")


def test_a_project_decides_over_the_home_folder(evflow_home: Path) -> None:
    write(evflow_home / "config.toml", "max_workers = 3\n")
    path = write(Path.cwd() / "evflow.toml", "max_workers = 4\n")
    assert config.source("max_workers") == (4, "project", f"{path}:1")


def test_the_nearest_project_file_with_the_key_decides() -> None:
    write(Path.cwd() / "evflow.toml", "max_workers = 4\ntask_budget = 9\n")
    inner = Path.cwd() / "team" / "flow"
    write(inner.parent / "evflow.toml", "max_workers = 5\n")
    inner.mkdir()
    config.use_folder(inner)
    assert (config.get("max_workers"), config.get("task_budget")) == (5, 9)


def test_a_key_may_be_written_as_its_option_is() -> None:
    path = write(Path.cwd() / "evflow.toml", "task_budget = 9\nmax-workers = 4\nno-such = 1\n")
    assert config.source("max_workers") == (4, "project", f"{path}:2")
    assert config.unknown_keys() == [(f"{path}:3", "no-such")]


def test_a_variable_decides_over_files(monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path.cwd() / "evflow.toml", "max_workers = 4\n")
    monkeypatch.setenv("EVFLOW_MAX_WORKERS", "6")
    assert config.source("max_workers") == (6, "environment", "EVFLOW_MAX_WORKERS")


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_MAX_WORKERS", "")
    assert config.source("max_workers").layer == "default"


def test_an_option_decides_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_MAX_WORKERS", "6")
    config.set_option("max_workers", 7, "--max-workers")
    assert config.source("max_workers") == (7, "option", "--max-workers")


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("max_workers", "many", "whole number"),
        ("max_workers", "0", "at least 1"),
        ("store", "s3:/bucket/prefix", "s3://bucket/prefix"),
        ("linger_s", "-1", "seconds"),
        ("linger_s", "nan", "seconds"),
        ("durability", "always", "everysec, fsync, replicated"),
        ("debug", "perhaps", "true or false"),
        ("redis_url", "localhost:6379", "redis://host"),
        ("event_streams", "orders", "a list of PLACE=EVENT: 'orders' is not of the form"),
        ("event_folders", "/in=evflow.finished.F", "'evflow.' are published by evflow alone: 'evflow.finished.F'.\n"),
        ("event_queues", "https://h/1/q?wrong=1=e", "=EVENT: there is no option 'wrong'; there are prefix, suffix, on.\n"),
        ("event_buckets", "s3://d?every=0=e", "=EVENT: every=0: it is a number of seconds from 1 to 86,400.\n"),
    ],
)
def test_a_wrong_variable_is_named_with_what_it_must_be(name: str, value: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"EVFLOW_{name.upper()}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(config.ConfigInvalid, match=wanted) as caught:
        config.get(name)
    assert variable in caught.value.message
    assert value in caught.value.message


@pytest.mark.parametrize("name", ["home", "store"])
def test_a_variable_that_is_not_utf8_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"EVFLOW_{name.upper()}", os.fsdecode(b"caf\xe9"))
    with pytest.raises(config.ConfigInvalid, match="in UTF-8"):
        config.get(name)


def test_a_home_folder_that_is_not_utf8_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVFLOW_HOME")
    monkeypatch.setenv("HOME", os.fsdecode(b"/caf\xe9"))
    with pytest.raises(config.ConfigInvalid, match=r"the default: home is .* in UTF-8"):
        config.get("store")


def test_a_home_too_long_for_a_path_is_not_taken_for_a_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_HOME", "/" + "x" * 300)
    assert config.get("max_workers") == 16


def test_a_wrong_value_in_a_file_is_named_with_its_line() -> None:
    path = write(Path.cwd() / "evflow.toml", 'store = "s"\n\n  max_workers = "many"\n')
    with pytest.raises(config.ConfigInvalid, match=f"{path}:3"):
        config.get("max_workers")


def test_a_wrong_value_stops_only_who_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_MAX_WORKERS", "many")
    assert config.get("task_budget") == 1_000_000


def test_a_boolean_is_no_number() -> None:
    write(Path.cwd() / "evflow.toml", "max_workers = true\n")
    with pytest.raises(config.ConfigInvalid):
        config.get("max_workers")


def test_a_file_that_is_not_toml_is_named(evflow_home: Path) -> None:
    path = write(evflow_home / "config.toml", "max_workers == 3\n")
    with pytest.raises(config.ConfigUnreadable, match=str(path)):
        config.get("max_workers")


def test_a_path_in_a_file_is_relative_to_the_file() -> None:
    write(Path.cwd() / "evflow.toml", 'store = "data/store"\n')
    inner = Path.cwd() / "a" / "b"
    inner.mkdir(parents=True)
    config.use_folder(inner)
    assert config.get("store") == str(Path.cwd() / "data" / "store")


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_STORE", "~/store")
    assert config.get("store") == str(Path.home() / "store")


def test_the_store_lies_in_the_home_folder_by_default(evflow_home: Path) -> None:
    assert config.get("store") == str(evflow_home / "store")


def test_a_store_url_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_STORE", "file:///data/store")
    assert config.get("store") == "file:///data/store"


def test_the_namespace_follows_from_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_USER", "grace")
    assert config.get("namespace") == "user:grace"


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert config.get("user").isdecimal()


@pytest.mark.parametrize("name", ["user", "namespace"])
def test_a_name_that_no_event_could_hold_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"EVFLOW_{name.upper()}", "\udcff")
    with pytest.raises(config.ConfigInvalid, match=r"'\\udcff', but it must be a text of printable characters"):
        config.get(name)


def test_a_user_whose_name_is_no_text_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "\udcff")
    assert config.get("user").isdecimal()


def test_a_file_that_is_gone_still_says_what_it_said() -> None:
    file = write(Path("evflow.toml"), "\nmax_workers = 3\n")
    assert config.get("max_workers") == 3
    file.unlink()
    assert config.source("max_workers") == (3, "project", f"{file.absolute()}:2")


def test_decorators_in_a_variable_are_separated_by_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_DEFAULT_DECOSPECS", "retry:times=3,minutes_between_retries=0 resources:cpu=2")
    assert config.get("default_decospecs") == ("retry:times=3,minutes_between_retries=0", "resources:cpu=2")


def test_an_unknown_setting_lists_the_known_ones() -> None:
    with pytest.raises(config.UnknownSetting, match="max_workers") as caught:
        config.get("maximum")
    assert isinstance(caught.value, UsageError)


def test_unknown_keys_in_files_are_found_with_their_place() -> None:
    path = write(Path.cwd() / "evflow.toml", "max_workers = 3\nmax_worker = 4\n")
    assert (f"{path}:2", "max_worker") in config.unknown_keys()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("redis://ada:secret@host:6379/0", "redis://ada:***@host:6379/0"),
        ("redis://:secret@host", "redis://:***@host"),
        ("redis://:s@cret@host", "redis://:***@host"),
        ("redis://host:6379", "redis://host:6379"),
        ("redi://ada:secret@host", "redi://ada:***@host"),
        ("ada:secret@host:6379", "ada:***@host:6379"),
    ],
)
def test_a_password_in_a_url_is_masked(value: str, shown: str) -> None:
    assert config.shown("redis_url", value) == shown


@pytest.mark.parametrize("value", ["redi://ada:secret@host", "ada:secret@host:6379", ":secret@host"])
def test_a_password_in_a_url_that_is_wrong_is_masked_too(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_REDIS_URL", value)
    with pytest.raises(config.ConfigInvalid, match=r"redis_url is '.*@host") as caught:
        config.get("redis_url")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("setting", config.SETTINGS.values(), ids=list(config.SETTINGS))
def test_each_default_is_a_value_that_the_setting_takes(setting: config.Setting) -> None:
    value = config.get(setting.name)
    if value is not None:
        assert setting.kind.read(value) == value


def test_every_setting_has_a_row_in_the_documentation() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text()
    missing = [setting.name for setting in config.SETTINGS.values() if f"`{setting.name}`" not in text or setting.env not in text]
    assert not missing
