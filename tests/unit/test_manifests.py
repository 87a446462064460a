"""The manifest's bytes: equal for equal content, refused when they are something else."""

from pathlib import Path

import msgpack
import pytest

from evflow.core.ids import Digest
from evflow.store import FileStore, ObjectDamaged
from evflow.store.manifests import INLINE, Code, Draft, Entry, NotAManifest, read_manifest

ENTRY = Entry(Digest(b"d" * 32), "msgpack", "int", 1, INLINE, 0, 1)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def test_what_is_drafted_is_read(store: FileStore) -> None:
    far = Entry(Digest(b"e" * 32), "pickle5", "numpy.ndarray", 100, Digest(b"o" * 32), 64, 80, "zstd", Code("flow.py", b"c" * 32))
    draft = Draft({"near": ENTRY, "far": far, "also": far}, [b"x"], base=Digest(b"b" * 32), depth=3, removed=["gone"])
    digest = store.put(draft.encode())
    manifest = read_manifest(store, digest)
    assert set(manifest.names()) == {"near", "far", "also"}
    assert (manifest.base, manifest.depth, [*manifest.removed]) == (b"b" * 32, 3, ["gone"])
    assert manifest.entry("far") == manifest.entry("also") == far
    near = manifest.entry("near")
    assert near == ENTRY._replace(object=digest, offset=near.offset)
    assert bytes(store.get(digest, near.offset, near.length)) == b"x"
    assert list(manifest.objects()) == [b"o" * 32]


def test_the_order_in_which_artifacts_were_set_does_not_show(store: FileStore) -> None:
    other = ENTRY._replace(offset=1)
    assert store.put(Draft({"a": ENTRY, "b": other}, [b"xy"]).encode()) == store.put(Draft({"b": other, "a": ENTRY}, [b"xy"]).encode())


def test_another_object_is_no_manifest(store: FileStore) -> None:
    digest = store.put([b"something else"])
    with pytest.raises(NotAManifest) as raised:
        read_manifest(store, digest)
    assert store.where(digest) in raised.value.message


def test_a_manifest_of_a_later_version_is_said_so(store: FileStore) -> None:
    head = msgpack.packb((2, None, 0, (), (), ()))
    with pytest.raises(NotAManifest, match="version 2"):
        read_manifest(store, store.put([b"evfm", len(head).to_bytes(4, "little"), head]))


def test_a_manifest_with_a_changed_byte_is_damaged(store: FileStore) -> None:
    digest = store.put(Draft({"a": ENTRY}, [b"x"]).encode())
    path = Path(store.where(digest))
    whole = path.read_bytes()
    path.chmod(0o600)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ObjectDamaged):
            read_manifest(store, digest)
