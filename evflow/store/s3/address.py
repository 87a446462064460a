"""Addresses of stores in buckets, and the keys of what is in them.

    <prefix>/objects/ab/cdef…     an object, named by the SHA-256 of its bytes
    <prefix>/named/…              named files
    <prefix>/removing/abcdef…     an object that is being removed right now (see `evflow.store.s3.removal`)

The same layout as in a folder (`evflow.store.files`), so that a copy of one is the other.
"""

import re
from typing import Final, NamedTuple, Self

from evflow.store.protocol import UnknownStore

SCHEME: Final = "s3://"
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
"""Those of S3 and, longer and with capitals, what other servers and old buckets of us-east-1 have."""


class S3Address(NamedTuple):
    """A place in a bucket.

    Attributes:
        bucket: The bucket.
        prefix: What all keys begin with, without a slash at its ends; empty for the whole bucket.
    """

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """The place that `s3://bucket/prefix` names.

        Raises:
            UnknownStore: It names none.
        """
        bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
        parts = [part for part in prefix.split("/") if part]
        if not url.startswith(SCHEME) or not _BUCKET.fullmatch(bucket) or not set(parts).isdisjoint({".", ".."}):
            raise UnknownStore(url)
        return cls(bucket, "/".join(parts))

    @property
    def url(self) -> str:
        """`s3://` and the place."""
        return f"{SCHEME}{self.bucket}/{self.prefix}" if self.prefix else f"{SCHEME}{self.bucket}"

    def key(self, *parts: str) -> str:
        """The key of what lies below the place."""
        return "/".join((self.prefix, *parts)) if self.prefix else "/".join(parts)

    def object(self, digest: bytes) -> str:
        """The key of an object."""
        name = digest.hex()
        return self.key("objects", name[:2], name[2:])

    def at(self, key: str) -> str:
        """The address of a key, for people and for the tools of AWS."""
        return f"{SCHEME}{self.bucket}/{key}"
