"""What the service counts and measures, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Metrics:
    """Counters of one service; two services in one process do not share them."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "historyad_requests", "Requests answered.", ["path", "status"], registry=self._registry
        )
        self.samples = Counter(
            "historyad_samples", "Samples by outcome.", ["outcome"], registry=self._registry
        )
        self.seconds = Histogram(
            "historyad_score_seconds", "Duration of POST /score.", registry=self._registry
        )
        queue = Gauge(
            "historyad_queue_samples", "Samples waiting to be scored.", registry=self._registry
        )
        queue.set_function(waiting)

    def count_results(self, results: Sequence[dict[str, Any]]) -> None:
        """Count each result as anomalous, normal or unreadable."""
        for result in results:
            if "error" in result:
                outcome = "unreadable"
            else:
                outcome = "anomalous" if result["is_anomalous"] else "normal"
            self.samples.labels(outcome).inc()

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self._registry)


class CountRequests:
    """ASGI middleware that counts answers by path and status and adds ``headers`` to each.

    An error of ours is answered here, since Starlette would answer it outside of all middleware.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, paths: set[str], headers: dict[str, str]
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths
        self._headers = [(k.lower().encode(), v.encode()) for k, v in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A label for each path that someone may think of would fill the memory.
        path = scope["path"] if scope["path"] in self._paths else "other"
        started, answered = time.monotonic(), False

        async def counting(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                message["headers"] = [*message["headers"], *self._headers]
                self._metrics.requests.labels(path, str(message["status"])).inc()
                if path == "/score":
                    self._metrics.seconds.observe(time.monotonic() - started)
            await send(message)

        try:
            await self._app(scope, receive, counting)
        except Exception:
            if not answered:
                content = {"detail": "an error of the service, which its log describes"}
                answer = JSONResponse(content, 500, {"Connection": "close"})
                await answer(scope, receive, counting)
            raise  # for the log; the server then closes the connection
