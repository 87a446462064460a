"""`@kubernetes` on a step: what is told before anything is submitted, and what stands in the log."""

from pathlib import Path

import pytest

from evflow.errors import UsageError
from evflow.flow.decorators.remote import Kubernetes
from evflow.flow.pod_templates import TemplateUnreadable, read_template
from evflow.flow.steps import Where

TEMPLATE = {"spec": {"hostNetwork": True}}


def test_what_a_server_would_refuse_is_a_sentence_that_names_the_decorator() -> None:
    found = list(Kubernetes({"labels": {"team": "a b"}, "port": 0, "use_tmpfs": "yes"}).mistakes())
    assert len(found) == 3
    assert all(mistake.startswith("@kubernetes ") for mistake in found)
    assert list(Kubernetes({"labels": {"team": "ml"}, "port": 80, "use_tmpfs": True, "gpu": "1"}).mistakes()) == []


def test_a_field_that_it_does_not_have_is_told_at_once() -> None:
    with pytest.raises(UsageError, match="has no field 'lables'"):
        Kubernetes({"lables": {}})


@pytest.mark.parametrize("text", ['{"spec": {"hostNetwork": true}}', "spec:\n  hostNetwork: true\n"], ids=["json", "yaml"])
def test_a_template_that_is_a_file_beside_the_flow_stands_in_the_log_as_what_is_in_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "pod.yaml").write_text(text)
    decorator = Kubernetes({"pod_template": "pod.yaml", "cpu": 2}, Where(str(tmp_path / "flow.py"), 3))
    assert list(decorator.mistakes()) == []
    assert decorator.policy() == {"executor": "kubernetes", "asked": {"cpu": 2, "pod_template": TEMPLATE}}


def test_a_template_may_be_a_dictionary() -> None:
    assert Kubernetes({"pod_template": TEMPLATE}).policy()["asked"] == {"pod_template": TEMPLATE}


def test_a_template_that_cannot_be_read_is_a_mistake_with_its_name(tmp_path: Path) -> None:
    where = Where(str(tmp_path / "flow.py"), 3)
    (missing,) = Kubernetes({"pod_template": "none.yaml"}, where).mistakes()
    assert missing == "The pod template none.yaml cannot be read: No such file or directory."
    (tmp_path / "bad.yaml").write_text("spec: [")
    (bad,) = Kubernetes({"pod_template": "bad.yaml"}, where).mistakes()
    assert "It is no YAML" in bad
    with pytest.raises(TemplateUnreadable):
        read_template(str(tmp_path / "bad.yaml"))
