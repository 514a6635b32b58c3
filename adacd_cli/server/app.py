"""`create_app`: the routes, and what stands in front of them.

The worker is given; whether its model is loaded yet, and where it runs, the routes ask at every request.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from adacd_cli import __version__
from adacd_cli.server.answering import Answering
from adacd_cli.server.answers import add_answers
from adacd_cli.server.description import describe
from adacd_cli.server.errors import ApiError
from adacd_cli.server.facts import add_facts
from adacd_cli.server.guards import BodyGuard, HostGuard, KeyGuard
from adacd_cli.server.log import AccessLog
from adacd_cli.server.metrics import Metrics
from adacd_cli.server.responses import on_error
from adacd_cli.server.served import Served
from adacd_cli.server.worker import Worker

ROUTES = (
    "/",
    "/health",
    "/metrics",
    "/openapi.json",
    "/v1/models",
    "/v1/chat/completions",
    "/v1/completions",
)


def create_app(served: Served, worker: Worker, metrics: Metrics) -> FastAPI:
    """The application.

    Args:
        served: what is served.
        worker: what decodes.
        metrics: what is counted, by the worker too.
    """
    app = FastAPI(title="adacd", version=__version__, docs_url=None, redoc_url=None)
    for kind in (ApiError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, on_error)
    answering = Answering(worker, metrics.left.inc)
    add_answers(app, served, worker, answering)
    add_facts(app, served, worker, metrics)
    describe(app)
    # the last one added is asked first
    app.add_middleware(BodyGuard, most=served.limits.body_bytes, check=worker.check_state)
    if served.key is not None:
        app.add_middleware(KeyGuard, key=served.key)
    elif served.local is not None:
        app.add_middleware(HostGuard, host=served.local)
    if served.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(served.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(AccessLog, metrics=metrics, routes=ROUTES, quiet=served.quiet, debug=served.debug)
    return app
