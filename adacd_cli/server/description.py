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
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """An error in OpenAI's format."""

    error: ErrorDetail


class Usage(BaseModel):
    """Numbers of tokens."""

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
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    index: Literal[0]
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class ChatChoice(_Choice):
    """The only choice."""

    message: AnswerMessage


class TextChoice(_Choice):
    """The only choice."""

    text: str


class _Completion(BaseModel):
    id: str
    created: int
    model: str
    usage: Usage
    adacd: Summary


class ChatCompletion(_Completion):
    """A response of /v1/chat/completions."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextCompletion(_Completion):
    """A response of /v1/completions."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class ModelCard(BaseModel):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    adacd: dict[str, Any]


class ModelList(BaseModel):
    """The models."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(BaseModel):
    """Whether requests are answered."""

    status: Literal["ok", "loading", "stopping", "failed"]
    model: str


def _errors(descriptions: dict[int, str]) -> Responses:
    return {status: {"model": ErrorResponse, "description": text} for status, text in descriptions.items()}


def _route(responses: Responses) -> dict[str, Any]:
    return {"response_model": None, "responses": responses}


_REFUSED = _errors({400: "Refused", 401: "No API key, or a wrong one", 403: "Sent to another host name"})
_UNKNOWN = _errors({404: "Another model"})
_FAILED = _errors(
    {
        408: "The body did not arrive",
        413: "The body is too large",
        415: "Not sent as JSON",
        429: "The queue is full",
        500: "The answer failed",
        502: "The model's server failed",
        503: "Loading, stopping or failed",
    }
)

MODELS = _route({200: {"model": ModelList}, **_REFUSED})
MODEL = _route({200: {"model": ModelCard}, **_REFUSED, **_UNKNOWN})
HEALTH = _route({200: {"model": Health}, 503: {"model": Health, "description": "Not now"}})
METRICS = _route({200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_REFUSED})
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
        **_route({200: answer, **_REFUSED, **_UNKNOWN, **_FAILED}),
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


def describe(app: FastAPI) -> None:
    """Adds the models of the bodies, which the routes read themselves, to the application's description."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = get_openapi(title=app.title, version=app.version, routes=app.routes)
            for operation in (each for route in description["paths"].values() for each in route.values()):
                operation["responses"].pop("422", None)  # FastAPI's own, which is a 400 here
            schemas = description["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            _, bodies = models_json_schema(
                [(ChatRequest, "validation"), (CompletionRequest, "validation")],
                ref_template="#/components/schemas/{model}",
            )
            schemas.update(bodies["$defs"])
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
