"""What is configured of S3, as a value; read when a store is opened, so that its threads need no configuration."""

from importlib import import_module
from typing import Any, NamedTuple, Self


class S3Settings(NamedTuple):
    """How S3 is reached and used.

    Attributes:
        region: AWS's region; None: what the platform says.
        endpoint: URL of another server than AWS's; None: what the platform says (AWS_ENDPOINT_URL_S3).
        sse: How the server encrypts what is written: `AES256`, `aws:kms`, `aws:kms:dsse`; None: as the bucket has it.
        kms_key: The key for it; None: the account's own.
        cache: Folder of what was read or written on this machine.
        cache_bytes: How much it may hold; 0: nothing is kept.
    """

    region: str | None
    endpoint: str | None
    sse: str | None
    kms_key: str | None
    cache: str
    cache_bytes: int

    @classmethod
    def configured(cls) -> Self:
        """As the settings have it."""
        config: Any = import_module("evflow.config")  # by name: settings know of the log, which stands beside the store
        return cls(
            config.get("aws_region"),
            config.get("s3_endpoint") or config.get("aws_endpoint"),
            config.get("s3_sse"),
            config.get("s3_kms_key"),
            config.get("s3_cache") or f"{config.get('home')}/cache/s3",
            config.get("s3_cache_mb") * 1_000_000,
        )

    @property
    def written_with(self) -> dict[str, Any]:
        """What a request says that makes an object."""
        said: dict[str, Any] = {}
        if self.sse is not None or self.kms_key is not None:
            said["ServerSideEncryption"] = self.sse or "aws:kms"
        if self.kms_key is not None:
            said["SSEKMSKeyId"] = self.kms_key
        return said
