"""`create_app`: the routes, and the middleware in front of them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from adacd_cli import __version__
from adacd_cli.server.description import describe
from adacd_cli.server.errors import HANDLED, on_error
from adacd_cli.server.info_routes import add_info_routes
from adacd_cli.server.metrics import Metrics
from adacd_cli.server.middleware import AccessLog, BodyLimit, Guard, host_check, key_check
from adacd_cli.server.routes import add_routes
from adacd_cli.server.state import ServerState
from adacd_cli.server.streaming import Responder
from adacd_cli.server.worker import Worker


def create_app(state: ServerState, worker: Worker, metrics: Metrics) -> FastAPI:
    """The application.

    Args:
        state: what the server was started with; its model may still be loading.
        worker: decodes.
        metrics: the server's, which the worker counts in too.
    """
    app = FastAPI(title="adacd", version=__version__, docs_url=None, redoc_url=None)
    for kind in HANDLED:
        app.add_exception_handler(kind, on_error)
    add_routes(app, state, worker, Responder(worker, metrics.left.inc))
    add_info_routes(app, state, worker, metrics)
    describe(app)
    labels = {path for route in app.routes if "{" not in (path := getattr(route, "path", "{"))}
    # the last one added comes first
    app.add_middleware(BodyLimit, most=state.max_body_bytes, check=worker.check_state)
    if state.key is not None:
        app.add_middleware(Guard, check=key_check(state.key))
    elif state.local is not None:
        app.add_middleware(Guard, check=host_check(state.local))
    if state.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(state.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(AccessLog, metrics=metrics, routes=labels, quiet=state.quiet, debug=state.debug)
    return app
