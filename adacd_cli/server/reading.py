"""A request's body to one of the models of `schema`, or to one clear sentence about what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import anyio.to_thread
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from adacd_cli.server.errors import ApiError, refused, unknown
from adacd_cli.server.fields import place
from adacd_cli.server.schema import ASKED, ChatRequest, CompletionRequest

Asked = TypeVar("Asked", ChatRequest, CompletionRequest)

_SMALL = 32 * 1024
"""Bytes of a body that is read in a moment; larger ones are read beside the event loop."""

_LISTED = 10_000
"""Listing more mistakes than these, to name the first, would keep others waiting."""

_SHOWN = 40
"""A value is repeated in an error only where it is a number or a switch, and no longer than this."""

_TAKES = {
    "string": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
    "model_attributes": "an object",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "above"),
    "less_than": ("lt", "below"),
}


async def read(request: Request, model: type[Asked]) -> Asked:
    """The request's body as the model.

    Raises:
        ApiError: 415 or 400.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    as_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    if not as_json and "origin" in request.headers:
        # a page of another site can send anything but JSON without asking first; it always says its origin
        raise ApiError(
            415, "Send the request as JSON, with the header Content-Type: application/json.", code="not_json"
        )
    body = await request.body()
    if len(body) <= _SMALL:
        return parse(body, model)
    return await anyio.to_thread.run_sync(parse, body, model)


def parse(body: bytes, model: type[Asked]) -> Asked:
    """The model that the JSON says.

    Raises:
        ApiError: 400, about the first thing that is wrong.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _sentence(error, model) from None


def _sentence(error: ValidationError, model: type[BaseModel]) -> ApiError:
    if error.error_count() > _LISTED:
        return refused(f"The body is wrong in {error.error_count()} places.")
    first = error.errors(include_url=False)[0]
    kind, location, context = first["type"], first["loc"], first.get("ctx", {})
    field = place(location)
    if kind == "json_invalid":
        reason = str(context.get("error", "")).strip().rstrip(".")
        if "hex escape" in reason:
            reason += " (a half of a surrogate pair is no text)"
        return refused(f"The body is not JSON: {reason}.", code="invalid_json")
    if kind == "extra_forbidden":
        return _unknown(location, model)
    if not field:
        return refused("The body is not a JSON object.", code="invalid_json")
    if kind == "missing":
        return refused(f"`{field}` is missing.", field, "missing")
    if kind == "refused":
        return refused(f"{context['reason']} (`{field}`)" if len(location) > 1 else context["reason"], field)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return refused(f"`{field}` is {words} {_number(context[name])}{_got(first['input'])}.", field)
    if kind == "literal_error":
        return refused(f"`{field}` is {context['expected']}.", field)
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        words = "at least" if kind == "too_short" else "at most"
        return refused(f"`{field}` holds {words} {bound}.", field)
    if kind == "finite_number":
        return refused(f"`{field}` is a finite number.", field)
    takes = _TAKES.get(kind.rpartition("_")[0])
    if takes is not None:
        return refused(f"`{field}` takes {takes}{_got(first['input'])}.", field)
    return refused(f"`{field}`: {first['msg']}.", field)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _got(value: Any) -> str:
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return f"; got {shown}" if isinstance(value, (bool, int, float)) and len(shown) <= _SHOWN else ""


def _unknown(location: Sequence[str | int], model: type[BaseModel]) -> ApiError:
    for part in location[:-1]:
        model = ASKED.get(str(part), model)
    return unknown(str(location[-1]), place(location), list(model.model_fields))
