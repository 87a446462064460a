"""What an answer of S3 means: whether asking again helps, and the sentence for people that says what to do. Pure."""

from typing import Final, NamedTuple

from evflow.aws import CERTIFICATES_UNREADABLE, NO_CERTIFICATES, NO_CONFIG, NO_PROFILE
from evflow.store.protocol import StoreUnusable

_BUSY: Final = frozenset({
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "ServiceUnavailable", "InternalError",
    "RequestTimeout", "RequestTimeoutException", "OperationAborted", "ConditionalRequestConflict", "BandwidthLimitExceeded", "XMinioServerNotInitialized",
})  # fmt: skip

_ASK: Final = "Credentials come from the platform: a role of the machine or the pod, AWS_PROFILE, or AWS_ACCESS_KEY_ID with its secret."

_HINTS: Final[dict[str, str]] = {
    "NoSuchBucket": "Make it (`aws s3 mb s3://{bucket}`), or name another one with EVFLOW_STORE; a server that is not AWS's is named by EVFLOW_S3_ENDPOINT.",
    "AccessDenied": "Whoever runs this needs s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on s3://{place}/*, s3:ListBucket on the bucket, and the use of its KMS key where it has one. Without s3:ListBucket, S3 says this of what is not there too.",
    "AllAccessDisabled": "The bucket was disabled by its owner or by AWS.",
    "InvalidAccessKeyId": f"AWS does not know this access key. {_ASK}",
    "SignatureDoesNotMatch": f"The secret does not belong to the access key, or a proxy changed the request. {_ASK}",
    "ExpiredToken": f"The credentials have expired: sign in again (`aws sso login`), or take fresh ones. {_ASK}",
    "InvalidToken": f"The session token is not valid. {_ASK}",
    "RequestTimeTooSkewed": "This machine's clock is wrong by more than 15 minutes: set it (`timedatectl set-ntp true`), then try again.",
    "PermanentRedirect": "The bucket lies in another region{region}: set AWS_REGION (or EVFLOW_AWS_REGION) to it.",
    "AuthorizationHeaderMalformed": "The bucket lies in another region{region}: set AWS_REGION (or EVFLOW_AWS_REGION) to it.",
    "IllegalLocationConstraintException": "The bucket lies in another region{region}: set AWS_REGION (or EVFLOW_AWS_REGION) to it.",
    "KMS.DisabledException": "The KMS key of the bucket is disabled: enable it, or name another one with EVFLOW_S3_KMS_KEY.",
    "KMS.NotFoundException": "There is no such KMS key in the bucket's region: compare EVFLOW_S3_KMS_KEY.",
    "InvalidObjectState": "The object was moved to an archive class (Glacier): restore it, and exclude the store's prefix from that lifecycle rule.",
    "EntityTooLarge": "S3 takes objects of up to 5 TB.",
    "QuotaExceeded": "The server's quota is used up: raise it, or run `evflow gc`.",
    "XMinioStorageFull": "The server's disk is full: free space there, or run `evflow gc`.",
    "NoCredentialsError": f"No credentials were found. {_ASK}",
    "PartialCredentialsError": f"The credentials are not complete. {_ASK}",
    "ProfileNotFound": NO_PROFILE,
    "ConfigParseError": NO_CONFIG,
    "EndpointConnectionError": "Compare EVFLOW_S3_ENDPOINT (or AWS_ENDPOINT_URL_S3) and the region with what there is, and see whether this machine reaches it.",
    "SSLError": "The server's certificate is not trusted here: AWS_CA_BUNDLE names the certificates to trust. A server that speaks HTTP has an endpoint with http://.",
    CERTIFICATES_UNREADABLE: NO_CERTIFICATES,
    "Truncated": "A proxy or the network cuts transfers short. What was read was not used; try again.",
}  # fmt: skip

