"""Data of flows beside their artifacts: files in S3, under names of one's own (`S3`)."""

from evflow.datatools.objects import S3GetObject, S3Object, S3PutObject
from evflow.datatools.problems import S3AccessDenied, S3Exception, S3InvalidObject, S3InvalidRange, S3NotFound, S3URLException
from evflow.datatools.s3 import S3

__all__ = [
    "S3",
    "S3AccessDenied",
    "S3Exception",
    "S3GetObject",
    "S3InvalidObject",
    "S3InvalidRange",
    "S3NotFound",
    "S3Object",
    "S3PutObject",
    "S3URLException",
]
