"""The code package: the files of the flow, the same bytes everywhere, unpacked where it should be and nowhere else."""

import os
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from evflow.store import FileStore, ObjectDamaged
from evflow.store.packages import BadIgnoreFile, BadPackage, CodeUnreadable, FileNameNotText, FolderTaken, build, extract, unpacked


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A flow's folder with what usually lies around in one."""
    top = tmp_path / "project"
    for name in (
        "flow.py",
        "helpers/__init__.py",
        "helpers/deep/er.py",
        "query.sql",
        "notes.md",
        ".git/hook.py",
        ".hidden/x.py",
        "env/pyvenv.cfg",
        "env/lib/site.py",
        "__pycache__/flow.py",
        "web/node_modules/gyp.py",
        "web/page.py",
    ):
        write(top / name, f"# {name}\n")
    return top


def write(path: Path, text: str, *, age_s: float = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    moment = time.time() - age_s
    os.utime(path, (moment, moment))
    return path


def names(store: FileStore, digest: bytes) -> list[str]:
    with zipfile.ZipFile(BytesIO(store.get(digest))) as archive:
        return archive.namelist()


def test_the_flows_modules_are_in_it_and_what_is_not_the_flows_is_not(store: FileStore, folder: Path) -> None:
    package = build(store, folder / "flow.py")
    assert names(store, package.digest) == ["flow.py", "helpers/__init__.py", "helpers/deep/er.py", "web/page.py"]
    assert (package.file, package.files, package.warning) == ("flow.py", 4, "")


def test_files_with_further_suffixes_are_in_it_when_asked_for(store: FileStore, folder: Path) -> None:
    package = build(store, folder / "flow.py", suffixes=[".py", ".sql"])
    assert "query.sql" in names(store, package.digest)


def test_the_flows_file_is_in_it_whatever_its_name(store: FileStore, folder: Path) -> None:
    write(folder / "run", "# no suffix")
    write(folder / ".evflowignore", "run\n")
    assert "run" in names(store, build(store, folder / "run").digest)


def test_the_flows_file_may_lie_below_the_folder_that_is_packaged(store: FileStore, folder: Path) -> None:
    package = build(store, folder / "helpers" / "deep" / "er.py", folder=folder)
    assert package.file == "helpers/deep/er.py"
    assert "flow.py" in names(store, package.digest)


def test_equal_folders_have_equal_packages(store: FileStore, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            write(copy / path.relative_to(folder), path.read_text(), age_s=5)
    assert build(store, copy / "flow.py").digest == build(store, folder / "flow.py").digest


def test_a_changed_file_makes_another_package(store: FileStore, folder: Path) -> None:
    before = build(store, folder / "flow.py")
    write(folder / "helpers/deep/er.py", "# changed\n")
    assert build(store, folder / "flow.py").digest != before.digest


def test_an_ignore_file_speaks_the_language_of_gitignore(store: FileStore, folder: Path) -> None:
    write(folder / "web/keep.py", "")
    write(folder / ".evflowignore", "# a comment\nhelpers/\nweb/*\n!web/keep.py\n")
    assert names(store, build(store, folder / "flow.py").digest) == ["flow.py", "web/keep.py"]


def test_an_ignore_file_that_cannot_be_understood_is_named(store: FileStore, folder: Path) -> None:
    write(folder / ".evflowignore", "!\n")
    with pytest.raises(BadIgnoreFile, match=r"\.evflowignore"):
        build(store, folder / "flow.py")


def test_a_link_to_a_folder_is_followed_and_one_in_a_circle_once(store: FileStore, folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "shared/lib.py", "")
    (folder / "shared").symlink_to(tmp_path / "shared")
    (folder / "again").symlink_to(tmp_path / "shared")
    (folder / "circle").symlink_to(folder)
    (folder / "broken.py").symlink_to(folder / "nowhere.py")
    packed = names(store, build(store, folder / "flow.py").digest)
    assert {"shared/lib.py", "again/lib.py"} <= set(packed)
    assert not [name for name in packed if name.startswith(("circle", "broken"))]


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [("MAX_SEEN", 5, "more than 5 files and folders"), ("MAX_FILES", 2, "more than 2 files of code"), ("MAX_SIZE_BYTES", 30, "MB")],
)
def test_a_folder_that_is_too_large_gives_the_flows_file_alone_and_says_so(
    store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, said: str
) -> None:
    monkeypatch.setattr(f"evflow.store.packages.{limit}", value)
    package = build(store, folder / "flow.py")
    assert names(store, package.digest) == ["flow.py"]
    assert said in package.warning
    assert str(folder) in package.warning
    assert ".evflowignore" in package.warning


def test_a_huge_tree_is_not_walked_to_its_end(store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evflow.store.packages.MAX_SEEN", 50)
    for index in range(40):
        (folder / f"d{index}").mkdir()
    scanned: list[str] = []
    scan = os.scandir

    def counted(path: str) -> "os.ScandirIterator[str]":  # type: ignore[name-defined]
        scanned.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", counted)
    for index in range(40):
        (folder / f"d{index}/e").mkdir()
    assert build(store, folder / "flow.py").warning
    assert len(scanned) < 40


def test_a_file_that_cannot_be_read_is_named(store: FileStore, tmp_path: Path) -> None:
    with pytest.raises(CodeUnreadable, match=r"flow\.py"):
        build(store, tmp_path / "flow.py")


# --- the cache -------------------------------------------------------------------------------------------


def test_a_name_that_is_not_utf8_is_left_out_and_said(store: FileStore, folder: Path) -> None:
    odd = folder / os.fsdecode(b"caf\xe9")
    write(odd / "a.py", "")
    write(odd / "b.py", "")
    package = build(store, folder / "flow.py")
    assert names(store, package.digest) == ["flow.py", "helpers/__init__.py", "helpers/deep/er.py", "web/page.py"]
    assert "caf\\udce9/a.py' and 1 more" in package.warning


def test_a_flow_whose_own_name_is_not_utf8_is_refused(store: FileStore, folder: Path) -> None:
    with pytest.raises(FileNameNotText, match="is not UTF-8"):
        build(store, write(folder / os.fsdecode(b"caf\xe9.py"), ""))


def test_an_unchanged_folder_is_known_without_reading_its_files(store: FileStore, folder: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from evflow.store import FileStore
from evflow.store.packages import build
print(build(FileStore(Path(sys.argv[1])), Path(sys.argv[2]), cache=Path(sys.argv[3])).digest.hex(), "zipfile" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(store.root), str(folder / "flow.py"), str(tmp_path / "cache")]
    first, second = (subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(2))
    assert (first[0], first[1], second[1]) == (second[0], "True", "False")


@pytest.mark.parametrize("change", ["content", "new file", "removed file", "ignored"])
def test_the_cache_sees_every_change(store: FileStore, folder: Path, tmp_path: Path, change: str) -> None:
    cache = tmp_path / "cache"
    before = build(store, folder / "flow.py", cache=cache)
    if change == "content":
        write(folder / "web/page.py", "# Web/page.py\n", age_s=50)
    elif change == "new file":
        write(folder / "new.py", "")
    elif change == "removed file":
        (folder / "web/page.py").unlink()
    else:
        write(folder / ".evflowignore", "web/\n")
    after = build(store, folder / "flow.py", cache=cache)
    assert after.digest != before.digest
    assert after.digest == build(store, folder / "flow.py").digest


def test_a_file_that_was_written_just_now_is_not_trusted_to_stay_as_it_is(store: FileStore, folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    write(folder / "flow.py", "a", age_s=0)
    moment = (folder / "flow.py").stat()
    before = build(store, folder / "flow.py", cache=cache)
    (folder / "flow.py").write_text("b")
    os.utime(folder / "flow.py", ns=(moment.st_atime_ns, moment.st_mtime_ns))
    assert build(store, folder / "flow.py", cache=cache).digest != before.digest


def test_a_cache_that_names_what_the_store_lost_or_is_broken_is_passed_over(store: FileStore, folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    package = build(store, folder / "flow.py", cache=cache)
    Path(store.where(package.digest)).unlink()
    assert build(store, folder / "flow.py", cache=cache).digest == package.digest
    assert store.exists(package.digest)
    for path in (cache / "packages").iterdir():
        path.write_text("nonsense")
    assert build(store, folder / "flow.py", cache=cache).digest == package.digest


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(store: FileStore, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert build(store, folder / "flow.py", cache=tmp_path / "cache").files == 4


# --- unpacking -------------------------------------------------------------------------------------------


def test_what_was_packed_is_unpacked(store: FileStore, folder: Path, tmp_path: Path) -> None:
    (folder / "web/page.py").chmod(0o755)
    extract(store, build(store, folder / "flow.py").digest, tmp_path / "out")
    assert (tmp_path / "out/helpers/deep/er.py").read_text() == "# helpers/deep/er.py\n"
    assert os.access(tmp_path / "out/web/page.py", os.X_OK)
    assert {path.name for path in tmp_path.iterdir()} == {"store", "project", "out"}


def test_plain_python_can_unpack_it(store: FileStore, folder: Path, tmp_path: Path) -> None:
    digest = build(store, folder / "flow.py").digest
    subprocess.run([sys.executable, "-I", "-m", "zipfile", "-e", store.where(digest), str(tmp_path / "out")], check=True)
    assert (tmp_path / "out/flow.py").read_text() == "# flow.py\n"


def test_a_folder_with_something_in_it_is_left_alone(store: FileStore, folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "out/mine.txt", "mine")
    with pytest.raises(FolderTaken, match="out"):
        extract(store, build(store, folder / "flow.py").digest, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert {path.name for path in tmp_path.iterdir()} == {"store", "project", "out"}


@pytest.mark.parametrize("name", ["../evil.py", "/tmp/evil.py", "a/../../evil.py", "..", "a\\..\\..\\evil.py"])
def test_an_archive_that_reaches_outside_is_refused_whole(store: FileStore, tmp_path: Path, name: str) -> None:
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("good.py", "")
        archive.writestr(name, "")
    with pytest.raises(BadPackage, match="Nothing was unpacked"):
        extract(store, store.put([data.getvalue()]), tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


def test_another_object_is_no_package(store: FileStore, tmp_path: Path) -> None:
    with pytest.raises(BadPackage):
        extract(store, store.put([b"no zip"]), tmp_path / "out")


def test_a_damaged_package_is_not_unpacked(store: FileStore, folder: Path, tmp_path: Path) -> None:
    digest = build(store, folder / "flow.py").digest
    path = Path(store.where(digest))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"# flow.py", b"# evil.py"))
    with pytest.raises(ObjectDamaged):
        extract(store, digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_package_is_unpacked_once_for_everybody(store: FileStore, folder: Path, tmp_path: Path) -> None:
    digest = build(store, folder / "flow.py").digest
    first = unpacked(store, digest, tmp_path / "cache")
    (first / "mark").touch()
    assert unpacked(store, digest, tmp_path / "cache") == first
    assert (first / "mark").exists()
