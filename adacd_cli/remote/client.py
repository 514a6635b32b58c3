"""Requests to a server, with patience and within bounds; used within one event loop.

What may pass (429, 5xx, a broken connection) is tried again with growing pauses. A server that stayed away
through all of them is asked only once by the next requests, so that many of them fail soon. No message holds
the key.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential, wait_random

from adacd_cli.remote.address import KEY_VARIABLES, Address
from adacd_cli.wire import error_field, headers_for, json_object, one_line, retry_seconds

_Result = TypeVar("_Result")

ATTEMPTS = 6
"""How often a request is made before it counts as failed; with the pauses about 15 seconds."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds between two attempts: doubled from the first on, and a little more at random."""

PATIENCE = 60.0
"""The longest Retry-After, in seconds, that is waited for."""

CONNECT_SECONDS, SILENT_SECONDS = 10.0, 300.0
"""How long a connection may take, and how long a server may say nothing: it may have a queue."""

LOOKING_SECONDS = 5.0
"""How long it may say nothing when it is asked what it is."""

_LARGEST_LINE = 64_000_000
"""Bytes of a response, or of a line of a stream, that are read: a whole vocabulary takes some 20 MB."""

_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))


class ServerRefused(Exception):
    """The server read the request and does not take it, or said something that cannot be read.

    Attributes:
        reason: what happened, as the end of a sentence without its full stop.
        status: of the response; 0 where none came.
        message: the server's own words.
        hint: what to do about it; empty where nobody knows better than whoever asks.
    """

    def __init__(self, reason: str, status: int = 0, message: str = "", *, hint: str = "") -> None:
        super().__init__(reason)
        self.reason, self.status, self.message, self.hint = reason, status, message, hint


class ServerGone(ServerRefused):
    """What may be over at the next attempt: no connection, one that broke, or a server that is busy."""

    def __init__(self, reason: str, status: int = 0, message: str = "", wait: float = 0.0) -> None:
        super().__init__(reason, status, message)
        self.wait = wait


