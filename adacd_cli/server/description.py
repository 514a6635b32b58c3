"""What the OpenAPI description says of each route: its body, its responses, its errors."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict

from adacd_cli.server.schema import ChatRequest, CompletionRequest


class Problem(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Failure(BaseModel):
    """An error, as OpenAI tells it."""

    error: Problem


class Usage(BaseModel):
    """What an answer took, in tokens."""

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


class ChatChoice(BaseModel):
    """The one choice there is."""

    index: Literal[0]
    message: AnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """A response of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    adacd: Summary


class TextChoice(BaseModel):
    """The one choice there is."""

    index: Literal[0]
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(BaseModel):
    """A response of /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    adacd: Summary


class Card(BaseModel):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    adacd: dict[str, Any]


class Cards(BaseModel):
    """The models."""

    object: Literal["list"]
    data: list[Card]


class Health(BaseModel):
    """Whether requests are answered."""

    status: Literal["ok", "loading", "stopping", "failed"]
    model: str


_ASKED: tuple[type[BaseModel], ...] = (ChatRequest, CompletionRequest)
_REFUSALS = {400: "Refused", 401: "No key, or a wrong one", 403: "Asked under another host name"}
_ANSWER_FAILURES = {
    **_REFUSALS,
    404: "Another model",
    408: "The body did not come",
    413: "The body is too large",
    415: "Not sent as JSON",
    429: "All places are taken",
    500: "The answer failed",
    503: "Loading, stopping or broken",
}


def described(asked: type[BaseModel] | None = None, kind: str = "") -> dict[str, Any]:
    """Keywords for a route.

    Args:
        asked: the model of its body.
        kind: which of the other routes it is.
    """
    if asked is not None:
        model = ChatCompletion if asked is ChatRequest else TextCompletion
        body = {"schema": {"$ref": f"#/components/schemas/{asked.__name__}"}}
        return {
            "response_model": None,
            "responses": {
                200: {"model": model, "description": "The answer", "content": {"text/event-stream": {}}},
                **_failures(_ANSWER_FAILURES),
            },
            "openapi_extra": {"requestBody": {"required": True, "content": {"application/json": body}}},
        }
    kinds: dict[str, dict[int | str, dict[str, Any]]] = {
        "models": {200: {"model": Cards}, **_failures(_REFUSALS)},
        "model": {200: {"model": Card}, **_failures({**_REFUSALS, 404: "Another model"})},
        "health": {200: {"model": Health}, 503: {"model": Health, "description": "Not now"}},
        "metrics": {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_failures(_REFUSALS)},
    }
    return {"response_model": None, "responses": kinds[kind]}


def _failures(kinds: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Failure, "description": text} for status, text in kinds.items()}


def describe(app: FastAPI) -> None:
    """Has the application describe the models of its bodies too, which its routes read by themselves."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = get_openapi(title=app.title, version=app.version, routes=app.routes)
            known = description.setdefault("components", {}).setdefault("schemas", {})
            for model in _ASKED:
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                known.update(schema.pop("$defs", {}))
                known[model.__name__] = schema
            _forget_validation(description)
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _forget_validation(description: dict[str, Any]) -> None:
    """FastAPI's own 422 is a 400 here."""
    for route in description["paths"].values():
        for operation in route.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        description["components"]["schemas"].pop(name, None)
