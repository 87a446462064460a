"""A server that stands in for S3 in trials: moto, and one bucket. It asks nobody for a password, and forgets everything when it ends.

usage: s3.py [--listen HOST:PORT] [--bucket NAME]     serve, until SIGTERM
       s3.py --check                                  exit with 0 where the one of this container answers and has its bucket
"""

import argparse
import http.client
import logging
import os
import signal
import sys
from pathlib import Path

ABOUT = Path("/tmp/evflow-s3")
"""Of the container: where a check reads what is served."""
WITHIN_S = 4.0


def main() -> None:
    """Serve or check."""
    parser = argparse.ArgumentParser(description="moto as S3, for trials")
    parser.add_argument("--listen", default="0.0.0.0:9000", metavar="HOST:PORT")
    parser.add_argument("--bucket", default="evflow", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if given.check:
        sys.exit(0 if answers() else 1)
    host, _, port = given.listen.rpartition(":")
    serve(host, int(port), given.bucket)


def serve(host: str, port: int, bucket: str) -> None:
    """Serve until a signal ends it: as process 1 it has no other way to end than one that it asks for."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = make_server(host, port, DomainDispatcherApplication(create_backend_app), threaded=True)
    make_bucket(bucket)
    ABOUT.write_text(f"{host}:{port}/{bucket}")
    print(f"S3 for trials at {host}:{port}, bucket {bucket}; nothing is kept when it ends", flush=True)
    server.serve_forever()


def make_bucket(name: str) -> None:
    """As a client would in the region that needs no location."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(name, "us-east-1")


def answers() -> bool:
    """Whether the bucket is there."""
    try:
        address, _, bucket = ABOUT.read_text().partition("/")
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=WITHIN_S)
        connection.request("HEAD", f"/{bucket}", headers={"Host": address})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


if __name__ == "__main__":
    main()
