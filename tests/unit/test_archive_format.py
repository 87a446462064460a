"""An archive gives back what was put in, by parts too, and no byte of it can be changed unnoticed."""

import pytest
from hypothesis import given, settings, strategies as st

from evflow.archives import format as archive_format
from evflow.archives.format import Archive, BrokenChain, Encoder, Unsound
from evflow.core.chain import LINK_BYTES, links
from evflow.log.protocol import StoredEvent
from tests.effort import scaled

PAYLOADS = st.lists(st.binary(max_size=300), max_size=40)
ABOUT = {"dropped": {"late": 2}, "tags": ["a"], "name": "Flow/3"}


def log_of(payloads: list[bytes]) -> list[StoredEvent]:
    """Answer a log of these events."""
    chain = links(bytes(32), payloads)
    return [StoredEvent(seq, payload, link[:LINK_BYTES]) for seq, (payload, link) in enumerate(zip(payloads, chain, strict=True), 1)]


def encoded(payloads: list[bytes]) -> tuple[bytes, Encoder]:
    encoder = Encoder(log_of(payloads), lambda: ABOUT)
    return b"".join(encoder), encoder


def opened(data: bytes) -> Archive:
    return Archive(lambda offset, length: data[offset : offset + length], len(data))


@pytest.fixture(params=[1, 500, 256 << 10], ids=lambda size: f"segments-of-{size}-bytes")
def segments(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Each size of segments: one event, some, all."""
    monkeypatch.setattr(archive_format, "SEGMENT_BYTES", request.param)
    return int(request.param)


def test_what_was_put_in_comes_back(segments: int) -> None:
    @settings(max_examples=scaled(300))
    @given(payloads=PAYLOADS)
    def comes_back(payloads: list[bytes]) -> None:
        data, encoder = encoded(payloads)
        archive = opened(data)
        assert list(archive.all()) == log_of(payloads)
        assert (archive.events, archive.chain, archive.about) == (len(payloads), encoder.chain, ABOUT)
        assert encoder.size_bytes == len(data)
        archive.verify()

    comes_back()


def test_any_part_is_the_part_of_the_log(segments: int) -> None:
    @settings(max_examples=scaled(300))
    @given(payloads=PAYLOADS, after=st.integers(0, 45), limit=st.one_of(st.none(), st.integers(0, 45)))
    def is_the_part(payloads: list[bytes], after: int, limit: int | None) -> None:
        log = log_of(payloads)
        wanted = log[after:] if limit is None else log[after : after + limit]
        assert opened(encoded(payloads)[0]).read(after, limit) == wanted

    is_the_part()


def test_every_flipped_bit_is_found(segments: int) -> None:
    data, _ = encoded([b"event %d " % number * 20 for number in range(12)])
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(Unsound):
            opened(bytes(changed)).verify()


def test_every_shortened_archive_is_found() -> None:
    data, _ = encoded([b"event %d" % number for number in range(20)])
    for end in range(len(data)):
        with pytest.raises(Unsound):
            opened(data[:end]).verify()


def test_what_was_added_behind_is_found() -> None:
    data, _ = encoded([b"event"])
    with pytest.raises(Unsound, match="end"):
        opened(data + b"\n").verify()


def test_a_long_log_is_read_a_segment_at_a_time() -> None:
    data, _ = encoded([b"x" * 10_000 + b"%d" % number for number in range(200)])
    asked: list[int] = []

    def read(offset: int, length: int) -> bytes:
        asked.append(length)
        return data[offset : offset + length]

    archive = Archive(read, len(data))
    asked.clear()
    assert len(archive.read(150, 3)) == 3
    assert len(asked) == 1


@pytest.mark.parametrize("change", ["payload", "missing", "link"])
def test_a_log_that_is_not_whole_is_not_archived(change: str) -> None:
    log = log_of([b"one", b"two", b"three"])
    if change == "payload":
        log[1] = log[1]._replace(payload=b"tw0")
    elif change == "link":
        log[1] = log[1]._replace(link=bytes(16))
    else:
        del log[1]
    with pytest.raises(BrokenChain) as broken:
        list(Encoder(log, dict))
    assert broken.value.seq == (3 if change == "missing" else 2)
