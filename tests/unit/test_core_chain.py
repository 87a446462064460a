"""The chain covers every byte before it."""

from hashlib import sha256

from hypothesis import given, strategies as st

from evflow.core import chain

PAYLOADS = st.lists(st.binary(max_size=40), min_size=1, max_size=8)


def test_the_chain_is_sha256_of_the_digest_before_and_the_event() -> None:
    """Anybody can compute it anew."""
    first = sha256(bytes(32) + b"one").digest()
    assert chain.extend(chain.START, b"one") == first
    assert chain.links(chain.START, [b"one", b"two"]) == [first, sha256(first + b"two").digest()]


@given(PAYLOADS, PAYLOADS)
def test_two_logs_with_the_same_end_of_chain_are_the_same_log(ours: list[bytes], theirs: list[bytes]) -> None:
    """Whatever differs, order and borders of events included, shows in the last digest."""
    same = chain.links(chain.START, ours)[-1] == chain.links(chain.START, theirs)[-1]
    # The same bytes divided otherwise are another log: each event passes through a digest of its own.
    assert same == (ours == theirs)


@given(PAYLOADS, st.integers(0, 8))
def test_a_chain_goes_on_from_any_point(payloads: list[bytes], cut: int) -> None:
    """An append needs the last digest only."""
    whole = chain.links(chain.START, payloads)
    before = chain.links(chain.START, payloads[:cut])
    assert [*before, *chain.links(before[-1] if before else chain.START, payloads[cut:])] == whole
