"""Errors as responses, and whatever no route raised itself, in the same shape."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from adacd_cli.server.errors import ApiError, of


def answer(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response of JSON."""
    return Response(to_json(body), status, headers, "application/json")


def failure(error: ApiError) -> Response:
    """The response that tells an error."""
    return answer(error.body, error.status, error.headers)


async def on_error(request: Request, error: Exception) -> Response:
    """For FastAPI: an error of a route, or of no route."""
    if isinstance(error, HTTPException):
        messages = {
            404: f"There is no route {_shown(request.url.path)}.",
            405: f"The route {_shown(request.url.path)} does not take {_shown(request.method)}.",
        }
        codes = {404: "unknown_route", 405: "method_not_allowed"}
        message = messages.get(error.status_code, "The request cannot be read.")
        status = error.status_code
        return failure(ApiError(status, message, code=codes.get(status), headers=dict(error.headers or {})))
    return failure(of(error))


def _shown(text: str) -> str:
    return repr(text[:80])[1:-1]
