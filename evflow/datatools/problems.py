"""What can go wrong with `evflow.S3`. The names are those that Metaflow's users know, without its own."""

from evflow.errors import EvflowError


class S3Exception(EvflowError):
    """Something about files in S3 did not work."""

    code = "s3"


class S3URLException(S3Exception):
    """What is given is no address in S3, or cannot be one here."""

    code = "s3-url"


class S3InvalidObject(S3Exception):
    """What is to be stored is neither bytes nor a text nor a file that is open."""

    code = "s3-invalid-object"


class S3NotFound(S3Exception):
    """There is no such object."""

    code = "s3-not-found"

    def __init__(self, url: str) -> None:
        super().__init__(f"There is no '{url}'.", "With return_missing=True an object comes back whose `exists` is False.")


class S3AccessDenied(S3Exception):
    """It is not allowed."""

    code = "s3-access-denied"


class S3InvalidRange(S3Exception):
    """An object ends before the part that is asked for begins, or there can be no such part."""

    code = "s3-invalid-range"

    def __init__(self, url: str, offset: int, length: int | None = None) -> None:
        if offset < 0 or (length is not None and length < 1):
            given = f"offset {offset}" if length is None else f"offset {offset}, length {length}"
            super().__init__(f"'{url}' has no part with {given}.", "A part begins at byte 0 or later, and has one byte or more.")
        else:
            super().__init__(f"'{url}' ends before byte {offset}.")
