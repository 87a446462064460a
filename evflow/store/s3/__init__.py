"""The object store in a bucket of S3, or of a server that speaks as S3 does.

* `address`: what `s3://bucket/prefix` means; `problems`: what an error of S3 means; both pure.
* `loop`: the thread with the event loop that all of a process's requests share; `requests`: one request, repeated while that helps.
* `transfers`: large contents, in parts and in parallel; `cache`: what this machine has read or written already.
* `store`: the `Store` that is made of them.

Nothing here imports the client of AWS (aioboto3) before the first request.
"""

from evflow.store.s3.address import SCHEME
from evflow.store.s3.store import S3Store

__all__ = ["SCHEME", "S3Store"]
