"""All rules on one file, and the comments that silence them."""

import ast
from collections.abc import Iterator

from evflow.errors import did_you_mean
from evflow.lint.rules import CODES
from evflow.lint.source import Finding, Source, read


def findings(text: str, file: str) -> list[Finding] | None:
    """What will bite in a file, in the order of its lines; None where it defines no flow.

    Args:
        text: The file.
        file: Its name, for the message where it is no Python.

    Raises:
        SourceUnreadable: It is no Python.
    """
    source = read(text, file)
    if not source.flows:
        return None
    ends = _ends(source.tree)
    found = [one for rule in dict.fromkeys(CODES.values()) for one in rule(source)]
    kept = [one for one in found if not _is_ignored(source, one, ends)]
    return sorted(set(kept) | set(_unknown(source)), key=lambda one: (one.line, one.column, one.code))


def _is_ignored(source: Source, one: Finding, ends: dict[int, int]) -> bool:
    """Whether a comment silences it: on any line of what was found, as a formatter may move it."""
    for line in range(one.line, ends.get(one.line, one.line) + 1):
        codes = source.ignored.get(line)
        if codes is not None and (not codes or one.code in codes):
            return True
    return False


def _ends(tree: ast.Module) -> dict[int, int]:
    """Where the simple statement, or the expression, that begins on a line ends."""
    ends: dict[int, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.expr) or (isinstance(node, ast.stmt) and not hasattr(node, "body")):
            ends[node.lineno] = max(ends.get(node.lineno, 0), node.end_lineno or node.lineno)
    return ends


def _unknown(source: Source) -> Iterator[Finding]:
    """Comments that silence nothing, because there is no such rule."""
    for line, codes in source.ignored.items():
        for code in sorted(codes - set(CODES)):
            yield Finding(
                line, 1, "unknown-code", f"There is no rule '{code}'.{did_you_mean(code, CODES)}", f"The rules are {', '.join(CODES)}."
            )
