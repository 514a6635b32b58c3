"""The routes that tell: the model, the health, the numbers, and the page."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from adacd_cli.config.methods import METHODS
from adacd_cli.server.description import described
from adacd_cli.server.metrics import CONTENT_TYPE, Metrics
from adacd_cli.server.page import page_file
from adacd_cli.server.responses import answer
from adacd_cli.server.served import Served
from adacd_cli.server.worker import Worker


def add_facts(app: FastAPI, served: Served, worker: Worker, metrics: Metrics) -> None:
    """Adds the routes to the application."""

    @app.get("/v1/models", **described(kind="models"))
    async def models() -> Response:
        """The one model that is served, the server's settings and the methods there are."""
        worker.check_state()
        return answer({"object": "list", "data": [_card(served)]})

    @app.get("/v1/models/{name:path}", **described(kind="model"))
    async def model(name: str) -> Response:
        """The model of that id."""
        worker.check_state()
        served.named(name)
        return answer(_card(served))

    @app.head("/health", include_in_schema=False)
    @app.get("/health", **described(kind="health"))
    async def health() -> Response:
        """Whether requests are answered."""
        ready = worker.state == "ready"
        return answer(
            {"status": "ok" if ready else worker.state, "model": served.model_id}, 200 if ready else 503
        )

    @app.get("/metrics", **described(kind="metrics"))
    async def numbers() -> Response:
        """Counters in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page_file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        return page_file(name)


def _card(served: Served) -> dict[str, Any]:
    names = METHODS if served.model is None else served.model.methods
    methods = [{"name": name, "summary": METHODS[name].summary} for name in names]
    settings = served.settings
    told = {"method": settings.method, "gate": settings.gate, **settings.decoding()}
    return {
        "id": served.model_id,
        "object": "model",
        "created": served.created,
        "owned_by": "adacd",
        "adacd": {"settings": told, "methods": methods},
    }
