"""The object stores that share a contract suite, each with a way around it: to damage what is stored, to let it grow old."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from evflow.store import Store, open_store
from evflow.store.s3 import loop
from tests.aws import CREDENTIALS, Aws


class FileWorld:
    """A store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = open_store(folder.as_uri())

    def raw(self, digest: bytes) -> bytes:
        """An object's bytes, unchecked."""
        return Path(self.store.where(digest)).read_bytes()

    def overwrite(self, digest: bytes, content: bytes) -> None:
        """Let an object have other bytes."""
        path = Path(self.store.where(digest))
        path.chmod(0o600)
        path.write_bytes(content)

    def age(self, digest: bytes, by_us: int) -> None:
        """Let an object be written so long before now."""
        when = self.store.now_us() - by_us
        os.utime(self.store.where(digest), ns=(when * 1_000, when * 1_000))


class S3World:
    """A store in a bucket of its own."""

    def __init__(self, aws: Aws, prefix: str = "some/where") -> None:
        self.aws = aws
        self.bucket = f"b{uuid4().hex[:20]}"
        aws.bucket(self.bucket)
        self.store: Store = open_store(f"s3://{self.bucket}/{prefix}")

    def key(self, digest: bytes) -> str:
        """An object's key."""
        return self.store.where(digest).removeprefix(f"s3://{self.bucket}/")

    def raw(self, digest: bytes) -> bytes:
        """An object's bytes, unchecked."""
        found: bytes = self.aws.client("s3").get_object(Bucket=self.bucket, Key=self.key(digest))["Body"].read()
        return found

    def overwrite(self, digest: bytes, content: bytes) -> None:
        """Let an object have other bytes."""
        self.aws.put(self.bucket, self.key(digest), content)

    def age(self, digest: bytes, by_us: int) -> None:
        """Let an object be written so long before it was."""
        self.aws.age(self.bucket, self.key(digest), by_us / 1e6)


World = FileWorld | S3World


@contextmanager
def asking(aws: Aws, monkeypatch: pytest.MonkeyPatch, **settings: str) -> Generator[None]:
    """Let stores in S3 be those of a server, for the block."""
    for name, value in {**CREDENTIALS, "EVFLOW_S3_ENDPOINT": aws.url, **settings}.items():
        monkeypatch.setenv(name, value)
    try:
        yield
    finally:
        loop.close()
        aws.fail()


@contextmanager
def world_of(kind: str, folder: Path, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Generator[World]:
    """A world: `file`, `s3`, or `s3-cached`, whose machine keeps what it read."""
    if kind == "file":
        yield FileWorld(folder / "store")
        return
    with asking(aws, monkeypatch, EVFLOW_S3_CACHE_MB="100" if kind == "s3-cached" else "0"):
        yield S3World(aws)
