"""Metaflow's variables and files of settings as evflow's variables."""

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from evflow.compat.metaflow.variables import SettingsUnreadable, origins, settings, translated

NAMES = st.sampled_from(["USER", "RUN_ALPHA", "RUN_MAX_WORKERS", "FLOW_CONFIG", "SERVICE_URL", "DEFAULT_DECOSPECS"])


def _home(folder: Path, name: str, **values: object) -> dict[str, str]:
    (folder / name).write_text(json.dumps(values))
    return {"METAFLOW_HOME": str(folder)}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("METAFLOW_USER", "EVFLOW_USER"),
        ("METAFLOW_DEFAULT_DECOSPECS", "EVFLOW_DEFAULT_DECOSPECS"),
        ("METAFLOW_DEFAULT_PACKAGE_SUFFIXES", "EVFLOW_PACKAGE_SUFFIXES"),
        ("METAFLOW_FLOW_CONFIG", "EVFLOW_FLOW_CONFIG"),
        ("METAFLOW_FLOW_CONFIG_VALUE", "EVFLOW_FLOW_CONFIG_VALUE"),
        ("METAFLOW_RUN_LEARNING_RATE", "EVFLOW_RUN_LEARNING_RATE"),
        ("METAFLOW_RUN_MAX_WORKERS", "EVFLOW_MAX_WORKERS"),
        ("METAFLOW_RUN_NAMESPACE", "EVFLOW_NAMESPACE"),
        ("METAFLOW_RUN_TAGS", "EVFLOW_RUN_TAGS"),
    ],
)
def test_each_has_its_counterpart(theirs: str, ours: str, tmp_path: Path) -> None:
    assert translated({theirs: "a", "METAFLOW_HOME": str(tmp_path)}, tmp_path) == {ours: "a"}
    assert origins([ours]) == {ours: theirs}


def test_the_store_is_a_folder_of_its_own_in_metaflow_s_root(tmp_path: Path) -> None:
    assert translated({"METAFLOW_DATASTORE_SYSROOT_LOCAL": "/data", "METAFLOW_HOME": str(tmp_path)}, tmp_path) == {
        "EVFLOW_STORE": "/data/.evflow"
    }


@given(st.dictionaries(NAMES, st.text(max_size=5)), st.dictionaries(NAMES, st.text(max_size=5)))
def test_a_variable_that_is_set_is_never_changed_and_an_empty_one_counts_as_unset(theirs: dict[str, str], ours: dict[str, str]) -> None:
    own = {f"EVFLOW_{name.removeprefix('RUN_') if name == 'RUN_MAX_WORKERS' else name}": value for name, value in ours.items()}
    environment = {**{f"METAFLOW_{name}": value for name, value in theirs.items()}, **own, "METAFLOW_HOME": "/nowhere"}
    found = translated(environment, Path("/nowhere"))
    assert all(not own.get(name) for name in found)
    assert all(found.values())
    assert "EVFLOW_SERVICE_URL" not in found


def test_a_variable_wins_over_the_folder_s_file_and_that_over_the_user_s(tmp_path: Path) -> None:
    home = tmp_path / "home"
    inner = tmp_path / "a" / "b"
    home.mkdir()
    inner.mkdir(parents=True)
    (tmp_path / ".metaflow").mkdir()
    environment = _home(home, "config.json", METAFLOW_USER="home", METAFLOW_RUN_A="home", METAFLOW_RUN_B=2)
    (tmp_path / ".metaflow" / "config.json").write_text(json.dumps({"METAFLOW_USER": "local", "METAFLOW_RUN_A": "local"}))
    found = translated({**environment, "METAFLOW_USER": "variable"}, inner)
    assert found == {"EVFLOW_USER": "variable", "EVFLOW_RUN_A": "local", "EVFLOW_RUN_B": "2"}
    assert settings(environment, inner)["METAFLOW_USER"] == "local"


def test_a_profile_names_the_user_s_file(tmp_path: Path) -> None:
    environment = {**_home(tmp_path, "config_test.json", METAFLOW_USER="of the profile"), "METAFLOW_PROFILE": "test"}
    assert translated(environment, tmp_path) == {"EVFLOW_USER": "of the profile"}


def test_a_profile_without_its_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsUnreadable, match=r"config_none\.json.*METAFLOW_PROFILE is 'none'"):
        translated({"METAFLOW_PROFILE": "none", "METAFLOW_HOME": str(tmp_path)}, tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsUnreadable, match=r"config\.json"):
        translated({"METAFLOW_HOME": str(tmp_path)}, tmp_path)
