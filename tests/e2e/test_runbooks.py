"""Each runbook of `ops/runbooks` is carried out, on an installation with what it is about, and alerts lead to them."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.e2e.runbook_reader import Operator
from tests.e2e.test_docs import RUNBOOKS, blocks

yaml: Any = pytest.importorskip("yaml")

RULES: list[dict[str, Any]] = yaml.safe_load((REPOSITORY / "ops" / "alerts" / "evflow.yaml").read_text())["groups"][0]["rules"]
SECTIONS = ("How one notices", "What is safe")


@pytest.fixture
def operator() -> Iterator[Operator]:
    operator = Operator()
    yield operator
    operator.abandon()


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_does_what_it_says(page: Path, operator: Operator) -> None:
    if "redis-cli" in page.read_text(encoding="utf-8") and shutil.which("redis-cli") is None:
        pytest.skip("no redis-cli on PATH (Debian: apt install redis-tools)")
    for block in blocks(page):
        operator.follow(block)
    operator.leave()


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_tells_how_one_notices_what_is_safe_and_when_it_is_over(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert tuple(headings[:2]) == SECTIONS
    assert headings[-1] == "When it is over"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_a_runbook_that_begins_with_it(rule: dict[str, Any]) -> None:
    noticing = (REPOSITORY / rule["annotations"]["runbook"]).read_text(encoding="utf-8").split("\n## ")[1]
    assert f"`{rule['alert']}`" in noticing


def test_runbooks_name_alerts_that_there_are() -> None:
    alerts = {rule["alert"] for rule in RULES}
    for page in RUNBOOKS:
        assert set(re.findall(r"`(Evflow\w+)`", page.read_text(encoding="utf-8"))) <= alerts, page.name