_SAME: Final = {
    "Forbidden": "AccessDenied", "403": "AccessDenied", "AccessDeniedException": "AccessDenied", "KMS.AccessDeniedException": "AccessDenied",
    "301": "PermanentRedirect", "ExpiredTokenException": "ExpiredToken", "TokenRefreshRequired": "ExpiredToken", "RequestExpired": "ExpiredToken",
    "UnauthorizedSSOTokenError": "ExpiredToken", "SSOTokenLoadError": "ExpiredToken", "ConnectTimeoutError": "EndpointConnectionError",
    "NoAuthTokenError": "NoCredentialsError", "CredentialRetrievalError": "NoCredentialsError",
}  # fmt: skip


ACTIONS: Final = {
    "put_object": "s3:PutObject", "create_multipart_upload": "s3:PutObject", "upload_part": "s3:PutObject", "upload_part_copy": "s3:PutObject",
    "complete_multipart_upload": "s3:PutObject", "copy_object": "s3:PutObject", "get_object": "s3:GetObject", "head_object": "s3:GetObject",
    "delete_object": "s3:DeleteObject", "abort_multipart_upload": "s3:AbortMultipartUpload", "list_objects_v2": "s3:ListBucket",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
}  # fmt: skip
"""The right that a method of the client takes."""


class Answer(NamedTuple):
    """An error of S3, or of the way to it.

    Attributes:
        kind: S3's code, or the client's name of the condition; the status where S3 gave no code (`404`).
        text: What it says about it.
        status: The HTTP status; 0 where there was no answer.
        region: The region that S3 says the bucket has, or an empty string.
    """

    kind: str
    text: str
    status: int = 0
    region: str = ""

    @property
    def is_missing(self) -> bool:
        """There is no such key."""
        return self.kind in {"NoSuchKey", "404", "NotFound", "NoSuchUpload"}

    @property
    def is_taken(self) -> bool:
        """A condition does not hold: `If-None-Match` or `If-Match`."""
        return self.status == 412 or self.kind == "PreconditionFailed"

    @property
    def is_past_the_end(self) -> bool:
        """A range begins behind the end."""
        return self.status == 416 or self.kind == "InvalidRange"

    @property
    def is_transient(self) -> bool:
        """Asking again may help, without anybody changing anything."""
        if self.status:
            return self.status in {429, 500, 502, 503, 504} or self.kind in _BUSY
        return self.kind in {"EndpointConnectionError", "Truncated", "Lost"}

    @property
    def is_unreachable(self) -> bool:
        """Nobody answered at all."""
        return self.status == 0 and self.kind == "EndpointConnectionError"


class S3Failed(Exception):
    """A request was answered by an error. It never leaves this package: the store says what it means for what was asked.

    Attributes:
        answer: The error.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.kind}: {answer.text}")
        self.answer = answer


class S3Unusable(StoreUnusable):
    """S3 did not do what it was asked for.

    Args:
        where: The bucket and key, or the store.
        answer: The error.
        tries: How often it was asked.
        method: The client's method; of what was not allowed its right is told.
        root: Below what the rights are needed; empty for the store that `where` is of.

    Attributes:
        kind: S3's code, or the client's name of the condition.
        reason: What S3 says.
        where: The bucket and key, or the store.
    """

    code = "s3-unusable"

    def __init__(self, where: str, answer: Answer, tries: int = 1, *, method: str = "", root: str = "") -> None:
        bucket = where.removeprefix("s3://").partition("/")[0]
        kind = _SAME.get(answer.kind, answer.kind)
        place = (root or where.split("/objects/")[0].split("/named/")[0]).removeprefix("s3://").rstrip("/")
        region = f", {answer.region}" if answer.region else ""
        hint = _HINTS.get(kind, "").format(bucket=bucket, place=place, region=region)
        if not hint and answer.is_transient:
            hint = "The server is overloaded or away. Try again later; what was stored before is untouched."
        tried = f" ({tries} tries)" if tries > 1 else ""
        right = f" to {ACTIONS[method]}" if kind == "AccessDenied" and method in ACTIONS else ""
        self.reason = f"{kind if right else answer.kind}{right}: {answer.text.rstrip('.')}{tried}"
        super().__init__(where, self.reason, hint or "Ask whoever runs the bucket.")
        self.kind = kind
        self.where = where
        self.is_transient = answer.is_transient
