"""What docs/client.md shows is what happens."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

from evflow.client import namespaces
from evflow.client.connection import disconnect
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "client.md"


def test_the_page_on_the_client_shows_what_happens() -> None:
    text = PAGE.read_text()
    flow = re.search(r"```python\n(# flow\.py\n.*?)```", text, re.DOTALL)
    assert flow is not None
    Path("flow.py").write_text(flow[1])
    ran = subprocess.run([sys.executable, "flow.py", "run", "--tag", "nightly"], capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    try:
        examples = doctest.DocTestParser().get_doctest(text.replace("```", ""), {}, PAGE.name, str(PAGE), 0)
        assert len(examples.examples) > 30
        said: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples, out=said.append)
        assert result.failed == 0, "".join(said)
    finally:
        namespaces.forget()
        disconnect()
