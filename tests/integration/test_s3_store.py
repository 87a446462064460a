"""The store in S3 when something goes wrong: a busy server, lost connections, cut and changed transfers, no rights, forks, a small cache."""

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evflow.aws import AwsMissing, client
from evflow.store import NameTaken, ObjectDamaged, ObjectMissing, StoreUnusable, open_store, patience
from evflow.store.s3 import S3Store, loop, removal, requests, transfers
from evflow.store.s3.problems import S3Unusable
from tests.aws import Aws
from tests.contract.store_worlds import S3World, asking
from tests.ports import free_port

LARGE = bytes(range(256)) * (20 << 12)
"""More than two parts."""
HOUR_US = 3_600_000_000


@pytest.fixture(params=["0"])
def world(request: pytest.FixtureRequest, s3_server: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3World]:
    """Answer a store in a bucket of its own; nothing of it is kept on this machine unless the test says so."""
    monkeypatch.setattr(requests, "PAUSE_SCALE", 0.0)
    with asking(s3_server, monkeypatch, EVFLOW_S3_CACHE_MB=request.param):
        yield S3World(s3_server)


@pytest.fixture
def store(world: S3World) -> S3Store:
    assert isinstance(world.store, S3Store)
    return world.store


def cached(megabytes: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("world", [str(megabytes)], indirect=True)


def digest_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


# --- retries -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [{"status": 503, "code": "SlowDown"}, {"status": 500, "code": "InternalError"}, {"status": 429}, {"lose": 1}]
)
def test_a_busy_server_and_a_lost_answer_are_outlived(world: S3World, store: S3Store, fault: dict[str, object]) -> None:
    world.aws.fail({**fault, "times": 4})
    digest = store.put([b"content"])
    large = store.put([LARGE])
    world.aws.fail({**fault, "times": 4})
    assert bytes(store.get(digest)) == b"content"
    assert bytes(store.get(large)) == LARGE
    world.aws.fail({**fault, "times": 2})
    assert store.write_named("a", [b"1"], create_only=True) == 1


def test_a_created_file_whose_answer_was_lost_is_ones_own(world: S3World, store: S3Store) -> None:
    world.aws.fail({"method": "PUT", "lose": 1})
    assert store.write_named("a", [b"mine"], create_only=True) == 4
    assert store.read_named("a") == b"mine"


