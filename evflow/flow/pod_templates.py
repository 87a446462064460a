"""Reading a file with a pod template, in YAML or JSON: the operator's (EVFLOW_KUBERNETES_POD_TEMPLATE), or a step's (`@kubernetes(pod_template=…)`)."""

from typing import Any

from evflow.errors import UsageError
from evflow.imports import framework_view


class TemplateUnreadable(UsageError):
    """A file with a pod template cannot be read."""

    code = "pod-template-unreadable"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"The pod template {path} cannot be read: {why.rstrip('.')}.", "It is a file in YAML or JSON.")


def read_template(path: str, folder: str = "") -> Any:
    """What such a file holds. Blocking.

    Args:
        path: The file.
        folder: What a relative path is relative to; empty for the current folder.

    Raises:
        TemplateUnreadable: It is not there, or is neither YAML nor JSON.
    """
    import json
    from pathlib import Path

    from evflow.flow.parsers import ParserFailed, ParserNeedsPackage, yaml_parser

    try:
        text = (Path(folder) / Path(path).expanduser()).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateUnreadable(path, getattr(error, "strerror", None) or str(error)) from error
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        with framework_view():
            return yaml_parser(text)
    except (ParserFailed, ParserNeedsPackage) as error:
        raise TemplateUnreadable(path, f"{error.message} {error.hint}".strip()) from error
