"""ASGI middleware in front of every route: who may send requests, how large a body may be, the access log."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import re
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adacd_cli.server.errors import ApiError, api_error, printable
from adacd_cli.server.state import Metrics

BODY_SECONDS = 60.0  # how long a body may take to arrive
_CHECK_SECONDS = 0.5  # how often to check, meanwhile, whether the server is stopping
_DISCARD_SECONDS = 2.0  # how long a body that is too large is read all the same
_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
_CODINGS = ("gzip", "x-gzip", "deflate")
_CLIENT_LEFT = 499
_ROUTE_FOLDERS = ("/page/", "/v1/models/")  # routes with many paths, which share a label


class Paths:
    """Leads other spellings of a path to its route: without `/v1`, with a slash at the end, by HEAD. `routes` are
    the paths that there are; the server itself leaves out the body of an answer to HEAD."""

    def __init__(self, app: ASGIApp, routes: Collection[str]) -> None:
        self._app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].rstrip("/") or "/"
            for other in (f"/v1{path}", path.removeprefix("/v1")):
                if path not in self._routes and (other in self._routes or other.startswith("/v1/models/")):
                    path = other
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "path": path, "method": method}
        await self._app(scope, receive, send)


class Guard:
    """Refuses requests before their body is read.

    With a key, it is required as `Authorization: Bearer KEY`, as `x-api-key` or `api-key`, or by HTTP Basic as the
    password. Without one a `local` server accepts only this machine's own names, so that no web page can have its
    own name lead here. (Starlette's TrustedHostMiddleware answers with a body of its own, and its older versions
    read no IPv6.) A preflight gets here only where no page of another site is allowed.
    """

    def __init__(self, app: ASGIApp, key: str | None, local: str | None) -> None:
        self._app, self._key, self._local = app, key, local
        self._hosts = _LOCAL_NAMES | {(local or "localhost").lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._check(scope) if scope["type"] == "http" else None
        await (refusal.respond if refusal else self._app)(scope, receive, send)

    def _check(self, scope: Scope) -> ApiError | None:
        method, path, headers = scope["method"], scope["path"], Headers(scope=scope)
        if method == "OPTIONS" and "access-control-request-method" in headers:
            only = "only if the server is started with --cors-origin"
            return ApiError(403, f"Pages of other sites may send requests {only}.", code="cors_origin")
        if self._key is not None:
            given = _given_keys(headers)
            matches = [hmac.compare_digest(each, self._key.encode()) for each in given]  # in constant time
            if any(matches) or path == "/health":
                return None
            needed = "An API key is required: send the header Authorization: Bearer KEY."
            message = "The API key is wrong." if given else needed
            for_programs = path.startswith(("/v1/", "/api/"))
            scheme = "Bearer" if for_programs else 'Basic realm="adacd", charset="UTF-8"'
            return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": scheme})
        name = re.fullmatch(r"(?:\[(.*)\]|([^:]*))(?::[0-9]*)?", headers.get("host", "").lower())
        if self._local is None or (name is not None and (name[1] or name[2]) in self._hosts):
            return None
        message = (
            "This server accepts requests to localhost only, and this one names another host. Start it with "
            "--api-key KEY to have it answer under every name."
        )
        return ApiError(403, message, code="wrong_host")


def _given_keys(headers: Headers) -> list[bytes]:
    given = [headers[name].strip() for name in ("x-api-key", "api-key") if headers.get(name)]
    scheme, _, value = headers.get("authorization", "").partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        given.append(value)
    keys = [each.encode("latin-1") for each in given]  # as the bytes came
    if scheme.lower() == "basic":
        with suppress(binascii.Error, ValueError):
            _, colon, password = base64.b64decode(value, validate=True).partition(b":")
            keys += [password] if colon else []
    return keys


class BodyLimit:
    """Refuses a body of more than `most` bytes, or one that does not arrive; unpacks one that is compressed.
    `check` raises where the server answers no more requests; it is called while a body is waited for."""

    def __init__(self, app: ASGIApp, most: int, check: Callable[[], None]) -> None:
        self._app, self._most, self._check = app, most, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_large = _closing(413, f"The body is larger than {self._most} bytes.", "body_too_large")
        headers = Headers(scope=scope)
        length, coding = headers.get("content-length", ""), headers.get("content-encoding", "identity")
        if (coding := coding.lower()) not in ("identity", *_CODINGS):
            message = "The body is compressed in a way that is not supported; use gzip."
            await ApiError(415, message, code="content_encoding").respond(scope, receive, send)
            return
        if length.isdecimal() and (len(length) > 18 or int(length) > self._most):
            if "expect" not in headers:  # else the client sends nothing before it has an answer
                await _discard(receive)
            await too_large.respond(scope, receive, send)
            return
        size, complete, end = 0, False, time.monotonic() + BODY_SECONDS
        any_kind = zlib.MAX_WBITS | 32
        unpacking = zlib.decompressobj(any_kind) if coding in _CODINGS else None

        async def counted() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            message = await self._wait(receive, end)
            if message["type"] == "http.request":
                complete, body = not message.get("more_body", False), message.get("body", b"")
                if unpacking is not None:
                    body = _unpacked(unpacking, body, complete, self._most - size + 1)
                size += len(body)
                if size > self._most:
                    if not complete:
                        await _discard(receive)
                    raise too_large
                return {**message, "body": body}
            return message

        await self._app(scope, counted, send)

    async def _wait(self, receive: Receive, end: float) -> Message:
        while True:
            left = max(0.0, end - time.monotonic())
            try:
                return await asyncio.wait_for(receive(), min(left, _CHECK_SECONDS))
            except asyncio.TimeoutError:
                self._check()
                if left == 0:
                    raise _closing(408, "The body of the request did not arrive.", "timeout") from None


async def _discard(receive: Receive) -> None:
    """Reads what is left of a body for a while: a client that is still sending when the connection is closed may
    never see the answer."""

    async def rest() -> None:
        while (await receive()).get("more_body"):
            pass

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(rest(), _DISCARD_SECONDS)


def _unpacked(unpacking: Any, packed: bytes, last: bool, most: int) -> bytes:
    """The next part of a body as it was before it was compressed, up to so many bytes."""
    try:
        part: bytes = unpacking.decompress(packed, most)
    except zlib.error:
        part, last = b"", True
    if last and not unpacking.eof and len(part) < most:
        message = "The body is not compressed in the way that its header names."
        raise _closing(400, message, "content_encoding")
    return part


def _closing(status: int, message: str, code: str) -> ApiError:
    return ApiError(status, message, code=code, headers={"Connection": "close"})


class AccessLog:
    """Outermost: writes a line for each request to stderr, and counts it; never what it contains. An exception that
    no handler caught becomes a 500 without details, and a traceback with `debug`. `routes` are the paths that have
    a label of their own; all that are no route share the label `other`."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, routes: Collection[str], *, quiet: bool, debug: bool
    ) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes
        self._quiet, self._debug = quiet, debug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except ClientDisconnect:  # while its body was read
            pass
        except Exception as error:
            if self._debug:
                traceback.print_exc()
            if status == 0:
                await api_error(error).respond(scope, receive, noted)
        finally:
            self._note(scope, status or _CLIENT_LEFT, time.perf_counter() - begin)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        folders = (folder.rstrip("/") for folder in _ROUTE_FOLDERS if path.startswith(folder))
        label = path if path in self._routes else next(folders, "other")
        self._metrics.requests.labels(label, str(status)).inc()
        self._metrics.seconds.labels(label).observe(seconds)
        if not self._quiet:
            client, error = scope["client"][0] if scope.get("client") else "-", scope.get("adacd_error")
            about = () if error is None else (error.param and printable(error.param[:100]), error.code)
            why = " ".join(filter(None, about))
            request = f"{client} {printable(scope['method'][:10])} {printable(path[:100])}"
            line = f"{request} {status} {seconds:.2f} s{' · ' if why else ''}{why}"
            print(line, file=sys.stderr, flush=True)
