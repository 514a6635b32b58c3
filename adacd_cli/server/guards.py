"""What stands in front of every route: who may ask (key, host), and how large a body may be.

Plain ASGI, each a function of the next application, so that a body is counted while it is read.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adacd_cli.server.errors import ApiError
from adacd_cli.server.responses import failure

BODY_SECONDS = 60.0
"""How long a body may take to arrive."""

_LOOK_SECONDS = 0.5
"""How often it is seen, meanwhile, whether the server is stopping."""

OPEN = ("/health",)
"""Routes without a key."""


class KeyGuard:
    """Asks for the key, as `Authorization: Bearer KEY`, or by HTTP Basic with the key as password.

    Args:
        app: what is guarded.
        key: the key.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        given = _key_of(Headers(scope=scope).get("authorization", ""))
        # compared whole in the same time, whatever it begins with
        if given is not None and hmac.compare_digest(given, self._key):
            await self._app(scope, receive, send)
            return
        await self._refusal(scope, given)(scope, receive, send)

    def _refusal(self, scope: Scope, given: bytes | None) -> Response:
        message = "The key is wrong." if given is not None else "A key is needed: Authorization: Bearer KEY."
        asks = "Bearer" if scope["path"].startswith("/v1/") else 'Basic realm="adacd", charset="UTF-8"'
        return failure(ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": asks}))


def _key_of(header: str) -> bytes | None:
    scheme, _, value = header.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return value.encode("latin-1")  # as the bytes came
    if scheme.lower() != "basic":
        return None
    try:
        _, colon, password = base64.b64decode(value, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return password if colon else None


class HostGuard:
    """Answers only to this machine's own names.

    A page on another site can have its own name lead here, and then ask as if it were at home.

    Args:
        app: what is guarded.
        host: the address that is listened on.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app, self._known = app, {host.lower(), "localhost", "127.0.0.1", "::1"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _name_of(Headers(scope=scope).get("host", "")) not in self._known:
            refusal = ApiError(
                403,
                "Without a key this server answers to localhost only, and was asked under another name.",
                code="wrong_host",
            )
            await failure(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _name_of(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


class BodyGuard:
    """Refuses a body that is too large, or that does not come.

    Args:
        app: what is guarded.
        most: bytes.
        check: raises where nothing is answered any more; asked now and then while a body is waited for.
    """

    def __init__(self, app: ASGIApp, most: int, check: Callable[[], None]) -> None:
        self._app, self._most, self._check = app, most, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > self._most):
            await failure(self._too_large())(scope, receive, send)
            return
        seen, whole, end = 0, False, time.monotonic() + BODY_SECONDS

        async def counted() -> Message:
            nonlocal seen, whole
            if whole:
                return await receive()
            message = await self._wait(receive, end)
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if seen > self._most:
                    raise self._too_large()
            return message

        await self._app(scope, counted, send)

    async def _wait(self, receive: Receive, end: float) -> Message:
        while True:
            left = max(0.0, end - time.monotonic())
            try:
                return await asyncio.wait_for(receive(), min(left, _LOOK_SECONDS))
            except asyncio.TimeoutError:
                self._check()
                if left == 0:
                    raise ApiError(
                        408,
                        "The body of the request did not come.",
                        code="timeout",
                        headers={"Connection": "close"},
                    ) from None

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"The body is larger than {self._most} bytes.",
            code="body_too_large",
            headers={"Connection": "close"},
        )
