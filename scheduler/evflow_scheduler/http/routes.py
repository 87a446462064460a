"""What a scheduler answers over HTTP.

| Route | Answer |
|---|---|
| `GET /live` | 200 for as long as the loop turns: a loop that stands answers nothing |
| `GET /ready` | 200, or 503 with the reasons, as JSON |
| `GET /metrics` | Prometheus' text format |
"""

from typing import Protocol

import anyio
import anyio.to_thread
import orjson
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from evflow_scheduler.http.health import Condition, report
from evflow_scheduler.metrics.gauges import Gauges, Measured


class Served(Measured, Protocol):
    """A scheduler, as far as it can be asked over HTTP."""

    def condition(self) -> Condition:
        """How it is now."""
        ...


def all_routes(scheduler: Served, gauges: Gauges) -> list[BaseRoute]:
    """All routes; further ones are added here."""
    return [*health_routes(scheduler), *metrics_routes(scheduler, gauges)]


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


def as_json(value: object, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE), status, media_type="application/json")
