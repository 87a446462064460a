"""docker/: what its files name is there, and the commands in them are ones that evflow has. `tests/e2e/test_composed.py` runs them."""

import fnmatch
import json
import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from evflow.cli.app import app
from evflow.config import SETTINGS
from tests.conftest import REPOSITORY

DOCKER = REPOSITORY / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
COMPOSE_FILES = ("compose.yaml", "compose.host.yaml")
OURS = {"scheduler": f"evflow:{VERSION}", "task": f"evflow-task:{VERSION}", "s3": f"evflow-s3:{VERSION}"}
"""The images that `make images` makes, by their stages."""


def compose(name: str) -> dict[str, Any]:
    """A compose file with the defaults of its variables."""
    text = re.sub(r"\$\{(\w+)(?::?-([^}]*)|:\?[^}]*)?\}", lambda found: found[2] or found[1].lower(), (DOCKER / name).read_text())
    read: dict[str, Any] = import_module("yaml").safe_load(text.replace("!reset ", ""))
    return read


def stages() -> dict[str, str]:
    """The stages of the Dockerfile, with what they are made from."""
    return {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)}


def check_command(words: list[str]) -> None:
    """That evflow has the command, and it these options."""
    assert words[0] == "evflow"
    context = click.Context(app())
    command = app().get_command(context, words[1])
    assert command is not None, words
    command.make_context(words[1], words[2:], parent=context)


def test_every_stage_is_made_from_one_before_it_or_from_the_base_image_that_is_given() -> None:
    seen: list[str] = []
    for name, base in stages().items():
        assert base == "${PYTHON_IMAGE}" or base in seen
        seen.append(name)
    assert set(OURS) <= set(seen)
    assert set(re.findall(r"--from=(\S+)", DOCKERFILE)) <= set(seen)


def test_what_is_copied_into_an_image_exists_and_is_not_ignored() -> None:
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    let_through = [line[1:] for line in lines if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            path = source.rstrip("/")
            assert (REPOSITORY / path).exists(), source
            assert any(fnmatch.fnmatch(path, pattern) for pattern in let_through), f".dockerignore keeps {source} out"
    assert not any(fnmatch.fnmatch("docker/.env", pattern) for pattern in let_through)
    assert not any(fnmatch.fnmatch(".git", pattern) for pattern in let_through)


def test_what_images_run_are_commands_of_evflow_as_a_user_who_is_not_root_with_a_first_process_that_reaps() -> None:
    entries = {
        name: [*map(json.loads, re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE))] for name, text in bodies().items()
    }
    init = ["dumb-init", "--single-child", "--"]
    assert entries["runtime"] == [init]
    assert entries["scheduler"][0] == [*init, "evflow"]
    check_command(["evflow", *entries["scheduler"][1]])
    check_command(entries["task"][0])
    assert "USER 1000:1000" in bodies()["runtime"]
    assert "USER 1000:1000" in bodies()["s3"]
    variables = set(re.findall(r"\bEVFLOW_(\w+)=", DOCKERFILE))
    assert variables == {"HOME", "HTTP"} <= {name.upper() for name in SETTINGS}


def bodies() -> dict[str, str]:
    """What each stage does."""
    return {part.split()[2]: part for part in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]}


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_a_compose_file_names_only_what_there_is(name: str) -> None:
    read = compose(name)
    known = compose("compose.yaml")["services"]
    assert set(read["services"]) <= set(known)
    for service, said in read["services"].items():
        for variable in said.get("environment", {}):
            assert not variable.startswith("EVFLOW_") or variable.removeprefix("EVFLOW_").lower() in SETTINGS, f"{service}: {variable}"
        for volume in said.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in read["volumes"], f"{service}: {volume}"
        for other in said.get("depends_on", {}):
            assert "healthcheck" in known[other] or other in stages(), f"{service} waits for the health of {other}, which has no check"
        if "target" in said.get("build", {}):
            assert said["image"] == OURS[said["build"]["target"]]
            assert said["build"]["args"]["VERSION"] == VERSION
        words = said.get("command", [])
        if service in ("scheduler", "worker") and words:
            words = [word if word != "max_workers" else "1" for word in words]
            check_command(words if service == "worker" else ["evflow", *words])


def test_containers_are_restarted_hardened_and_published_on_the_loopback_alone() -> None:
    for name, said in compose("compose.yaml")["services"].items():
        assert all(str(port).startswith("127.0.0.1:") for port in said.get("ports", ())), name
        assert said["read_only"] is True
        assert said["cap_drop"] == ["ALL"]
        assert said["restart"] == ("no" if name == "client" else "unless-stopped")
        drain_s = said.get("environment", {}).get("EVFLOW_DRAIN_TIMEOUT")
        if drain_s is not None:
            assert int(said["stop_grace_period"].removesuffix("m")) * 60 > drain_s, f"{name} is killed while it drains"


def test_a_workers_check_asks_for_its_own_pool() -> None:
    worker = compose("compose.yaml")["services"]["worker"]
    asked = shlex.split(worker["healthcheck"]["test"][1].partition("|")[0])
    check_command(asked)
    assert asked[2] == worker["command"][worker["command"].index("--pool") + 1]


def test_the_page_tells_of_every_variable_that_the_compose_files_take() -> None:
    page = (REPOSITORY / "docs" / "docker.md").read_text()
    for name in COMPOSE_FILES:
        for variable in set(re.findall(r"(?<!\$)\$\{(\w+)", (DOCKER / name).read_text())):
            assert f"`{variable}`" in page or f"{variable.removesuffix('_PASSWORD')} " in page, (
                f"docs/docker.md does not tell of {variable}"
            )


def test_locks_of_images_hold_what_the_project_declares() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    declared = {
        "image": [*project["project"]["dependencies"], *extras["aws"], *extras["kubernetes"], *extras["pypi"], *groups["image"]],
        "build": [*groups["build"], *project["build-system"]["requires"]],
        "s3": groups["s3"],
    }
    for name, requirements in declared.items():
        pinned = set(re.findall(r"^([\w.-]+)==", Path(REPOSITORY / "requirements" / f"{name}.txt").read_text(), re.MULTILINE))
        names = {re.split(r"[\[<>=;! ]", one)[0].lower().replace(".", "-").replace("_", "-") for one in requirements}
        assert names <= pinned, f"`make lock` makes requirements/{name}.txt anew"
        assert f"requirements/{name}.txt" in DOCKERFILE