class Client:
    """A server's routes.

    Args:
        address: where it is.
        key: sent as a bearer token; None sends none.

    Attributes:
        attempts: how often a request that may succeed later is made.

    Raises:
        UsageError: the key cannot be sent.
    """

    def __init__(self, address: Address, key: str | None, attempts: int = ATTEMPTS) -> None:
        self.address, self.attempts = address, attempts
        self._key, self._headers = key, headers_for(key, whose="model", variable=KEY_VARIABLES[0])
        self._stays_away = False
        # one for each request under way: their number is the decoder's to bound
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60)
        timeout = httpx.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS, pool=None)
        self._http = httpx.AsyncClient(headers=self._headers, limits=limits, timeout=timeout)

    async def close(self) -> None:
        """Closes all connections."""
        await self._http.aclose()

    async def get(self, url: str) -> dict[str, Any]:
        """The JSON object at an address.

        Raises:
            ServerRefused: there is none, or nothing answers.
        """
        return await self._request("GET", url, b"", LOOKING_SECONDS)

    async def post(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that a request is answered with.

        Raises:
            ServerRefused: it was refused, or nothing answers any more.
        """
        return await self._request("POST", url, json.dumps(body).encode("ascii"))

    @asynccontextmanager
    async def stream(self, url: str, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The JSON objects of a stream of server-sent events, as they come.

        Raises:
            ServerRefused: it was refused, or an event is an error.
            ServerGone: nothing answers any more, or the stream broke off.
        """
        content = json.dumps(body).encode("ascii")
        response = await self._patiently(lambda: self._open(url, content))
        try:
            async with aclosing(self._events(response)) as events:
                yield events
        finally:
            await response.aclose()

    async def _request(
        self, method: str, url: str, content: bytes, silent: float = SILENT_SECONDS
    ) -> dict[str, Any]:
        return await self._patiently(lambda: self._once(method, url, content, silent))

    async def _patiently(self, once: Callable[[], Awaitable[_Result]]) -> _Result:
        attempts = 1 if self._stays_away else self.attempts
        pauses = wait_exponential(FIRST_PAUSE, LONGEST_PAUSE) + wait_random(0, FIRST_PAUSE / 4)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(ServerGone),
            stop=lambda state: state.attempt_number >= attempts or _asked_to_wait(state) > PATIENCE,
            wait=lambda state: max(_asked_to_wait(state), pauses(state)),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    result = await once()
                    self._stays_away = False
                    return result
        except ServerGone as failure:
            self._stays_away = failure.status == 0
            raise
        raise AssertionError("tenacity returns or raises")

    async def _once(self, method: str, url: str, content: bytes, silent: float) -> dict[str, Any]:
        with _named(self):
            timeout = httpx.Timeout(silent, connect=CONNECT_SECONDS, pool=None)
            request = self._http.build_request(method, url, content=content or None, timeout=timeout)
            response = await self._http.send(request, stream=True)
            try:
                body = await _read(response)
            finally:
                await response.aclose()
        answer = json_object(body)
        self._check(response, answer)
        if answer is None:
            start = self.clean(body[:100].decode("utf-8", "replace"))
            raise ServerRefused(f"its response is no JSON object: {start}" if start else "it says nothing")
        return answer

    async def _open(self, url: str, content: bytes) -> httpx.Response:
        with _named(self):
            response = await self._http.send(
                self._http.build_request("POST", url, content=content), stream=True
            )
            if response.status_code != 200:
                try:
                    body = await _read(response)
                finally:
                    await response.aclose()
                self._check(response, json_object(body))
        return response

    async def _events(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
        with _named(self):
            async for line in response.aiter_lines():
                field, colon, value = line.partition(":")
                if not colon or field not in ("data", "error"):
                    continue
                value = value.strip()
                if value == "[DONE]":
                    return
                event = json_object(value.encode("utf-8", "replace"))
                if event is None:
                    raise ServerRefused(f"an event of its stream is no JSON object: {self.clean(value)}")
                if field == "error" or event.get("error"):
                    said = event if field == "data" else {"error": event}
                    raise ServerRefused(self.clean(error_field(said, "message")) or "an error in its stream")
                yield event

    def _check(self, response: httpx.Response, answer: Mapping[str, Any] | None) -> None:
        status = response.status_code
        if status == 200:
            return
        message = self.clean(error_field(answer, "message"))
        said = f"status {status}, {message.rstrip('.')}" if message else f"status {status}"
        if status in _PASSING:
            raise ServerGone(said, status, message, retry_seconds(response.headers.get("retry-after", "")))
        raise ServerRefused(said, status, message)

    def clean(self, text: str) -> str:
        """A server's words as they may be shown: on one line, and without the key."""
        return one_line(text.replace(self._key, "***") if self._key else text)


def _asked_to_wait(state: RetryCallState) -> float:
    failure = None if state.outcome is None else state.outcome.exception()
    return failure.wait if isinstance(failure, ServerGone) else 0.0


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _LARGEST_LINE:
            raise ServerRefused(f"its response is longer than {_LARGEST_LINE:,} bytes")
    return bytes(body)


class _named:
    """Gives httpx's errors our names; none of them holds the request, whose headers have the key in them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, httpx.ConnectTimeout):
            raise ServerGone(f"no connection within {CONNECT_SECONDS:g} s") from None
        if isinstance(error, httpx.TimeoutException):
            raise ServerGone("it said nothing for too long") from None
        if isinstance(error, (httpx.ConnectError, httpx.ProxyError)):
            raise ServerGone(self._client.clean(str(error)) or "there is no connection") from None
        if isinstance(error, httpx.HTTPError):
            what = self._client.clean(str(error)) or type(error).__name__
            raise ServerGone(f"the connection broke: {what}") from None
