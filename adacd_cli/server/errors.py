"""What goes wrong with a request, in the shape of OpenAI's errors: a status, one clear sentence, a code.

Texts of the user's own are never repeated in a message: it may end in a log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adacd_cli.errors import AdacdError, LogitsError, ModelError, OutOfMemoryError, ServerError, UsageError
from adacd_cli.suggest import nearest


class ApiError(Exception):
    """A request that is refused, or failed.

    Args:
        status: the HTTP status, at least 400.
        message: what and why, one sentence or two.
        code: the machine's name of it; None where `param` says enough.
        param: the field that it is about.
        headers: further headers of the response.
    """

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
        return {
            "error": {
                "message": self.message,
                "type": _type(self.status),
                "param": self.param,
                "code": self.code,
            }
        }


_SHOWN = 80
"""A field's name is repeated up to this many characters."""

_LONGEST = 500

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def _type(status: int) -> str:
    return _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def refused(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that cannot be answered as it is."""
    return ApiError(400, message, param=param, code=code)


def unknown(name: str, field: str, known: Sequence[str]) -> ApiError:
    """A field that nobody knows, with the nearest that is known.

    Args:
        name: what it was called.
        field: where it stands, its name included.
        known: the names there are.
    """
    near = nearest(name, known)
    shown = field if len(field) <= _SHOWN else f"{field[:_SHOWN]}…"
    hint = f" Did you mean `{near}`?" if near else ""
    return refused(f"There is no field `{shown}`.{hint}", field[:200], "unknown_field")


def unavailable(message: str, code: str, retry_after: int | None = None) -> ApiError:
    """A server that cannot answer now.

    Args:
        message: why.
        code: the machine's name of it.
        retry_after: seconds after which to ask again; None where that helps nothing.
    """
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return ApiError(503, message, code=code, headers=headers)


def of(error: BaseException, param: str | None = None) -> ApiError:
    """A failure of the project, or any other, as a response.

    Args:
        error: what was raised.
        param: the field that a usage error is about.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UsageError):
        hint = "" if "--" in error.hint else error.hint  # an option of the command line helps no client
        return refused(_short(f"{error.message} {hint}".strip()), param)
    codes = {
        LogitsError: (500, "logits_not_finite"),
        OutOfMemoryError: (503, "out_of_memory"),
        ModelError: (500, "model_error"),
        ServerError: (502, "model_server_failed"),  # that of the model, behind this one
    }
    for kind, (status, code) in codes.items():
        if isinstance(error, kind):
            return ApiError(status, error.message, code=code)
    if isinstance(error, AdacdError):
        return ApiError(500, error.message, code="failed")
    return ApiError(500, f"Something unexpected went wrong: {type(error).__name__}.", code="internal_error")


def _short(message: str) -> str:
    """A message may repeat a value, which may be of any length."""
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
