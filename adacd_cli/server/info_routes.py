"""The routes that inform: the model, the health, the metrics, and the page with its files."""

from __future__ import annotations

import mimetypes
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from adacd_cli.config.methods import METHODS
from adacd_cli.server.description import HEALTH, METRICS, MODEL, MODELS
from adacd_cli.server.errors import ApiError
from adacd_cli.server.metrics import Metrics
from adacd_cli.server.state import ServerState
from adacd_cli.server.worker import Worker

_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def add_info_routes(app: FastAPI, state: ServerState, worker: Worker, metrics: Metrics) -> None:
    """Adds the routes to the application."""

    @app.get("/v1/models", **MODELS)
    async def models() -> Response:
        """The one model that is served, the server's settings and the available methods."""
        worker.check_state()
        return JSONResponse({"object": "list", "data": [_card(state)]})

    @app.get("/v1/models/{name:path}", **MODEL)
    async def model(name: str) -> Response:
        """The model of that id."""
        worker.check_state()
        state.check_model(name)
        return JSONResponse(_card(state))

    @app.head("/health", include_in_schema=False)
    @app.get("/health", **HEALTH)
    async def health() -> Response:
        """Whether requests are answered."""
        ready = worker.state == "ready"
        status = "ok" if ready else worker.state
        return JSONResponse({"status": status, "model": state.model_id}, 200 if ready else 503)

    @app.get("/metrics", **METRICS)
    async def prometheus() -> Response:
        """Counters in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page_file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        return page_file(name)


def _card(state: ServerState) -> dict[str, Any]:
    names = METHODS if state.model is None else state.model.methods
    settings = state.settings
    return {
        "id": state.model_id,
        "object": "model",
        "created": state.created,
        "owned_by": "adacd",
        "adacd": {
            "settings": {"method": settings.method, "gate": settings.gate, **settings.decoding()},
            "methods": [{"name": name, "summary": METHODS[name].summary} for name in names],
        },
    }


def page_file(name: str) -> Response:
    """A file of the page, from the package's folder `page`.

    Args:
        name: its name in the folder, without a path.

    Raises:
        ApiError: 404.
    """
    folder = files("adacd_cli.server") / "page"
    known = {each.name: each for each in folder.iterdir() if each.is_file()} if folder.is_dir() else {}
    if name not in known or name.startswith((".", "__")):
        raise ApiError(404, "There is no such file.", code="unknown_route")
    suffix = name[name.rfind(".") :]
    kind = _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(known[name].read_bytes(), media_type=kind, headers=_PAGE_HEADERS)
