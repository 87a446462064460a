"""The store in a folder when the machine misbehaves: dying writers, writers at once, a full disk, no rights."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evflow.store import FileStore, StoreFull, StoreUnusable
from tests.effort import scaled

LARGE = 3 << 20


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


def python(code: str, *arguments: object) -> "subprocess.Popen[bytes]":
    head = "import os, sys; from pathlib import Path; from evflow.store import *; store = FileStore(Path(sys.argv[1]))\n"
    return subprocess.Popen([sys.executable, "-c", head + code, *map(str, arguments)], stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors.decode()


def temporary(store: FileStore) -> list[Path]:
    return list((store.root / "tmp").iterdir())


def age(path: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def test_what_others_put_beside_objects_is_none(store: FileStore) -> None:
    """Network file systems and desktops do."""
    digest = store.put([b"content"])
    store.write_named("logs/a", [b"1"])
    (store.root / "named" / "logs" / ".DS_Store").write_bytes(b"")
    assert store.list_named() == ["logs/a"]
    beside = store.root / "objects"
    for path in (beside / ".DS_Store", beside / digest.hex()[:2] / ".nfs0000001", beside / digest.hex()[:2] / "ab"):
        path.write_bytes(b"")
    assert list(store.digests()) == [one for one, _, _ in store.written()] == [digest]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc, where nobody makes folders")
def test_a_file_system_without_new_folders_is_told() -> None:
    with pytest.raises(StoreUnusable, match="/proc/"):
        FileStore(Path("/proc/evflow")).write_named("a", [b"1"])


def test_processes_that_write_the_same_objects_at_once_all_succeed(store: FileStore) -> None:
    code = f"""
import hashlib
for index in range({scaled(100, at_least=20)}):
    content = index.to_bytes(4, "big") * (10 if index % 5 else 400_000)
    assert store.put([content]) == hashlib.sha256(content).digest()
    assert bytes(store.get(hashlib.sha256(content).digest())) == content
"""
    writers = [python(code, store.root) for _ in range(4)]
    assert [finish(writer) for writer in writers] == [(0, "")] * 4
    assert temporary(store) == []
    for digest in store.digests():
        store.get(digest)


def test_a_store_that_is_not_there_yet_is_made_by_several_at_once(tmp_path: Path) -> None:
    """Each may be the first to see that a folder lacks, and find it made by another one a moment later."""
    with ThreadPoolExecutor(4) as writers:
        for number in range(30):
            stores = [FileStore(tmp_path / str(number) / "store") for _ in range(4)]
            for written in [writers.submit(store.put, [bytes([each])]) for each, store in enumerate(stores)]:
                written.result()


def test_a_writer_that_dies_before_the_rename_leaves_a_temporary_file_only(store: FileStore) -> None:
    died = python("FileStore._publish = lambda *_: os._exit(9)\nstore.put([b'x' * 3_000_000])", store.root)
    assert finish(died)[0] == 9
    assert list(store.digests()) == []
    assert [path.stat().st_size for path in temporary(store)] == [3_000_000]


def test_what_a_dead_writer_left_is_swept_and_no_put_looks_for_it(store: FileStore) -> None:
    finish(python("FileStore._publish = lambda *_: os._exit(9)\nstore.put([b'x'])", store.root))
    (left,) = temporary(store)
    age(left, 120)
    store.put([b"y"])
    assert temporary(store) == [left]
    store.sweep()
    assert temporary(store) == []


def test_a_store_that_does_not_exist_yet_is_not_made_by_sweeping_it(store: FileStore) -> None:
    store.sweep()
    assert not store.root.exists()


def test_a_sweep_leaves_the_temporary_files_of_the_living_and_of_the_young(store: FileStore) -> None:
    finish(python("FileStore._publish = lambda *_: os._exit(9)\nstore.put([b'x'])", store.root))
    (young,) = temporary(store)

    def chunks() -> Iterator[bytes]:
        yield bytes(LARGE)
        (living,) = [path for path in temporary(store) if path != young]
        age(living, 24 * 3600 - 60)
        FileStore(store.root).sweep()
        assert set(temporary(store)) == {young, living}

    store.put(chunks())
    assert temporary(store) == [young]


def test_objects_cannot_be_written_to_by_accident(store: FileStore) -> None:
    assert Path(store.where(store.put([b"x"]))).stat().st_mode & 0o777 == 0o444


def test_a_store_that_we_make_is_its_users_alone(store: FileStore) -> None:
    store.put([b"x"])
    assert store.root.stat().st_mode & 0o777 == 0o700


def test_an_object_is_synced_before_it_has_its_name_and_its_folder_after(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put([b"makes the folders"])
    digest = hashlib.sha256(b"x").digest()
    Path(store.where(digest)).parent.mkdir()
    acts: list[tuple[str, bool]] = []
    sync = os.fsync

    def seen(file: int) -> None:
        acts.append((Path(f"/proc/self/fd/{file}").readlink().parent.name, store.exists(digest)))
        sync(file)

    monkeypatch.setattr(os, "fsync", seen)
    store.put([b"x"])
    assert acts == [("tmp", False), ("objects", True)]


def test_a_file_size_limit_is_a_full_store(store: FileStore) -> None:
    code = """
