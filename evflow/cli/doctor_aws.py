"""What keeps a scheduler from reading its queues and buckets; imported only where some are configured."""

from collections.abc import Callable
from functools import partial
from typing import Any

from evflow import aws, config
from evflow.core.notifications import bucket_of, by_place, queue_of
from evflow.errors import EvflowError
from evflow.log.diagnose import Finding


def check_sources() -> list[Finding]:
    """Ask for each queue's attributes, and for a name in each bucket; with deadlines of a few seconds. Raises nothing."""
    queues = by_place(tuple(map(queue_of, config.get("event_queues"))))
    buckets = by_place(tuple(map(bucket_of, config.get("event_buckets"))))
    if not queues and not buckets:
        return []
    import anyio

    found = [anyio.run(_checked, "event-queue", url, partial(_look_at_queue, url)) for url in queues]
    return found + [anyio.run(_checked, "event-bucket", place, partial(_look_at_bucket, place)) for place in buckets]


async def _checked(name: str, place: str, look: Callable[[], Any]) -> Finding:
    try:
        return Finding(name, "ok", await look())
    except EvflowError as error:
        return Finding(name, "error", f"{place}: {error.message}", error.hint)


async def _look_at_queue(url: str) -> str:
    region, endpoint = aws.region_of(url) or config.get("aws_region"), config.get("aws_endpoint") or aws.origin_of(url)
    async with aws.client("sqs", region=region, endpoint=endpoint) as sqs:
        with aws.explained(f"look at {url}"):
            answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages", "RedrivePolicy"])
    told = answer.get("Attributes", {})
    left = "goes to its dead-letter queue" if "RedrivePolicy" in told else "is recorded and deleted: it has no dead-letter queue"
    return f"{url}: about {told.get('ApproximateNumberOfMessages', '?')} messages wait; what cannot be read {left}"


async def _look_at_bucket(place: str) -> str:
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    async with aws.client("s3", region=config.get("aws_region"), endpoint=config.get("aws_endpoint")) as s3:
        with aws.explained(f"list {place}"):
            await s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    return f"{place} may be listed"
