"""Requests to a server, with patience and within bounds; used within one event loop.

What may pass (429, 5xx, a broken connection) is tried again with growing pauses. A server that stayed away
through all of them is asked only once by the next requests, so that many of them fail soon. One that takes a
request and says nothing is not asked the same again. No message holds the key.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from typing import Any, TypeVar

import anyio
import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential, wait_random

from adacd_cli.http_util import error_field, headers_for, json_object, one_line, retry_seconds
from adacd_cli.remote.address import KEY_VARIABLES, Address
from adacd_cli.remote.failures import CONNECT_SECONDS, ServerGone, ServerRefused, ServerSilent, named
from adacd_cli.remote.reading import lines_of, read

_Result = TypeVar("_Result")

ATTEMPTS = 6
"""How often a request is made before it counts as failed; with the pauses about 15 seconds."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds between two attempts: doubled from the first on, and a little more at random."""

PATIENCE = 60.0
"""The longest Retry-After, in seconds, that is waited for."""

LOOKING_SECONDS = 15.0
"""How long a server may take to say what it is."""

FIRST_SECONDS, NEXT_SECONDS = 180.0, 60.0
"""How long a response or a stream's first token may take (there may be a queue, and the prompt is read), and
how long each further token."""

NOTICE_SECONDS = 20.0
"""After so long the user is told that the server is waited for."""

_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))


class Client:
    """A server's routes.

    Args:
        address: where it is.
        key: sent as a bearer token; None sends none.

    Attributes:
        attempts: how often a request that may succeed later is made.
        told: takes, in a sentence, that the server is waited for; called at each request where it is.

    Raises:
        UsageError: the key cannot be sent.
    """

    def __init__(self, address: Address, key: str | None, attempts: int = ATTEMPTS) -> None:
        self.address, self.attempts = address, attempts
        self._key, self._headers = key, headers_for(key, whose="model", variable=KEY_VARIABLES[0])
        self.told: Callable[[str], None] = lambda notice: None
        self._stays_away = False
        # one for each request under way: their number is the decoder's to bound
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60)
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)  # `_within` bounds the rest
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
            async with aclosing(self._events(response)) as events, aclosing(self._in_time(events)) as timely:
                yield timely
        finally:
            await response.aclose()

    async def _request(
        self, method: str, url: str, content: bytes, seconds: float | None = None
    ) -> dict[str, Any]:
        return await self._patiently(lambda: self._once(method, url, content, seconds))

    async def _patiently(self, once: Callable[[], Awaitable[_Result]]) -> _Result:
        attempts = 1 if self._stays_away else self.attempts
        pauses = wait_exponential(FIRST_PAUSE, LONGEST_PAUSE) + wait_random(0, FIRST_PAUSE / 4)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(ServerGone),
            stop=lambda state: (
                state.attempt_number >= min(attempts, _worth(state)) or _asked_to_wait(state) > PATIENCE
            ),
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

    async def _once(self, method: str, url: str, content: bytes, seconds: float | None) -> dict[str, Any]:
        with self._named():
            async with self._within(seconds or self._first_seconds, "gave no answer within"):
                request = self._http.build_request(method, url, content=content or None)
                response = await self._http.send(request, stream=True)
                try:
                    body = await read(response)
                finally:
                    await response.aclose()
        answer = json_object(body)
        self._check(response, answer)
        if answer is None:
            start = self.clean(body[:100].decode("utf-8", "replace"))
            raise ServerRefused(f"its response is no JSON object: {start}" if start else "it says nothing")
        return answer

    async def _open(self, url: str, content: bytes) -> httpx.Response:
        with self._named():
            async with self._within(self._first_seconds, "gave no answer within"):
                request = self._http.build_request("POST", url, content=content)
                response = await self._http.send(request, stream=True)
                if response.status_code != 200:
                    try:
                        body = await read(response)
                    finally:
                        await response.aclose()
                    self._check(response, json_object(body))
        return response

    @property
    def _first_seconds(self) -> float:
        return NEXT_SECONDS if self._stays_away else FIRST_SECONDS

    @asynccontextmanager
    async def _within(self, seconds: float, silence: str) -> AsyncIterator[None]:
        """Ends what takes longer, as a server that `silence` (a sentence's middle) so many seconds."""
        notice = asyncio.get_running_loop().call_later(NOTICE_SECONDS, self._notice, seconds)
        try:
            with anyio.fail_after(seconds):
                yield
        except TimeoutError:
            raise ServerSilent(f"it {silence} {seconds:g} s") from None
        finally:
            notice.cancel()

    def _notice(self, seconds: float) -> None:
        self.told(f"The server has said nothing for {NOTICE_SECONDS:g} s; it is given {seconds:g} s in all.")

    async def _in_time(
        self, events: AsyncGenerator[dict[str, Any], None]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The events, none of which takes too long, whatever else comes to keep the connection alive."""
        seconds = self._first_seconds
        while True:
            async with self._within(seconds, "gave no token for"):
                event = await anext(events, None)
            if event is None:
                return
            yield event
            seconds = NEXT_SECONDS

    async def _events(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
        with self._named():
            async for line in lines_of(response):
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

    def _named(self) -> AbstractContextManager[None]:
        return named(self.clean, secure=self.address.base.startswith("https:"))

    def clean(self, text: str) -> str:
        """A server's words as they may be shown: on one line, and without the key."""
        return one_line(text.replace(self._key, "***") if self._key else text)


def _asked_to_wait(state: RetryCallState) -> float:
    failure = None if state.outcome is None else state.outcome.exception()
    return failure.wait if isinstance(failure, ServerGone) else 0.0


def _worth(state: RetryCallState) -> int:
    failure = None if state.outcome is None else state.outcome.exception()
    return failure.worth if isinstance(failure, ServerGone) else ATTEMPTS
