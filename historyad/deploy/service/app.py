"""The HTTP service: score images or vectors with one model, and a page that shows the verdicts.

====================  ============================================================================
``POST /score``       an image, a form with several files, or vectors as JSON: a verdict on each
``GET /model``        what the model is
``GET /healthz``      200 while the process lives
``GET /readyz``       200 while samples are scored, else 503
``GET /metrics``      Prometheus
``GET /openapi.json`` this table for programs
``GET /``             the page
====================  ============================================================================

No answer depends on a path or a name that a client chooses. Overload is answered 503 with
Retry-After, and every wait has an end; `historyad.deploy.service.server` bounds that for a
connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from starlette.types import Scope

from historyad import __version__
from historyad.config import SMALLEST_RATE, settings
from historyad.deploy.service.answers import HeldAnswer
from historyad.deploy.service.batcher import QueueFullError
from historyad.deploy.service.bodies import content_type, read_files, read_vectors
from historyad.deploy.service.budget import Budget
from historyad.deploy.service.guard import Guard
from historyad.deploy.service.limits import Limits
from historyad.deploy.service.metrics import CountRequests, Metrics
from historyad.deploy.service.schema import REQUEST_BODY, Answer
from historyad.deploy.service.scorer import Scorer
from historyad.errors import InputError
from historyad.model.examples import Examples
from historyad.model.model import Model

_T = TypeVar("_T")
_BEARER = HTTPBearer(auto_error=False)
_PAGE = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_RATE = settings()["false_positive_rate"].metadata
Rate = Annotated[
    float | None,
    Query(
        ge=SMALLEST_RATE,
        le=_RATE["high"],
        description="Share of normal inputs that may be called anomalous, instead of the model's.",
    ),
]
WithMap = Annotated[
    bool,
    Query(
        alias="map",
        description="Add to each image a picture of where it is anomalous, what is against it, and "
        "the normal images that are nearest to it. It takes as long as many scores, so ask for few "
        "images at a time.",
    ),
]


def create_app(
    model: Model, limits: Limits | None = None, examples: Examples | None = None
) -> FastAPI:
    """Return the ASGI application that scores with ``model``, and shows ``examples`` beside."""
    limits = limits or Limits()
    scorer = Scorer(model, limits, examples)
    metrics = Metrics(lambda: scorer.batcher.waiting)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await scorer.warm_up()
            yield
        finally:
            scorer.close()

    app = FastAPI(
        title="historyad",
        version=__version__,
        description="Anomaly scores, p-values and verdicts from a model of normal data.",
        docs_url=None,  # they would load code from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_score(app, scorer, metrics, limits)
    _add_state(app, scorer, metrics, limits)
    _add_page(app)
    _add_errors(app)
    app.add_middleware(Guard, hosts=None if limits.token else limits.allowed_host)
    paths = {route.path for route in app.routes if hasattr(route, "path")}
    app.add_middleware(CountRequests, metrics=metrics, paths=paths, headers=_HEADERS)
    return app


def _add_score(app: FastAPI, scorer: Scorer, metrics: Metrics, limits: Limits) -> None:
    received = Budget(limits.max_received_bytes)
    requests = Budget(limits.max_requests)
    authorised = _authorised(limits)

    async def score(
        request: Request, false_positive_rate: Rate = None, with_map: WithMap = False
    ) -> Response:
        """Score an image, several files of a form, or vectors.

        The status is 422 when no sample could be scored.
        """
        scorer.check_room()  # before the body is read
        end = asyncio.get_running_loop().time() + limits.deadline
        calibration = scorer.calibration(false_positive_rate)
        with contextlib.ExitStack() as until_sent, received.counting() as count:
            if content_type(request) == "application/json":
                vectors = await _by(
                    end, read_vectors(request, limits, count, scorer.model.kind), 408
                )
                with requests.taking(1):
                    results = await _by(end, scorer.score_vectors(vectors, calibration), 503)
            else:
                files = await _by(end, read_files(request, limits, count), 408)
                with requests.taking(1):
                    work = scorer.score_files(files, calibration, until_sent if with_map else None)
                    results = await _by(end, work, 503)
            metrics.count_results(results)
            answer = {
                "threshold": calibration.threshold,
                "false_positive_rate": calibration.false_positive_rate,
                "results": results,
            }
            status = 422 if all("error" in result for result in results) else 200
            return HeldAnswer(json.dumps(answer), status, until_sent.pop_all())

    app.post(
        "/score",
        dependencies=[Depends(authorised)],
        responses={200: {"model": Answer}, 422: {"model": Answer}},
        response_class=JSONResponse,
        openapi_extra=REQUEST_BODY,
    )(score)

    async def score_plainly(request: Request) -> Response:
        await authorised(await _BEARER(request))
        return await score(request)

    app.router.routes.insert(0, _WithoutOptions("/score", score_plainly, methods=["POST"]))


class _WithoutOptions(Route):
    """A route for requests that leave all options as they are: to parse none takes as long."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Leave what has a query to others."""
        return (Match.NONE, {}) if scope.get("query_string") else super().matches(scope)


def _add_state(app: FastAPI, scorer: Scorer, metrics: Metrics, limits: Limits) -> None:
    authorised = Depends(_authorised(limits))

    @app.get("/model", dependencies=[authorised])
    async def describe_model() -> dict[str, Any]:
        """Say what the model was fitted on and how it decides."""
        shown = {
            "max_files": limits.max_files,
            "max_body_bytes": limits.max_body_bytes,
            "max_work_pixels": scorer.max_work_pixels,
        }
        return {**scorer.model.describe(), "limits": shown, "version": __version__}

    @app.get("/metrics", dependencies=[authorised])
    async def show_metrics() -> Response:
        """Return what Prometheus collects."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/healthz")
    async def healthy() -> dict[str, str]:
        """Answer while the process lives."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        """Answer 200 while what is sent will be scored within the deadline."""
        if not scorer.is_ready:
            raise HTTPException(503, "not scoring", {"Retry-After": "1"})
        return {"status": "ready"}


def _add_page(app: FastAPI) -> None:
    for path, name in _PAGE.items():
        file = Path(__file__).with_name(name)
        page = Response(file.read_bytes(), media_type=_MEDIA_TYPES[file.suffix])
        app.get(path, include_in_schema=False)(_returning(page))


def _returning(page: Response) -> Callable[[], Awaitable[Response]]:
    async def show() -> Response:
        return page

    return show


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(QueueFullError)
    async def busy(_: Request, __: Exception) -> Response:
        return JSONResponse({"detail": "busy: try again"}, 503, {"Retry-After": "1"})

    @app.exception_handler(InputError)
    async def wrong_input(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=400)  # which nobody reads


async def _by(end: float, work: Awaitable[_T], status: int) -> _T:
    """Return what ``work`` returns, or raise HTTPException ``status`` at the time ``end``."""
    try:
        async with asyncio.timeout_at(end):
            return await work
    except TimeoutError:
        reason = "the body took too long" if status == 408 else "no time left: try again"
        raise HTTPException(status, reason, {"Retry-After": "1"}) from None


def _authorised(limits: Limits) -> Callable[..., Awaitable[None]]:
    async def check(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    ) -> None:
        given = credentials.credentials if credentials else ""
        # In constant time, so that the time of an answer says nothing about the token.
        if limits.token and not secrets.compare_digest(given.encode(), limits.token.encode()):
            raise HTTPException(401, "give the bearer token", {"WWW-Authenticate": "Bearer"})

    return check
