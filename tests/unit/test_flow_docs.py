"""Every example of docs/flows.md runs and prints what the page says."""

import linecache
import re
from typing import Any

import pytest

import evflow
from evflow import FlowSpec
from evflow.flow.checks import check
from tests.conftest import REPOSITORY
from tests.unit.flow_world import run_flow

PAGE = REPOSITORY / "docs" / "flows.md"
EXAMPLES = re.findall(r"^## (.*?)$|^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def examples() -> list[Any]:
    heading, found = "A flow", []
    for title, code, printed in EXAMPLES:
        heading = title or heading
        if code:
            found.append(pytest.param(code, printed, id=heading.split()[0].lower().strip("?")))
    return found


def test_the_page_has_examples() -> None:
    assert len(examples()) >= 9


@pytest.mark.parametrize(("code", "printed"), examples())
def test_an_example_of_the_page_prints_what_it_says(
    code: str, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"<docs/flows.md {hash(code)}>"
    monkeypatch.setitem(linecache.cache, name, (len(code), None, code.splitlines(keepends=True), name))
    space: dict[str, Any] = {"__name__": "page", "FlowSpec": FlowSpec, "step": evflow.step}
    exec(compile(code, name, "exec"), space)
    flows = [value for value in space.values() if isinstance(value, type) and issubclass(value, FlowSpec) and value.__module__ == "page"]
    assert flows
    assert printed
    for flow in flows:
        problems = check(flow)
        for problem in problems:
            print(problem.message, problem.hint)
        if not problems:
            run_flow(flow)
    assert capsys.readouterr().out == printed


def test_every_decorator_of_the_page_has_the_fields_of_the_code() -> None:
    from evflow.flow.decorators import REGISTRY, decorator_class

    rows = dict(re.findall(r"^\| `@(\w+)` \| (?:`(.*?)`|none) \|", PAGE.read_text(), re.MULTILINE))
    assert rows.keys() == REGISTRY.keys()
    for name, fields in rows.items():
        kind = decorator_class(name)
        assert kind is not None
        assert eval(f"dict({fields})") == dict(kind.defaults)
