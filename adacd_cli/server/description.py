"""The bodies of requests, read and parsed, and the OpenAPI description of the routes with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from adacd_cli.server.errors import ApiError

_SMALL_BODY = 32 * 1024
"""Bytes of a body that is parsed at once; larger ones are parsed beside the event loop."""

Body = TypeVar("Body", bound=BaseModel)


async def read_body(request: Request, model: type[Body]) -> Body:
    """A request's body; pydantic's ValidationError is for the error handler."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    # a page of another site can send anything but JSON without a preflight; it always names its origin
    if "origin" in request.headers and not is_json:
        message = "Send the request as JSON, with the header Content-Type: application/json."
        raise ApiError(415, message, code="not_json")
    body = await request.body()
    if len(body) <= _SMALL_BODY:
        return model.model_validate_json(body)
    return await anyio.to_thread.run_sync(model.model_validate_json, body)


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


def describes(
    body: type[BaseModel], answer: type[BaseModel] | None = None, stream: str = "text/event-stream"
) -> dict[str, Any]:
    """Keywords of a route that answers a request with such a body: with an answer in JSON, or by a stream. Where
    no `answer` is given, both and the errors are in the words of another's format."""
    told: dict[str, Any] = {"description": "The answer", "content": {stream: {}, "application/json": {}}}
    errors = ERRORS
    if answer is None:
        errors = {status: {"description": each["description"]} for status, each in ERRORS.items()}
    else:
        told = {"model": answer, "description": "The answer", "content": {stream: {}}}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}
    return {
        "response_model": None,
        "responses": {200: told, **errors},
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


def describe(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> None:
    """Adds the models of the bodies, which the routes read themselves, to the application's description."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _, schemas = models_json_schema(
                [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
            )
            description["components"]["schemas"].update(schemas["$defs"])
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
