"""What looks like a setting and is none, in files and variables: for `evflow config` and `evflow doctor`."""

from typing import NamedTuple

from evflow import config
from evflow.config_variables import unknown_variables
from evflow.errors import did_you_mean


class UnknownName(NamedTuple):
    """A key of a file, or a variable, that no setting has.

    Attributes:
        place: `file:line`, or `the environment`.
        name: The key or the variable.
        nearest: A hint at what was probably meant, with a space before it, or nothing.
    """

    place: str
    name: str
    nearest: str


def unknown_settings() -> list[UnknownName]:
    """All of them, those of files first.

    Raises:
        ConfigUnreadable: A file cannot be read.
    """
    keys = [UnknownName(place, key, did_you_mean(key, config.SETTINGS)) for place, key in config.unknown_keys()]
    return keys + [UnknownName("the environment", name, nearest) for name, nearest in unknown_variables()]