@pytest.mark.parametrize(
    "repeat", [{"status": 404, "code": "NoSuchUpload"}, {"status": 412, "code": "PreconditionFailed"}], ids=["gone", "taken"]
)
@pytest.mark.parametrize("known", ["_etag", "_checksum"])
def test_an_upload_whose_end_was_not_answered_is_ones_own(
    world: S3World, store: S3Store, repeat: dict[str, object], known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So servers answer the repeat that are not AWS's. What is there is compared: a file of another writer is not taken for one's own.

    An encrypted object's ETag says nothing, and other servers keep no checksums.
    """

    def of_something_else(parts: object) -> str:
        return "of something else"

    for name in {"_etag", "_checksum"} - {known}:
        monkeypatch.setattr(transfers, name, of_something_else)
    end = {"method": "POST", "path": "uploadId"}
    world.aws.fail({**end, "lose": 1}, {**end, **repeat})
    assert store.write_named("a", [LARGE], create_only=True) == len(LARGE)
    assert store.read_named("a") == LARGE
    world.aws.fail({**end, **repeat})
    with pytest.raises((NameTaken, S3Unusable)):
        store.write_named("a", [LARGE[::-1]])
    assert store.read_named("a") == LARGE


def test_a_server_that_stays_busy_is_told_with_how_often_it_was_tried(
    world: S3World, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count()
    monkeypatch.setattr(requests, "monotonic_s", lambda: 0.1 * next(ticks))  # a first try may take longer than all of them are to
    monkeypatch.setattr(requests, "RETRY_FOR_S", 0.5)
    monkeypatch.setattr(requests, "PAUSE_SCALE", 0.05)
    world.aws.fail({"status": 503, "code": "SlowDown", "times": 1000})
    with pytest.raises(S3Unusable, match=r"SlowDown: .*tries\)") as raised:
        store.put([b"content"])
    assert "Try again later" in raised.value.hint


def test_a_server_that_throttles_for_a_minute_is_outlived_and_asked_ever_less(
    world: S3World, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The minute is played: each pause moves the clock on by what it would take."""
    now_s, pause = 0.0, asyncio.sleep

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        if now_s >= 60:
            await asyncio.to_thread(world.aws.fail)
        await pause(0)

    monkeypatch.setattr(requests, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    monkeypatch.setattr(requests, "monotonic_s", lambda: now_s)
    monkeypatch.setattr(requests, "PAUSE_SCALE", 0.2)
    world.aws.fail({"status": 503, "code": "SlowDown", "times": 10**6})
    world.aws.asked()
    digest = store.put([b"content"])
    assert 60 <= now_s < requests.RETRY_FOR_S
    assert len(world.aws.asked()) < 30
    assert bytes(store.get(digest)) == b"content"


def test_nobody_answers_is_told_with_the_setting_that_names_the_server(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "UNREACHABLE_FOR_S", 0.0)
    monkeypatch.setenv("EVFLOW_S3_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnusable) as raised:
        open_store(store.url).put([b"content"])
    assert "EVFLOW_S3_ENDPOINT" in raised.value.hint


@pytest.mark.parametrize("holds", [False, True], ids=["a command", "holds results"])
def test_who_holds_results_tries_a_server_that_nobody_reaches_as_long_as_one_that_is_busy(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, *, holds: bool
) -> None:
    monkeypatch.setattr(patience, "_holds_results", holds)
    monkeypatch.setattr(requests, "UNREACHABLE_FOR_S", 0.0)
    monkeypatch.setattr(requests, "RETRY_FOR_S", 1.0)
    monkeypatch.setenv("EVFLOW_S3_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnusable) as raised:
        open_store(store.url).put([b"content"])
    assert ("tries" in raised.value.message) == holds, raised.value.message


@pytest.mark.parametrize("content", [None, "no certificate"], ids=["missing", "other"])
def test_certificates_that_cannot_be_read_are_told_at_once(
    content: str | None, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "trusted.pem").write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "trusted.pem"))
    monkeypatch.setenv("EVFLOW_S3_ENDPOINT", f"https://127.0.0.1:{free_port()}")
    monkeypatch.setattr(requests, "RETRY_FOR_S", 0.0)
    with pytest.raises(S3Unusable) as raised:
        open_store(store.url).put([b"content"])
    assert not raised.value.is_transient
    assert "AWS_CA_BUNDLE" in raised.value.hint


# --- transfers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"content" * 100, LARGE], ids=["small", "large"])
def test_a_cut_transfer_is_begun_again(world: S3World, store: S3Store, content: bytes) -> None:
    digest = store.put([content])
    world.aws.fail({"method": "GET", "cut": 300, "times": 2})
    assert bytes(store.get(digest)) == content


def test_a_large_object_that_is_written_again_as_it_was_can_be_read_meanwhile(
    world: S3World, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer who finds it there has S3 copy it onto itself, which gives it another ETag."""
    digest, key = store.put([LARGE]), world.key(digest_of(LARGE))
    s3, stream = world.aws.client("s3"), requests.Bucket.stream
    before = s3.head_object(Bucket=world.bucket, Key=key)["ETag"]

    async def late(*arguments: Any) -> None:
        await asyncio.to_thread(
            s3.copy_object, Bucket=world.bucket, Key=key, CopySource=f"{world.bucket}/{key}", MetadataDirective="REPLACE"
        )
        await stream(*arguments)

    monkeypatch.setattr(requests.Bucket, "stream", late)
    assert bytes(store.get(digest)) == LARGE
    assert s3.head_object(Bucket=world.bucket, Key=key)["ETag"] != before


def test_a_transfer_that_is_always_cut_is_told(world: S3World, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.put([b"content" * 100])
    monkeypatch.setattr(requests, "RETRY_FOR_S", 0.0)
    world.aws.fail({"method": "GET", "cut": 10, "times": 1000})
    with pytest.raises(S3Unusable, match="Truncated"):
        store.get(digest)


@pytest.mark.parametrize("content", [b"content", LARGE], ids=["small", "large"])
def test_what_the_way_changed_is_fetched_once_more(world: S3World, store: S3Store, content: bytes) -> None:
    digest = store.put([content])
    world.aws.fail({"method": "GET", "flip": 3})
    assert bytes(store.get(digest)) == content
    world.aws.fail({"method": "GET", "flip": 3, "times": 1000})
    with pytest.raises(ObjectDamaged):
        store.get(digest)


def test_a_large_object_is_sent_in_parts_and_what_fails_leaves_no_upload(world: S3World, store: S3Store) -> None:
    world.aws.asked()
    store.put([LARGE])
    assert len([one for one in world.aws.asked() if "partNumber=" in one]) == 3
    world.aws.fail({"method": "PUT", "path": "partNumber=2", "status": 403, "code": "AccessDenied", "times": 1000})
    with pytest.raises(S3Unusable, match="AccessDenied"):
        store.put([LARGE, b"more"])
    assert "Uploads" not in world.aws.client("s3").list_multipart_uploads(Bucket=world.bucket)


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], AbstractContextManager[Path]]:
    """Within a block the client is made anew, with these lines of a profile; the file that they are in."""

    @contextmanager
    def with_lines(text: str) -> Generator[Path]:
        file = tmp_path / "config"
        file.write_text(f"[default]\n{text}\n")
        with monkeypatch.context() as patched:
            patched.setenv("AWS_CONFIG_FILE", str(file))
            patched.setattr(requests, "_session", None)
            loop.close()
            try:
                yield file
            finally:
                loop.close()

    return with_lines


def test_signatures_of_parts_leave_the_body_out_unless_the_profile_wants_it(
    world: S3World, store: S3Store, profile: Callable[[str], AbstractContextManager[Path]]
) -> None:
    def unsigned(content: bytes) -> list[bool]:
        world.aws.asked()
        store.put([content])
        return ["partNumber=" in one for one in world.aws.asked() if one.endswith(" unsigned")]

    assert unsigned(LARGE) == [True] * 3
    with profile("s3 =\n  payload_signing_enabled = true"):
        assert unsigned(LARGE + b"more") == []


def test_a_profile_whose_settings_of_s3_are_none_is_told_with_the_file(
    store: S3Store, profile: Callable[[str], AbstractContextManager[Path]]
) -> None:
    async def another_service() -> bool:
        async with client("batch", region="eu-west-1"):
            return True

    with profile("s3 = 3") as file:
        with pytest.raises(StoreUnusable, match="settings of `s3` stand in lines below") as told:
            store.put([b"content"])
        assert asyncio.run(another_service()), "it has nothing to do with that"
    assert (str(file) in told.value.message, "AWS_CONFIG_FILE" in told.value.hint) == (True, True)


def test_uploads_of_dead_writers_are_swept_when_they_are_old(world: S3World, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = world.aws.client("s3")
    s3.create_multipart_upload(Bucket=world.bucket, Key=world.key(bytes(32)))
    with monkeypatch.context() as patched:
        patched.setattr("evflow.store.s3.store.UNFINISHED_AFTER", timedelta(days=100 * 365))  # moto dates every upload 2010
        store.sweep()
    assert len(s3.list_multipart_uploads(Bucket=world.bucket)["Uploads"]) == 1
    store.sweep()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=world.bucket)


def test_what_others_put_beside_objects_is_none(world: S3World, store: S3Store) -> None:
    """Consoles of S3 make empty objects as folders."""
    digest = store.put([b"content"])
    for key in ("objects/", "objects/ab/", "objects/ab/cd"):
        world.aws.put(world.bucket, store.address.key(*key.split("/")), b"")
    assert list(store.digests()) == [digest]
    store.write_named("logs/a", [b"1"])
    world.aws.put(world.bucket, store.address.key("named", "logs", ""), b"")
    assert store.list_named() == ["logs/a"]


def test_content_that_is_there_is_not_sent_again(world: S3World, store: S3Store) -> None:
    for content in (b"x" * (2 << 20), LARGE):
        store.put([content])
        world.aws.asked()
        store.put([content])
        assert [one.split()[0] for one in world.aws.asked()] == ["HEAD"]


def test_a_new_small_object_takes_one_request(world: S3World, store: S3Store) -> None:
    store.put([b"first"])
    world.aws.asked()
    store.put([b"content"])
    assert [one.split()[0] for one in world.aws.asked()] == ["PUT"]


def test_sizes_of_many_are_asked_for_side_by_side(store: S3Store) -> None:
    digests = [*(store.put([b"%d" % number]) for number in range(50)), bytes(32)]
    sizes = store.sizes(digests)
    assert [sizes[digest] for digest in digests] == [1] * 10 + [2] * 40 + [None]


@pytest.mark.parametrize(("sse", "key"), [("AES256", None), ("aws:kms", "alias/ours"), (None, "alias/ours")])
def test_what_is_written_is_encrypted_as_is_said(world: S3World, monkeypatch: pytest.MonkeyPatch, sse: str | None, key: str | None) -> None:
    for name, value in (("EVFLOW_S3_SSE", sse), ("EVFLOW_S3_KMS_KEY", key)):
        if value is not None:
            monkeypatch.setenv(name, value)
    store = open_store(world.store.url)
    for content in (b"small", LARGE):
        found = world.aws.client("s3").head_object(Bucket=world.bucket, Key=world.key(store.put([content])))
        assert (found["ServerSideEncryption"], found.get("SSEKMSKeyId")) == (sse or "aws:kms", key)


# --- what to do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (404, "NoSuchBucket", "aws s3 mb"),
        (403, "AccessDenied", "s3:PutObject"),
        (403, "InvalidAccessKeyId", "AWS_PROFILE"),
        (403, "SignatureDoesNotMatch", "secret"),
        (400, "ExpiredToken", "aws sso login"),
        (403, "RequestTimeTooSkewed", "timedatectl"),
        (400, "AuthorizationHeaderMalformed", "AWS_REGION"),
        (400, "KMS.DisabledException", "EVFLOW_S3_KMS_KEY"),
        (403, "InvalidObjectState", "Glacier"),
    ],
)
def test_what_s3_refuses_is_told_with_what_to_do(world: S3World, store: S3Store, status: int, code: str, hint: str) -> None:
    world.aws.fail({"status": status, "code": code, "message": "so it is", "times": 1000})
    for act in (
        lambda: store.put([b"content"]),
        lambda: store.get(bytes(32)),
        lambda: store.write_named("a", [b""]),
        store.list_named,
        store.now_us,
    ):
        with pytest.raises(StoreUnusable) as raised:
            act()
        assert code in raised.value.message
        assert hint in raised.value.hint


def test_a_right_that_lacks_is_told_with_its_name_and_the_bucket(world: S3World, store: S3Store) -> None:
    world.aws.fail({"status": 403, "code": "AccessDenied", "times": 1000})
    for act, right in (
        (lambda: store.put([b"content"]), "s3:PutObject"),
        (lambda: store.put([LARGE]), "s3:GetObject"),
        (lambda: store.get(bytes(32)), "s3:GetObject"),
        (store.list_named, "s3:ListBucket"),
    ):
        with pytest.raises(S3Unusable, match=rf"s3://{world.bucket}/some/where.*AccessDenied to {right}: "):
            act()


def test_no_credentials_are_told(store: S3Store, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")  # another client: the one of the other region has its credentials
    loop.close()
    monkeypatch.setattr(requests, "_session", None)
    with pytest.raises(StoreUnusable, match="credentials") as raised:
        open_store(store.url).put([b"content"])
    assert "AWS_ACCESS_KEY_ID" in raised.value.hint


def test_without_the_client_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> None: ...

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    with pytest.raises(AwsMissing, match=r"pip install 'evflow\[aws\]'"):
        open_store("s3://bucket/prefix")


def test_importing_the_store_and_opening_one_in_a_folder_loads_no_client(tmp_path: Path) -> None:
    code = "import sys, evflow; from evflow.store import open_store, logs; open_store(sys.argv[1]).put([b'x']); "
    code += "print([name for name in ('aioboto3', 'botocore', 'aiohttp', 'asyncio', 'evflow.store.s3') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- threads and processes ------------------------------------------------------------------------------------


def test_many_threads_share_a_store(store: S3Store) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                content = b"%d of %d" % (turn, number)
                assert bytes(store.get(store.put([content]))) == content
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_forked_child_makes_a_client_of_its_own(store: S3Store) -> None:
    digest = store.put([b"of the parent"])
    child = os.fork()
    if child == 0:
        try:
            fine = bytes(store.get(digest)) == b"of the parent" and bool(store.put([b"of the child"]))
        except BaseException:  # noqa: BLE001 - the parent is told by the exit code
            fine = False
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(store.get(digest)) == b"of the parent"
    assert store.exists(digest_of(b"of the child"))


# --- the cache ------------------------------------------------------------------------------------------------


@cached(100)
@pytest.mark.parametrize("content", [b"content", LARGE], ids=["small", "large"])
def test_what_was_written_or_read_here_is_read_here(world: S3World, store: S3Store, content: bytes) -> None:
    digest = store.put([content])
    world.aws.asked()
    assert bytes(store.get(digest)) == content
    assert world.aws.asked() == []
    store._cache.forget(digest)
    assert bytes(store.get(digest)) == content
    assert world.aws.asked() != []
    assert bytes(open_store(store.url).get(digest)) == content
    assert world.aws.asked() == []


@cached(100)
@pytest.mark.parametrize("content", [b"content", LARGE], ids=["small", "large"])
def test_what_was_damaged_here_is_fetched_again(store: S3Store, root: Path, content: bytes) -> None:
    digest = store.put([content])
    [kept] = [path for path in (Path(os.environ["EVFLOW_HOME"]) / "cache/s3/objects").rglob("*") if path.is_file()]
    kept.chmod(0o600)
    kept.write_bytes(content[:-1] + b"!")
    assert bytes(store.get(digest)) == content
    assert bytes(store.get(digest)) == content


@cached(2)
def test_the_cache_keeps_to_its_bound_and_what_was_used_last(world: S3World, store: S3Store) -> None:
    contents = [bytes([number]) * 300_000 for number in range(12)]
    digests = [store.put([contents[0]])]
    for number, content in enumerate(contents[1:], 1):
        digests.append(store.put([content]))
        os.utime(store._cache._path(digests[-1]), ns=(number * 10**9, number * 10**9))
        assert bytes(store.get(digests[0])) == contents[0]  # used all the time
    kept = [path for path in (Path(os.environ["EVFLOW_HOME"]) / "cache/s3/objects").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) <= 2_000_000
    world.aws.asked()
    assert bytes(store.get(digests[0])) == contents[0]
    assert world.aws.asked() == []
    assert bytes(store.get(digests[1])) == contents[1]
    assert world.aws.asked() != []


@cached(100)
def test_a_cache_that_cannot_be_written_is_none(world: S3World, store: S3Store) -> None:
    cache = Path(os.environ["EVFLOW_HOME"]) / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "s3").write_text("in the way")
    digest = store.put([b"content"])
    assert bytes(store.get(digest)) == b"content"
    world.aws.put(world.bucket, world.key(digest_of(LARGE)), LARGE)
    assert bytes(store.get(digest_of(LARGE))) == LARGE
    with pytest.raises(StoreUnusable, match="cache/s3"):
        store.put([LARGE, b"more"])


# --- removal --------------------------------------------------------------------------------------------------


def test_a_writer_who_touches_after_the_removers_look_writes_again(world: S3World, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.put([b"content"])
    world.age(digest, HOUR_US)
    before_us = store.now_us() - HOUR_US // 2
    looked, may_delete, freed = threading.Event(), threading.Event(), list[int]()
    call = requests.Bucket.call

    async def slow(bucket: requests.Bucket, method: str, **arguments: object) -> object:
        if method == "delete_object" and arguments.get("once"):
            looked.set()
            await asyncio.to_thread(may_delete.wait)
        return await call(bucket, method, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(requests.Bucket, "call", slow)
    monkeypatch.setattr(removal, "LOOK_EVERY_S", 0.01)
    remover = threading.Thread(target=lambda: freed.append(store.remove(digest, before_us)))
    remover.start()
    assert looked.wait(60)
    writer = threading.Thread(target=lambda: store.put([b"content"]))
    writer.start()
    world.aws.asked()
    while not any("removing/" in one for one in world.aws.asked()):  # the writer has touched, and waits for the remover
        pass
    assert writer.is_alive()
    may_delete.set()
    remover.join()
    writer.join()
    assert freed == [7]
    assert bytes(store.get(digest)) == b"content"


def test_two_removers_of_one_object_are_one(world: S3World, store: S3Store) -> None:
    digest = store.put([b"content"])
    world.age(digest, HOUR_US)
    note = f"some/where/removing/{digest.hex()}"
    world.aws.put(world.bucket, note)
    assert store.remove(digest, store.now_us()) == 0
    assert bytes(store.get(digest)) == b"content"
    store.settle_trash()
    assert store.remove(digest, store.now_us()) == 0, "the other may be at work still"
    world.aws.age(world.bucket, note, removal.ABANDONED_AFTER_S + 1)
    store.settle_trash()
    assert store.remove(digest, store.now_us()) == 7
    with pytest.raises(ObjectMissing):
        store.get(digest)


def test_what_was_written_a_moment_ago_is_not_touched_by_who_writes_it_again(world: S3World, store: S3Store) -> None:
    digest = store.put([b"content"])
    world.aws.asked()
    store.put([b"content"])
    assert not [one for one in world.aws.asked() if "removing" in one]
    world.age(digest, HOUR_US)
    store.put([b"content"])
    assert [one for one in world.aws.asked() if "removing" in one]
