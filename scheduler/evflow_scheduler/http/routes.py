"""What a scheduler answers over HTTP.

| Route | Answer |
|---|---|
| `GET /live` | 200 for as long as the loop turns: a loop that stands answers nothing |
| `GET /ready` | 200, or 503 with the reasons, as JSON |
| `GET /metrics` | Prometheus' text format |
| `POST /events/{name}` | the event is published: `evflow_scheduler.http.events` |
"""

from functools import partial
from typing import Protocol

import anyio
import anyio.to_thread
import orjson
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from evflow import clock, config
from evflow.log.link import Link
from evflow_scheduler.http import events
from evflow_scheduler.http.health import Condition, report
from evflow_scheduler.metrics.gauges import Gauges, Measured


class Served(Measured, Protocol):
    """A scheduler, as far as it can be asked over HTTP."""

    @property
    def log_url(self) -> str:
        """Where the log is."""
        ...

    def condition(self) -> Condition:
        """How it is now."""
        ...


def all_routes(scheduler: Served, gauges: Gauges) -> list[BaseRoute]:
    """All routes; further ones are added here."""
    return [*health_routes(scheduler), *metrics_routes(scheduler, gauges), *event_routes(scheduler)]


def health_routes(scheduler: Served) -> list[BaseRoute]:
    """`/live` and `/ready`."""

    async def live(_: Request) -> Response:
        return as_json({"live": True})

    async def ready(_: Request) -> Response:
        told = report(scheduler.condition())
        return as_json(told, 200 if told["ready"] else 503)

    return [Route("/live", live), Route("/ready", ready)]


def metrics_routes(scheduler: Served, gauges: Gauges) -> list[BaseRoute]:
    """`/metrics`: the loop takes the census, a thread makes the text."""
    one_at_a_time = anyio.Lock()

    async def metrics(_: Request) -> Response:
        async with one_at_a_time:
            text = await anyio.to_thread.run_sync(gauges.text, scheduler.census())
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return [Route("/metrics", metrics)]


def event_routes(scheduler: Served) -> list[BaseRoute]:
    """`/events/{name}`: over a connection of its own; a thread reads what is large."""
    access = events.Access(config.get("http_token") or "", config.get("http_secret") or "")
    log = Link(scheduler.log_url)

    async def publish(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > events.MOST_BODY_BYTES:  # no more of it is read, and the answer says so
                break
        read = partial(
            events.read, request.path_params["name"], request.headers, bytes(body), now_s=clock.now_us() / 1e6, access=access
        )  # fmt: skip
        event = read() if len(body) <= events.SMALL_BODY_BYTES else await anyio.to_thread.run_sync(read)
        answer = event if isinstance(event, events.Answer) else await events.publish_in(log, event)
        return as_json(answer.body, answer.status)

    return [Route("/events/{name:path}", publish, methods=["POST"])]


def as_json(value: object, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE), status, media_type="application/json")
