"""`read_body`: from a request's bytes to the fields of its body."""

from __future__ import annotations

from typing import TypeVar

import anyio.to_thread
from fastapi import Request
from pydantic import BaseModel

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
