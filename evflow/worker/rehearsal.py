"""What an attempt does around its body, done once without any effect.

A forked process copies each page of memory that it touches first, which takes longer than what it does there. A process
that waits for its order has time for that: afterwards the real thing takes a third of the time.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress

from evflow.core.codec import encode_report
from evflow.core.events import AttemptSucceeded
from evflow.core.ids import Digest
from evflow.flow.execution import collect, instantiate
from evflow.flow.flowspec import FlowSpec
from evflow.flow.steps import facts
from evflow.store.artifacts import ArtifactView, save
from evflow.store.protocol import Buffer, ObjectMissing
from evflow.worker.spec import AttemptOrder, RunContext


class _Nowhere:
    """A store that keeps nothing."""

    url = "nowhere:"

    def put(self, chunks: Iterable[Buffer]) -> Digest:
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        return Digest(digest.digest())

    def get(self, digest: bytes, offset: int = 0, length: int | None = None) -> memoryview:
        raise ObjectMissing(digest, self.where(digest))

    def size(self, digest: bytes) -> int | None:
        return None

    def exists(self, digest: bytes) -> bool:
        return False

    def confirm(self, digest: bytes) -> bool:
        return False

    def digests(self) -> Iterator[Digest]:
        return iter(())

    def where(self, digest: bytes) -> str:
        return f"{self.url}{digest.hex()}"


def rehearse(cls: type[FlowSpec], context: RunContext, parameters: ArtifactView) -> None:
    """Go through an attempt of the flow's first step: order, instance, artifacts, manifest, report."""
    with suppress(Exception):  # whatever is wrong, the attempt meets it again and reports it
        order = AttemptOrder.unpack(AttemptOrder(next(iter(facts(cls).steps)), 0, 0).pack())
        flow = instantiate(cls, order.step, parameters=parameters)
        flow.__dict__["rehearsal"] = [0, 1.0, "text"]
        outcome = collect(flow)
        saved = save(_Nowhere(), outcome.values, parameters)
        report = AttemptSucceeded(0, 0, saved.manifest, "linear", (order.step,), artifacts=saved.artifacts, size_bytes=saved.size_bytes)
        encode_report(report, principal=f"{context.flow}/{context.run}")
