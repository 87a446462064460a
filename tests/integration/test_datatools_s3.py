"""`evflow.S3` against moto's server: what Metaflow's users do with its `S3`."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from evflow import S3
from evflow.datatools import (
    S3AccessDenied,
    S3Exception,
    S3GetObject,
    S3InvalidObject,
    S3InvalidRange,
    S3NotFound,
    S3PutObject,
    S3URLException,
)
from tests.aws import Aws
from tests.contract.store_worlds import S3World, asking

LARGE = bytes(range(256)) * (20 << 12)
"""More than two parts."""


@pytest.fixture
def world(s3_server: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3World]:
    """Answer a bucket of the test's own."""
    with asking(s3_server, monkeypatch):
        yield S3World(s3_server)


@pytest.fixture
def s3(world: S3World) -> Iterator[S3]:
    with S3(s3root=f"s3://{world.bucket}/root/") as found:
        yield found


@pytest.mark.parametrize("content", [b"", b"one", "a text: ä", LARGE, io.BytesIO(LARGE), io.StringIO("read")], ids=range(6))
def test_what_is_put_is_got(s3: S3, world: S3World, content: bytes | str | io.BytesIO | io.StringIO) -> None:
    wanted = content if isinstance(content, bytes | str) else content.getvalue()
    blob = wanted.encode() if isinstance(wanted, str) else wanted
    url = s3.put("a/key", content)
    assert url == f"s3://{world.bucket}/root/a/key"
    found = s3.get("a/key")
    assert (found.blob, found.size, found.key, found.url, found.exists, found.downloaded) == (blob, len(blob), "a/key", url, True, True)
    assert found.text == blob.decode("utf-8", "replace")


def test_files_of_what_was_read_go_with_the_block(world: S3World) -> None:
    with S3(s3root=f"s3://{world.bucket}/r") as s3:
        s3.put("a", b"1")
        path = s3.get("a").path
        assert path is not None
        assert Path(path).read_bytes() == b"1"
    assert not Path(path).parent.exists()


def test_type_and_metadata_are_kept(s3: S3) -> None:
    s3.put("a.json", "{}", content_type="application/json", metadata={"made-by": 3})
    s3.put_many([S3PutObject("b", LARGE, content_type="x/y", metadata={"of": "b"})])
    found, large = s3.info("a.json"), s3.info("b")
    assert (found.content_type, found.metadata, found.size, found.has_info, found.downloaded) == (
        "application/json", {"made-by": "3"}, 2, True, False,
    )  # fmt: skip
    assert found.last_modified is not None
    assert (large.content_type, large.metadata, large.size) == ("x/y", {"of": "b"}, len(LARGE))


def test_what_is_there_is_not_written_over_where_that_is_asked_for(s3: S3) -> None:
    s3.put("a", b"1")
    assert s3.put_many([("a", b"2"), ("b", b"3")], overwrite=False) == [("b", s3.info("b").url)]
    assert s3.put("a", LARGE, overwrite=False)
    assert s3.get("a").blob == b"1"


def test_many_are_got_in_the_order_of_their_keys(s3: S3) -> None:
    keys = [f"k{number:03}" for number in range(60)]
    s3.put_many([(key, key) for key in keys])
    assert [found.text for found in s3.get_many(reversed(keys))] == keys[::-1]
    assert [found.size for found in s3.info_many(keys)] == [4] * 60


def test_paths_and_objects_are_listed(s3: S3, world: S3World) -> None:
    s3.put_many([("top", b"1"), ("a/one", b"22"), ("a/b/two", b"333"), ("ab", b"4444")])
    assert {(found.key, found.exists, found.size) for found in s3.list_paths()} == {
        ("top", True, 1), ("a/", False, None), ("ab", True, 4),
    }  # fmt: skip
    assert [found.key for found in s3.list_paths(["a"])] == ["b/", "one"]
    assert {(found.key, found.size) for found in s3.list_recursive(["a"])} == {("one", 2), ("b/two", 3)}
    assert {found.key for found in s3.list_recursive()} == {"top", "a/one", "a/b/two", "ab"}
    assert {(found.key, found.blob) for found in s3.get_recursive(["a"])} == {("one", b"22"), ("b/two", b"333")}
    assert {found.key: found.blob for found in s3.get_all()} == {"top": b"1", "a/one": b"22", "a/b/two": b"333", "ab": b"4444"}
    assert s3.list_paths(["none"]) == s3.list_recursive(["none"]) == []


