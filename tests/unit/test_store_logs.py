"""Captured output as a file: exact, bounded, readable while it is written."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from evflow.core.ids import RunId
from evflow.store import StoreUnusable, open_store
from evflow.store.logs import TAIL_BYTES, LogLine, LogWriter, find_folder, make_folder, path_of, read_log, read_on, read_text

texts = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(st.characters(exclude_characters="\n", codec="utf-8")), st.booleans())
)


@given(printed=texts)
def test_what_is_read_is_what_was_written(printed: list[tuple[str, str, bool]], tmp_path_factory: object) -> None:
    folder = tmp_path_factory.mktemp("logs")  # type: ignore[attr-defined]
    writer = LogWriter(str(folder), 3, 1)
    for at_us, (stream, text, ends) in enumerate(printed):
        writer.write(stream, at_us, [text.encode()], ends=ends)  # type: ignore[arg-type]
    writer.close(0)
    assert list(read_log(str(folder), 3, 1)) == [LogLine(at, stream, text, ends) for at, (stream, text, ends) in enumerate(printed)]  # type: ignore[arg-type]


def test_lines_of_one_stream_are_read_alone_and_joined_where_they_go_on(root: Path) -> None:
    writer = LogWriter(str(root), 1, 0)
    writer.write("stdout", 1, [b"a", b"b"])
    writer.write("stderr", 2, [b"warning"])
    writer.write("stdout", 3, [b"10 %"], ends=False)
    writer.write("stdout", 4, [b" 20 %"])
    writer.close(5)
    assert read_text(str(root), 1, 0, "stdout") == "a\nb\n10 % 20 %\n"
    assert read_text(str(root), 1, 0, "stderr") == "warning\n"
    assert [line.at_us for line in read_log(str(root), 1, 0)] == [1, 1, 2, 3, 4]


def test_a_log_that_was_never_written_reads_as_nothing(root: Path) -> None:
    LogWriter(str(root), 1, 0).close(0)
    assert not Path(path_of(str(root), 1, 0)).exists()
    assert read_text(str(root), 1, 0) == ""


def test_a_record_that_was_torn_off_is_not_read(root: Path) -> None:
    writer = LogWriter(str(root), 1, 0)
    writer.write("stdout", 1, [b"whole", b"torn"])
    writer.close(0)
    path = Path(path_of(str(root), 1, 0))
    path.write_bytes(path.read_bytes()[:-3])
    assert read_text(str(root), 1, 0) == "whole\n"


def test_past_the_limit_the_end_is_kept_and_the_gap_is_told(root: Path) -> None:
    writer = LogWriter(str(root), 1, 0, limit_bytes=10_000)
    for number in range(20_000):
        writer.write("stdout", number, [b"line %06d" % number])
    writer.close(20_000)
    lines = [line.text for line in read_log(str(root), 1, 0)]
    assert (lines[0], lines[-1]) == ("line 000000", "line 019999")
    [gap] = [line for line in lines if "left out" in line]
    written = Path(path_of(str(root), 1, 0)).stat().st_size
    assert written <= 10_000 + TAIL_BYTES + 100
    assert int(gap.split()[0].removeprefix("[")) > 0


def test_a_log_a_little_over_its_limit_has_no_gap(root: Path) -> None:
    writer = LogWriter(str(root), 1, 0, limit_bytes=100)
    for number in range(20):
        writer.write("stdout", number, [b"line %06d" % number])
    writer.close(20)
    assert [line.text for line in read_log(str(root), 1, 0)] == [f"line {number:06}" for number in range(20)]


def test_a_runs_output_lies_among_the_named_files_of_its_store(tmp_path: Path) -> None:
    folder = make_folder(f"file://{tmp_path}/store", RunId.parse("TrainFlow/3"))
    writer = LogWriter(folder, 7, 0)
    writer.write("stdout", 5, [b"hello"])
    writer.close(6)
    store = open_store(f"{tmp_path}/store")
    assert store.list_named("logs/TrainFlow") == ["logs/TrainFlow/3/7.0.log"]
    assert store.read_named("logs/TrainFlow/3/7.0.log") == b"5 o hello\n"


def test_a_store_that_output_makes_is_its_users_alone(tmp_path: Path) -> None:
    make_folder(str(tmp_path / "store"), RunId.parse("TrainFlow/3"))
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


def test_output_is_found_in_the_configured_store_where_the_runs_own_is_gone(tmp_path: Path) -> None:
    run = RunId.parse("TrainFlow/3")
    here = make_folder(str(tmp_path / "moved"), run)
    assert find_folder(str(tmp_path / "store"), run, str(tmp_path / "moved")) == here
    assert find_folder(str(tmp_path / "store"), run, str(tmp_path / "store")) is None


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file in its place")
    with pytest.raises(StoreUnusable, match="store"):
        make_folder(str(tmp_path / "store"), RunId.parse("TrainFlow/3"))


def test_a_follower_reads_on_where_it_was_and_no_record_that_is_not_whole(root: Path) -> None:
    folder = make_folder(str(root), RunId.parse("Flow/1"))
    assert read_on(folder, 1, 0, 0) == ([], 0)
    path = Path(path_of(folder, 1, 0))
    path.write_bytes(b"1 o one\n2 e tw")
    lines, offset = read_on(folder, 1, 0, 0)
    assert lines == [LogLine(1, "stdout", "one", True)]
    assert read_on(folder, 1, 0, offset) == ([], offset)
    with path.open("ab") as file:
        file.write(b"o\n3 o three\n")
    lines, offset = read_on(folder, 1, 0, offset)
    assert lines == [LogLine(2, "stderr", "two", True), LogLine(3, "stdout", "three", True)]
    assert offset == path.stat().st_size
