"""The OpenAPI description of the routes: their bodies, responses and errors."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import models_json_schema

from adacd_cli.server.schema import ChatRequest, CompletionRequest

Responses = dict[int | str, dict[str, Any]]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    error: ErrorDetail


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Summary(BaseModel):
    """What adacd did; `seed` and `trace` only on request."""

    model_config = ConfigDict(extra="allow")
    method: str
    added: int
    subtracted: int
    seed: int | None = None
    trace: list[dict[str, Any]] | None = None


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    index: Literal[0]
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class ChatChoice(_Choice):
    message: AnswerMessage


class TextChoice(_Choice):
    text: str


class _Completion(BaseModel):
    id: str
    created: int
    model: str
    usage: Usage
    adacd: Summary


class ChatCompletion(_Completion):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextCompletion(_Completion):
    object: Literal["text_completion"]
    choices: list[TextChoice]


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


_ERRORS: Responses = {
    status: {"model": ErrorResponse, "description": text}
    for status, text in {"4XX": "The request is refused", "5XX": "The request failed"}.items()
}


def _route(responses: Responses) -> dict[str, Any]:
    return {"response_model": None, "responses": responses}


MODELS = _route({200: {"model": ModelList}, **_ERRORS})
MODEL = _route({200: {"model": ModelCard}, **_ERRORS})
HEALTH = _route({200: {"model": Health}, 503: {"model": Health, "description": "Not now"}})
METRICS = _route({200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_ERRORS})
"""Keywords of the routes that inform."""


def describes(request: type[BaseModel]) -> dict[str, Any]:
    """Keywords of a route that answers.

    Args:
        request: the model of its body.
    """
    model = ChatCompletion if request is ChatRequest else TextCompletion
    answer: dict[str, Any] = {
        "model": model,
        "description": "The answer",
        "content": {"text/event-stream": {}},
    }
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{request.__name__}"}}}
    return {
        **_route({200: answer, **_ERRORS}),
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
