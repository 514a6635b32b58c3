"""`create_app`: the routes, and what stands in front of them.

The worker is given; whether its model is loaded yet, and where it runs, the routes ask at every request.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from adacd_cli import __version__
from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.server.answering import Answering
from adacd_cli.server.asked import Limits, check_size, conversation_of, make_pair, wanted
from adacd_cli.server.description import describe, described
from adacd_cli.server.errors import ApiError
from adacd_cli.server.guards import BodyGuard, HostGuard, KeyGuard
from adacd_cli.server.log import AccessLog
from adacd_cli.server.metrics import CONTENT_TYPE, Metrics
from adacd_cli.server.page import page_file
from adacd_cli.server.reading import read
from adacd_cli.server.responses import answer, on_error
from adacd_cli.server.schema import ChatRequest, CompletionRequest
from adacd_cli.server.shapes import ChatShape, TextShape
from adacd_cli.server.worker import Worker

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel

ROUTES = (
    "/",
    "/health",
    "/metrics",
    "/openapi.json",
    "/v1/models",
    "/v1/chat/completions",
    "/v1/completions",
)


@dataclass
class Served:
    """What is served, and how.

    Attributes:
        settings: the server's own, which requests change for themselves.
        model_id: the model's name for clients.
        limits: what a request may take.
        key: asked on every route but /health; None for none.
        local: the address, where only this machine is to be answered; None for any host name.
        origins: the web pages that may ask from a browser.
        log_prompts: whether prompts and answers are written to stderr.
        quiet: whether no line a request is written.
        debug: whether tracebacks are written.
        model: the model, once it is loaded.
    """

    settings: Settings
    model_id: str = "demo"
    limits: Limits = field(default_factory=Limits)
    key: str | None = None
    local: str | None = None
    origins: tuple[str, ...] = ()
    log_prompts: bool = False
    quiet: bool = False
    debug: bool = False
    model: LanguageModel | None = None
    longest_token: int = 1
    created: int = field(default_factory=lambda: int(time.time()))

    def take(self, model: LanguageModel) -> None:
        """The model is loaded."""
        self.longest_token = max(map(len, model.tokenizer.get_vocab()), default=1)
        self.model = model


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
    _add_answers(app, served, worker, answering)
    _add_facts(app, served, worker, metrics)
    describe(app)
    # the last one added is asked first
    app.add_middleware(BodyGuard, most=served.limits.body_bytes)
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
        )
    app.add_middleware(AccessLog, metrics=metrics, routes=ROUTES, quiet=served.quiet, debug=served.debug)
    return app


def _add_answers(app: FastAPI, served: Served, worker: Worker, answering: Answering) -> None:
    from adacd_cli.prompts import pair_for, text_pair_for

    def model_for(name: str) -> LanguageModel:
        worker.check()
        if name != served.model_id:
            raise unknown_model(served)
        assert served.model is not None
        return served.model

    def said(question: Any) -> Callable[[str, str], None]:
        def log(number: str, text: str) -> None:
            if served.log_prompts:
                line = json.dumps({"id": number, "prompt": question, "answer": text})
                print(line, file=sys.stderr, flush=True)

        return log

    @app.post("/v1/chat/completions", **described(ChatRequest))
    async def chat(request: Request) -> Response:
        """Answers a conversation."""
        worker.check()
        asked = await read(request, ChatRequest)
        model, limits = model_for(asked.model), served.limits
        want = wanted(asked, served.settings, limits)
        conversation = conversation_of(asked, served.settings.system)
        texts = [message.text for message in asked.messages]
        check_size(model, texts, limits, served.longest_token, "messages")
        shape = ChatShape(served.model_id, want, model.eos_ids)
        return await answering.answer(
            request,
            lambda: make_pair(
                model,
                lambda: pair_for(model.tokenizer, conversation, want.settings),
                want.settings,
                limits,
                "messages",
            ),
            shape,
            said([message.model_dump(include={"role", "content"}) for message in asked.messages]),
        )

    @app.post("/v1/completions", **described(CompletionRequest))
    async def completions(request: Request) -> Response:
        """Goes on with a text."""
        worker.check()
        asked = await read(request, CompletionRequest)
        model, limits = model_for(asked.model), served.limits
        want = wanted(asked, served.settings, limits)
        texts = [asked.prompt] if isinstance(asked.prompt, str) else ["" for _ in asked.prompt]
        check_size(model, texts, limits, served.longest_token, "prompt")
        shape = TextShape(served.model_id, want, model.eos_ids)
        return await answering.answer(
            request,
            lambda: make_pair(
                model,
                lambda: text_pair_for(model.tokenizer, asked.prompt, want.settings),
                want.settings,
                limits,
                "prompt",
            ),
            shape,
            said(asked.prompt),
        )


def _add_facts(app: FastAPI, served: Served, worker: Worker, metrics: Metrics) -> None:
    @app.get("/v1/models", **described(kind="models"))
    async def models() -> Response:
        """The one model that is served, the server's settings and the methods there are."""
        return answer({"object": "list", "data": [_card(served)]})

    @app.get("/v1/models/{name:path}", **described(kind="model"))
    async def model(name: str) -> Response:
        """The model of that id."""
        if name != served.model_id:
            raise unknown_model(served)
        return answer(_card(served))

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

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page_file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        return page_file(name)


def _card(served: Served) -> dict[str, Any]:
    methods = [{"name": each.name, "summary": each.summary} for each in METHODS.values()]
    settings = served.settings
    told = {"method": settings.method, "gate": settings.gate, **settings.decoding()}
    return {
        "id": served.model_id,
        "object": "model",
        "created": served.created,
        "owned_by": "adacd",
        "adacd": {"settings": told, "methods": methods},
    }


def unknown_model(served: Served) -> ApiError:
    """A model that is not the one that is served."""
    return ApiError(
        404,
        f"There is no such model here; `{served.model_id}` is served.",
        param="model",
        code="model_not_found",
    )
