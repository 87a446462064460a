"""docker/redis.sh, which starts the log's server of the composed system."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from evflow.log.errors import LogAccessDenied
from evflow.log.wire import Wire
from tests.conftest import REPOSITORY
from tests.ports import free_port
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(DebianRedis.why_missing() is not None, reason=str(DebianRedis.why_missing()))
PASSWORDS = {f"{user}_PASSWORD": f"of-{user.lower()}" for user in ("ADMIN", "SCHEDULER", "WORKER", "READER")}


def start(root: Path, port: int, **variables: str) -> "subprocess.Popen[bytes]":
    ops = REPOSITORY / "ops" / "redis"
    words = ["sh", str(REPOSITORY / "docker" / "redis.sh"), str(ops / "redis.conf"), str(ops / "users.acl"), str(root), "--port", str(port)]
    return subprocess.Popen(
        words, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def enters(port: int, user: str, password: str) -> bool:
    try:
        Wire.connect(f"redis://{user}:{password}@127.0.0.1:{port}/0").close()
    except LogAccessDenied:
        return False
    return True


def test_each_user_enters_with_the_password_that_was_given_and_nobody_with_the_one_of_the_file(root: Path) -> None:
    port = free_port()
    process = start(root, port, **PASSWORDS)

    def answers() -> bool:
        try:
            return enters(port, "scheduler", "of-scheduler")
        except Exception:  # noqa: BLE001 - whatever it is: not yet
            return False

    try:
        wait_until(answers, "the server answers")
        for user in ("scheduler", "worker", "reader", "admin"):
            assert enters(port, user, f"of-{user}")
            assert not enters(port, user, f"CHANGE-ME-{user}")
        users = Path(os.environ["TMPDIR"]) / "users.acl"
        assert users.stat().st_mode & 0o777 == 0o600
        assert "of-scheduler" not in users.read_text()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("password", ["", "a b", "a/b", "a'b"])
def test_a_password_that_is_missing_or_that_a_url_would_quote_is_refused(root: Path, password: str) -> None:
    process = start(root, free_port(), **PASSWORDS | {"WORKER_PASSWORD": password})
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"WORKER_PASSWORD" in said
