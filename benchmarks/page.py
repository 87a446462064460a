"""The page docs/benchmarks.md: a section for each suite, each written by the run that measured it."""

HEAD = """\
# Benchmarks

<!-- Written by `make bench`. Do not edit: measure again. -->

Lower is better, except for what is counted per second. A cell is the median and, with more than one round, [least to most]. The bodies do
nothing, on purpose: these are the costs of the engines, not of anybody's work. Absolute figures move by 30 % from day to day on a shared machine;
ratios taken in turn move less. `python -m benchmarks --suite NAME` measures one section anew, `--only NAME` a part of it.
"""


def with_section(text: str, name: str, section: str) -> str:
    """Put a section where the one of its name was, or at the page's end; what is left of the page stays."""
    sections = {found.partition(" ")[0]: found.partition("-->\n")[2].strip() for found in text.split(_BEGIN)[1:]}
    sections[name] = section.strip()
    return "\n".join([HEAD, *(f"{_BEGIN}{name} -->\n\n{text}\n" for name, text in sections.items())])


_BEGIN = "<!-- suite: "
