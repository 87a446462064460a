"""What `evflow.S3` takes and answers."""

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple


class S3GetObject(NamedTuple):
    """A part of an object.

    Attributes:
        key: Its key or URL.
        offset: Where the part begins, in bytes.
        length: How long it is; None: to the end.
    """

    key: str
    offset: int = 0
    length: int | None = None


class S3PutObject(NamedTuple):
    """What is to be stored, with what belongs to it.

    Attributes:
        key: Its key or URL.
        value: Bytes, a text, or a file that is open; for `put_many`.
        path: A file of this machine; for `put_files`.
        content_type: Its media type.
        encryption: How the server encrypts it: `AES256`, `aws:kms`, ….
        metadata: Values by name, which `info` has again.
    """

    key: str
    value: Any = None
    path: str | None = None
    content_type: str | None = None
    encryption: str | None = None
    metadata: dict[str, Any] | None = None


class RangeInfo(NamedTuple):
    """Which part of an object was read.

    Attributes:
        total_size: The whole object's size in bytes.
        request_offset: Where the part begins.
        request_length: How long it was to be; None: to the end.
    """

    total_size: int
    request_offset: int
    request_length: int | None


class S3Object:
    """An object in S3, or what would be one: as `evflow.S3` found it, with its content where that was asked for."""

    def __init__(
        self, prefix: str | None, url: str, path: str | None = None, size: int | None = None, *,
        answer: dict[str, Any] | None = None, range_info: RangeInfo | None = None,
    ) -> None:  # fmt: skip
        self._prefix = prefix.rstrip("/") if prefix and prefix.rstrip("/") != url else None
        self._url = url
        self._path = path
        self._size = size
        self._answer = answer
        self._range = range_info

    def __repr__(self) -> str:
        how = f"{self._size} bytes, {'local' if self._path else 'in S3'}" if self.exists else "not there"
        return f"<S3Object {self._url} ({how})>"

    __str__ = __repr__

    @property
    def exists(self) -> bool:
        """Whether there is an object; a prefix that `list_paths` found is none."""
        return self._size is not None

    @property
    def downloaded(self) -> bool:
        """Whether its content is on this machine."""
        return self._path is not None

    @property
    def url(self) -> str:
        """Its URL."""
        return self._url

    @property
    def prefix(self) -> str:
        """What it was looked for below; its URL where it was asked for by that."""
        return self._prefix or self._url

    @property
    def key(self) -> str:
        """Its name below `prefix`; its URL where it was asked for by that."""
        return self._url[len(self._prefix) + 1 :] if self._prefix else self._url

    @property
    def path(self) -> str | None:
        """The file of its content, which goes when the `S3` is closed; None where it was not downloaded."""
        return self._path

    @property
    def blob(self) -> bytes | None:
        """Its content; None where it was not downloaded."""
        return Path(self._path).read_bytes() if self._path is not None else None

    @property
    def text(self) -> str | None:
        """Its content as UTF-8; None where it was not downloaded."""
        blob = self.blob
        return blob.decode("utf-8", "replace") if blob is not None else None

    @property
    def size(self) -> int | None:
        """The size in bytes of what was downloaded, or of the object; None where there is none."""
        return self._size

    @property
    def has_info(self) -> bool:
        """Whether `content_type`, `metadata` and the others are known."""
        return self._answer is not None

    @property
    def metadata(self) -> dict[str, str] | None:
        """The values that were stored with it."""
        return None if self._answer is None else dict(self._answer.get("Metadata") or {})

    @property
    def content_type(self) -> str | None:
        """Its media type."""
        found: str | None = self._said("ContentType")
        return found

    @property
    def encryption(self) -> str | None:
        """How the server encrypts it."""
        found: str | None = self._said("ServerSideEncryption")
        return found

    @property
    def range_info(self) -> RangeInfo | None:
        """Which part of it was read, where a part was asked for."""
        return self._range

    @property
    def last_modified(self) -> int | None:
        """When it was written, in seconds since 1970."""
        found: datetime | None = self._said("LastModified")
        return None if found is None else int(found.timestamp())

    def _said(self, name: str) -> Any:
        return None if self._answer is None else self._answer.get(name)
