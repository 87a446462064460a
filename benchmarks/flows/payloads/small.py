"""A thousand small artifacts of one step."""

NAMES = [f"a{number}" for number in range(1000)]


def make():
    return {name: {"name": name, "value": number} for number, name in enumerate(NAMES)}


def use(values):
    if [value["name"] for value in values] != NAMES:
        raise AssertionError("not the artifacts that were made")
