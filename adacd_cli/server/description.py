"""The OpenAPI description of the routes: their bodies, responses and errors."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from adacd_cli.server.schema import ChatRequest, CompletionRequest


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    error: ErrorDetail


class Completion(BaseModel):
    """An answer in OpenAI's format, and in `adacd` what adacd did; `seed` and `trace` only on request."""

    id: str
    object: Literal["chat.completion", "text_completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any]
    adacd: dict[str, Any]


class ModelCard(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    adacd: dict[str, Any]


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelCard]


class Health(BaseModel):
    status: Literal["ok", "loading", "stopping", "failed"]
    model: str


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorResponse, "description": "The request is refused"},
    "5XX": {"model": ErrorResponse, "description": "The request failed"},
}


def describes(body: type[BaseModel]) -> dict[str, Any]:
    """Keywords of a route that answers a request with such a body."""
    answer = {"model": Completion, "description": "The answer", "content": {"text/event-stream": {}}}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}
    return {
        "response_model": None,
        "responses": {200: answer, **ERRORS},
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


def describe(app: FastAPI) -> None:
    """Adds the models of the bodies, which the routes read themselves, to the application's description."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _, bodies = models_json_schema(
                [(ChatRequest, "validation"), (CompletionRequest, "validation")],
                ref_template="#/components/schemas/{model}",
            )
            description["components"]["schemas"].update(bodies["$defs"])
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