import resource, hashlib
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store.put([b"small enough"])
for chunks in ([b"x" * 200_000], [b"x" * 3_000_000]):
    try:
        store.put(chunks)
    except StoreFull as error:
        assert error.hint and str(store.root) in error.message, error
    else:
        raise SystemExit("it was written")
assert bytes(store.get(hashlib.sha256(b"small enough").digest())) == b"small enough"
"""
    assert finish(python(code, store.root)) == (0, "")
    assert temporary(store) == []


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    """Answer a folder on a file system of 512 KB."""
    folder = root / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts file systems")
def test_a_full_disk_is_said_so_and_loses_nothing(small_disk: Path) -> None:
    store = FileStore(small_disk / "store")
    kept = store.put([b"kept" * 1000])
    for chunks in ([bytes(400_000), bytes(2_000_000)], [bytes(600_000)]):
        with pytest.raises(StoreFull) as raised:
            store.put(chunks)
        assert str(store.root) in raised.value.message
        assert "EVFLOW_STORE" in raised.value.hint
    with pytest.raises(StoreFull):
        store.write_named("log", [bytes(2_000_000)])
    assert (bytes(store.get(kept)), temporary(store), store.list_named()) == (b"kept" * 1000, [], [])
    assert store.put([bytes(300_000)])


def test_a_file_where_the_store_should_be_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreUnusable, match=str(tmp_path / "store")):
        FileStore(tmp_path / "store").put([b"x"])


def test_a_folder_without_rights_is_said_so(store: FileStore) -> None:
    code = """
os.setuid(65534) if os.getuid() == 0 else None
for act in (lambda: store.put([b"x"]), lambda: store.get(bytes(32)), lambda: store.size(bytes(32)), lambda: store.read_named("x")):
    try:
        act()
    except StoreUnusable as error:
        assert "Permission denied" in error.message and error.hint, error
    else:
        raise SystemExit("it could be used")
"""
    store.root.mkdir(mode=0)
    store.root.parent.parent.chmod(0o755)
    assert finish(python(code, store.root)) == (0, "")
    store.root.chmod(0o700)


def test_reading_many_large_objects_needs_no_descriptor_for_each(store: FileStore) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
digest = store.put([bytes(2_000_000)])
held = [store.get(digest) for _ in range(60)]
assert all(len(memory) == 2_000_000 for memory in held)
"""
    assert finish(python(code, store.root)) == (0, "")


def test_importing_the_store_imports_no_array_library_and_no_compression() -> None:
    code = "import evflow.store.artifacts, evflow.store.items; print(sorted({'numpy', 'pandas', 'zipfile', 'pathspec', 'backports.zstd', 'asyncio', 'redis'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", "import sys; " + code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
