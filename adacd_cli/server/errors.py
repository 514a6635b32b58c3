"""Errors of a request in OpenAI's format: a status, a sentence or two, a code and the field they are about. A
message never repeats a text of the user's, since messages end up in logs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from adacd_cli.errors import AdacdError, LogitsError, ModelError, OutOfMemoryError, ServerError, UsageError
from adacd_cli.server.fields import TAGS
from adacd_cli.suggest import nearest


class ApiError(Exception):
    """A request that is refused, or failed: by an HTTP status, what happened and why, and the field `param`. `code`
    is the error's name for programs; None where `param` says enough."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The response, or the last line of a stream that has begun."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the error as the route's clients read it: Ollama's is a text alone, and Anthropic's says that it is
        one; the access log finds it in the scope."""
        scope["adacd_error"], body = self, self.body
        if scope["path"].startswith("/api/"):
            named = self.param is None or f"`{self.param}`" in self.message
            body = {"error": self.message if named else f"{self.message} (`{self.param}`)"}
        elif scope["path"].startswith("/v1/messages"):
            body = {"type": "error", **body}
        await JSONResponse(body, self.status, self.headers)(scope, receive, send)


_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_FAILURES: dict[type[AdacdError], tuple[int, str]] = {
    LogitsError: (500, "logits_not_finite"),
    OutOfMemoryError: (503, "out_of_memory"),
    ModelError: (500, "model_error"),
    ServerError: (502, "model_server_failed"),  # the server that runs the model, behind this one
    AdacdError: (500, "failed"),
}
_LONGEST_NAME = 80  # the name of an unknown field is repeated up to this many characters
_LONGEST_MESSAGE = 500
_LONGEST_NUMBER = 40
_MOST_LISTED = 10_000  # listing more mistakes than these, to report the first, would make other requests wait


def refused(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that cannot be answered as it is."""
    return ApiError(400, message, param=param, code=code)


def no_field(field: str, known: Sequence[str], meant: str | None = None, end: str = "") -> str:
    """That there is no such field (its path), what became of it, and the known name that is meant or most
    similar."""
    near = meant or nearest(field.rpartition(".")[2][:_LONGEST_NAME], known)
    hint = f" Did you mean `{near}`?" if near else ""
    return f"There is no field `{shown(field)}`{end}.{hint}"


def shown(field: str) -> str:
    """A field as a message names it: it may be of any length, and hold control characters."""
    return printable(_shortened(field, _LONGEST_NAME))


def printable(text: str) -> str:
    """A text without control characters."""
    return repr(text)[1:-1]


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def api_error(error: BaseException, param: str | None = None) -> ApiError:
    """Any exception as an error of the API; `param` is the field that a usage error is about."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValidationError):
        return _invalid_body(error)
    if isinstance(error, UsageError):
        # an option of the command line helps no client, and a message may repeat a value of any length
        message = f"{error.message} {'' if '--' in error.hint else error.hint}".strip()
        named = re.match(r"`(\w+)`", message)
        return refused(_shortened(message, _LONGEST_MESSAGE), param or (named[1] if named else None))
    if isinstance(error, AdacdError):
        status, code = next(found for kind, found in _FAILURES.items() if isinstance(error, kind))
        return ApiError(status, error.message, code=code)
    return ApiError(500, f"An unexpected error occurred: {type(error).__name__}.", code="internal_error")


HANDLED = (ApiError, HTTPException, ValidationError)


async def on_error(request: Request, error: Exception) -> Any:
    """FastAPI's handler for all of `HANDLED`; gives the ASGI application that responds."""
    if not isinstance(error, HTTPException):
        return api_error(error).respond
    path, method = (printable(text[:_LONGEST_NAME]) for text in (request.url.path, request.method))
    messages = {
        404: (f"There is no route {path}.", "unknown_route"),
        405: (f"The route {path} does not take {method}.", "method_not_allowed"),
    }
    message, code = messages.get(error.status_code, ("The request cannot be read.", None))
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"
    return ApiError(error.status_code, message, code=code, headers=headers).respond


def _invalid_body(error: ValidationError) -> ApiError:
    """The first thing that is wrong with a body."""
    if error.error_count() > _MOST_LISTED:
        return refused(f"The body has {error.error_count()} errors.")
    first = error.errors(include_url=False)[0]
    kind, location, message = first["type"], first["loc"], first["msg"]
    if kind in ("model_type", "model_attributes_type"):
        message = "should be an object"  # pydantic's own names a class
    field = _shortened(field_path(location), 200)  # it may hold a key of the user's
    if kind == "json_invalid":
        surrogate = " (half of a surrogate pair is not valid text)" if "hex escape" in message else ""
        return refused(f"The body is not JSON: {first['ctx']['error']}{surrogate}.", code="invalid_json")
    if not field:
        return refused("The body is not a JSON object.", code="invalid_json")
    if kind == "missing":
        return refused(f"`{field}` is missing.", field, "missing")
    if kind == "unsupported":
        return refused(f"{message} (`{field}`)" if len(location) > 1 else message, field)
    value = first["input"]
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    number = isinstance(value, (bool, int, float)) and len(shown) <= _LONGEST_NUMBER
    sentence = re.sub("^(Input|List|String) | after validation", "", message)
    return refused(f"`{field}` {sentence}{f'; got {shown}' if number else ''}.", field)


def field_path(location: Sequence[str | int]) -> str:
    """Where an error is, as one would write it: `messages[3].content`."""
    path = ""
    for part in location:
        if part not in (*TAGS, "[key]"):
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path
