"""`create_app`: the routes that inform (model, health, metrics, page), the middleware in front of all, and
OpenAPI's description of it."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from typing import Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response

from adacd_cli import __version__
from adacd_cli.config.methods import METHODS
from adacd_cli.profiles.store import applied
from adacd_cli.server import messages_api, ollama_api, responses_api
from adacd_cli.server.errors import HANDLED, ApiError, on_error
from adacd_cli.server.fields import JSON
from adacd_cli.server.middleware import AccessLog, BodyLimit, Guard, Paths
from adacd_cli.server.routes import ERRORS, Responder
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


class ModelCard(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    adacd: JSON


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelCard]


class Health(BaseModel):
    status: Literal["ok", "loading", "stopping", "failed"]
    model: str


def create_app(state: ServerState, worker: Worker) -> FastAPI:
    """The application; its model may still be loading."""
    app = FastAPI(title="adacd", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    for kind in HANDLED:
        app.add_exception_handler(kind, on_error)
    responder = Responder(state, worker)
    responder.add_routes(app)
    for api in (responses_api, messages_api, ollama_api):
        api.add_routes(app, responder)
    _add_info_routes(app, state, worker)
    app.openapi = partial(_described, app, responder.bodies)  # type: ignore[method-assign]
    labels = {path for route in app.routes if "{" not in (path := getattr(route, "path", "{"))}
    # the last one added comes first
    app.add_middleware(BodyLimit, most=state.max_body_bytes, check=worker.check_state)
    app.add_middleware(Guard, key=state.key, local=state.local)
    if state.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(state.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(AccessLog, metrics=worker.metrics, routes=labels, quiet=state.quiet, debug=state.debug)
    app.add_middleware(Paths, routes=labels)
    return app


def _described(app: FastAPI, bodies: dict[type[BaseModel], Literal["validation"]]) -> JSON:
    """The application's description, with the models of the bodies, which the routes read themselves."""
    if app.openapi_schema is None:
        _, schemas = models_json_schema([*bodies.items()], ref_template="#/components/schemas/{model}")
        app.openapi_schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        app.openapi_schema["components"]["schemas"].update(schemas["$defs"])
    return app.openapi_schema


def _add_info_routes(app: FastAPI, state: ServerState, worker: Worker) -> None:
    @app.get("/v1/models", response_model=ModelList, responses=ERRORS)
    async def models() -> JSON:
        """The one model that is served, the server's settings and the available methods."""
        worker.check_state()
        return {"object": "list", "data": [_card(state)]}

    @app.get("/v1/models/{name:path}", response_model=ModelCard, responses=ERRORS)
    async def model(name: str) -> JSON:
        """The model of that id."""
        worker.check_state()
        state.check_model(name)
        return _card(state)

    @app.get("/health", response_model=Health, responses={503: {"model": Health, "description": "Not now"}})
    async def health(response: Response) -> JSON:
        """Whether requests are answered."""
        ready = worker.state == "ready"
        response.status_code = 200 if ready else 503
        return {"status": "ok" if ready else worker.state, "model": state.model_id}

    @app.get("/metrics", response_class=PlainTextResponse, responses=ERRORS)
    async def prometheus() -> Response:
        """Counters in Prometheus' text format."""
        return Response(generate_latest(worker.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page_file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        return page_file(name)


def _card(state: ServerState) -> JSON:
    names = METHODS if state.model is None else state.model.methods
    settings = applied(state.settings, state.model.profile) if state.model else state.settings
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
    """The file of that name (without a path) in the package's folder `page`; raises ApiError, 404, where there is
    none."""
    known = {each.name: each for each in (files("adacd_cli.server") / "page").iterdir()}
    kind = _MEDIA_TYPES.get(name[name.rfind(".") :])  # not those of the machine, which may be others
    if name not in known or kind is None:
        raise ApiError(404, "There is no such file.", code="unknown_route")
    return Response(known[name].read_bytes(), media_type=kind, headers=_PAGE_HEADERS)