def test_files_are_put(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"1")
    (tmp_path / "large").write_bytes(LARGE)
    s3.put_files([("s", str(tmp_path / "small")), S3PutObject("l", path=str(tmp_path / "large"), content_type="a/b")])
    assert (s3.get("s").blob, s3.get("l").blob, s3.info("l").content_type) == (b"1", LARGE, "a/b")
    with pytest.raises(S3InvalidObject, match="no file"):
        s3.put_files([("s", str(tmp_path / "none"))])


def test_a_part_is_got(s3: S3) -> None:
    s3.put("a", b"0123456789")
    found = s3.get(S3GetObject("a", 2, 3))
    assert (found.blob, found.range_info) == (b"234", (10, 2, 3))
    assert s3.get(S3GetObject("a", 8)).blob == b"89"
    with pytest.raises(S3InvalidRange, match="byte 10"):
        s3.get(S3GetObject("a", 10, 1))
    for offset, length in ((-3, None), (-3, 2), (2, 0), (2, -1)):
        with pytest.raises(S3InvalidRange, match="no part"):
            s3.get(S3GetObject("a", offset, length))


def test_keys_are_longer_than_names_of_files(s3: S3) -> None:
    key = "一" * 200
    s3.put(key, b"1")
    assert [found.blob for found in (s3.get(key), *s3.get_all())] == [b"1", b"1"]


def test_what_s3_cannot_hold_is_said_before_it_is_asked(s3: S3, world: S3World) -> None:
    with pytest.raises(S3InvalidObject, match="ASCII"):
        s3.put("a", b"1", metadata={"by": "Zoë"})
    with S3() as urls, pytest.raises(S3URLException, match="no object in it"):
        urls.put(f"s3://{world.bucket}/", b"1")


def test_what_is_not_there_is_said_or_answered(s3: S3) -> None:
    for ask in (s3.get, s3.info):
        with pytest.raises(S3NotFound, match="root/none"):
            ask("none")
        found = ask("none", return_missing=True)
        assert (found.exists, found.downloaded, found.size, found.blob, found.key) == (False, False, None, None, "none")
    s3.put("a", b"1")
    assert [found.exists for found in s3.get_many(["a", "none"], return_missing=True)] == [True, False]
    with pytest.raises(S3NotFound):
        s3.get_many(["a", "none"])


def test_without_a_root_keys_are_urls(world: S3World) -> None:
    url = f"s3://{world.bucket}/some/key"
    with S3() as s3:
        assert s3.put(url, b"1") == url
        assert (s3.get(url).blob, s3.get(url).key) == (b"1", url)
        with pytest.raises(S3URLException, match="whole URLs"):
            s3.get("key")
        with pytest.raises(S3URLException, match="root"):
            s3.get_all()
    with S3(bucket=world.bucket, prefix="some") as s3:
        assert s3.get("key").blob == b"1"
        with pytest.raises(S3URLException, match="below it"):
            s3.get(url)


def test_what_cannot_be_stored_is_said(s3: S3) -> None:
    with pytest.raises(S3InvalidObject, match="'a' is to be stored as a list"):
        s3.put("a", [1])
    with pytest.raises(S3URLException, match="Give a list"):
        s3.get_many("a")


def test_a_run_without_a_place_is_told_of_the_setting(world: S3World) -> None:
    class Run:
        pathspec = "Train/3"

    with pytest.raises(S3URLException, match="EVFLOW_S3_ROOT"):
        S3(run=Run())  # type: ignore[arg-type]
    with S3(run=Run(), bucket=world.bucket, prefix="x") as s3:  # type: ignore[arg-type]
        assert s3.put("a", b"1") == f"s3://{world.bucket}/x/Train/3/a"


def test_a_bucket_that_is_missing_or_closed_is_told(world: S3World) -> None:
    with S3() as s3, pytest.raises(S3Exception, match=r"'s3://not-made/a' .*\n.*aws s3 mb s3://not-made"):
        s3.put_many([(f"s3://{world.bucket}/a", b"1"), ("s3://not-made/a", b"1")])
    world.aws.fail({"status": 403, "code": "AccessDenied"})
    with S3(s3root=f"s3://{world.bucket}/r") as s3, pytest.raises(S3AccessDenied, match="s3:PutObject"):
        s3.put("a", b"1")
