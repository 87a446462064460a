"""What a step asks for, and what that was resolved to."""

import json
import platform
import sys
import sysconfig
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal, Self

from evflow.core.values import value
from evflow.environments.errors import PythonTooOld

Kind = Literal["pypi", "conda"]

LEAST_PYTHON = (3, 11)
"""What evflow itself needs: its worker runs in the environment."""
_FORMAT = 1
_NAME_CHARS = 32


@value
class Spec:
    """What `@pypi` or `@conda` asks for.

    Attributes:
        kind: `pypi` or `conda`.
        packages: Name to version: exact (`1.2.3`), a range (`>=1,<2`), or empty for any.
        python: The version, whole or in part; empty for that of the run.
    """

    kind: Kind
    packages: Mapping[str, str]
    python: str = ""

    def settled(self) -> Self:
        """With a version of Python.

        Raises:
            PythonTooOld: evflow does not run on it.
        """
        python = self.python or ".".join(map(str, sys.version_info[:2]))
        settled = type(self)(self.kind, dict(sorted(self.packages.items())), python)
        numbers = tuple(int(part) for part in python.lstrip("=<>!~ ").split(".")[:2] if part.isdigit())
        if len(numbers) == len(LEAST_PYTHON) and numbers < LEAST_PYTHON:
            raise PythonTooOld(str(settled), python)
        return settled

    def key(self, *more: str) -> str:
        """A name of what is asked for on this platform, under these circumstances."""
        plain = [_FORMAT, self.kind, sorted(self.packages.items()), self.python, platform_tag(), *more]
        return sha256(json.dumps(plain).encode()).hexdigest()[:_NAME_CHARS]

    def __str__(self) -> str:
        """As the user wrote it: `@pypi(packages={'pandas': '2.2.3'}, python='3.12')`."""
        python = f", python={self.python!r}" if self.python else ""
        return f"@{self.kind}(packages={dict(self.packages)!r}{python})"


@value
class Lock:
    """A resolved environment, whole: from it the same environment is built at any time.

    Attributes:
        kind: As of the spec.
        python: The version of Python.
        packages: `name==version`, or `name version build` of conda, sorted; for people. Where versions differ by platform or Python
            it has all of them.
        text: What the tool builds from: requirements with hashes, or a lock file of rattler's.
        platform: What it is for; empty where it is for any.
    """

    kind: Kind
    python: str
    packages: tuple[str, ...]
    text: str
    platform: str = ""

    def to_bytes(self) -> bytes:
        """As the store holds it: JSON."""
        plain = {"format": _FORMAT, "kind": self.kind, "python": self.python, "platform": self.platform}
        return json.dumps({**plain, "packages": list(self.packages), "text": self.text}, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`.

        Raises:
            ValueError: It is no lock.
        """
        plain: Any = json.loads(data)
        try:
            return cls(plain["kind"], plain["python"], tuple(plain["packages"]), plain["text"], plain["platform"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"no lock of an environment: {error}") from error

    @property
    def count(self) -> int:
        """How many packages it has, each counted once."""
        return len({one.replace("==", " ").split()[0] for one in self.packages})

    @property
    def name(self) -> str:
        """The name of its folder on a machine: of the lock, and of what else decides what is built from it."""
        return sha256(f"{platform_tag()} {sys.implementation.name} ".encode() + self.to_bytes()).hexdigest()[:_NAME_CHARS]


def platform_tag() -> str:
    """What binaries of this machine are for: `linux-x86_64-glibc2.36`."""
    libc = "".join(platform.libc_ver()) if sys.platform == "linux" else ""
    return "-".join(part for part in (sysconfig.get_platform(), libc) if part)
