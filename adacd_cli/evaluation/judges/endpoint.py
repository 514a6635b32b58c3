"""One OpenAI-compatible endpoint: a message in, the text of its reply out, with patience and within bounds.

What may pass (429, 5xx, a broken connection, silence) is tried again with growing pauses, and a Retry-After
holds every request back; only so many are under way at once. What is asked, and what a reply means, others
know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import anyio
import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential, wait_random

from adacd_cli.errors import EnvironmentFault
from adacd_cli.evaluation.judges.wire import OPENAI_URL, RequestFailed, headers_for, parse_url, reply_of
from adacd_cli.http_util import error_field, json_object, one_line, retry_seconds

ATTEMPTS = 7
"""How often a request is made before it counts as failed, 429s aside; with the pauses about 40 seconds."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between two attempts: doubled from the first on, and up to the first one more at random."""

PATIENCE = 600.0
"""Seconds for which a request lets itself be put off by 429, and the longest Retry-After that is waited."""

LARGEST_BODY = 4_000_000
"""Bytes of a response that are read."""

_PASSING = frozenset((408, 409, 425, 429))
_REFUSED = {401: "does not accept the key", 403: "does not allow this", 404: "does not know this"}
_LATER = "Run the same command again later: what it has said so far is kept."


class _Passing(RequestFailed):
    """A failure that may be over at the next attempt."""


class _Limited(_Passing):
    """Too many requests for now."""


class Endpoint:
    """An endpoint and a model of it. Made anywhere, used and closed within one event loop.

    Args:
        url: its address; None is OpenAI's own.
        model: the model that is asked.
        key: sent as a bearer token; None sends none.
        concurrency: requests under way at once.
        timeout: seconds one request may take, from connecting to the last byte.
        attempts: how often a request that may succeed later is made, those put off by 429 not counted.

    Attributes:
        shown_url: the address without a password in it, for messages.

    Raises:
        UsageError: the address is no http address, or the key cannot be sent.
    """

    def __init__(
        self,
        url: str | None,
        model: str,
        key: str | None,
        *,
        concurrency: int,
        timeout: float,
        attempts: int,
    ) -> None:
        self.model = model
        self._url = parse_url(url or OPENAI_URL)
        self.shown_url = str(self._url.copy_with(username=None, password=None, query=None)).rstrip("/")
        self._secrets = tuple(filter(None, (key, self._url.password)))
        self._timeout, self._attempts = timeout, attempts
        self._places = anyio.Semaphore(concurrency)
        self._held_until = float("-inf")
        # Parameters by the name they are sent under: some models take them under another, or not at all.
        self._optional = {"temperature": "temperature", "max_tokens": "max_tokens"}
        self._retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Passing),
            wait=wait_exponential(FIRST_PAUSE, LONGEST_PAUSE) + wait_random(0, FIRST_PAUSE),
            reraise=True,
        )
        self._client = httpx.AsyncClient(headers=headers_for(key), timeout=None)  # timed as a whole below

    async def __aenter__(self) -> Endpoint:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self._client.__aexit__(*failure)

    async def ask(self, message: str, longest_reply: int) -> str:
        """The reply to one user message, decoded greedily where the model can; "" where it says nothing.

        Args:
            message: the message.
            longest_reply: tokens the reply may have.

        Raises:
            RequestFailed: this request failed; it was tried again where that could help.
            EnvironmentFault: no request can succeed: the key, the model or the address is wrong, or the
                endpoint puts this one off for longer than PATIENCE.
        """
        values = {"temperature": 0, "max_tokens": longest_reply}
        body: dict[str, Any] = {}

        def content() -> bytes:  # when its turn has come: by then it may be known what the model refuses
            nonlocal body
            body = {"model": self.model, "messages": [{"role": "user", "content": message}]}
            body |= {sent: values[name] for name, sent in self._optional.items()}
            return json.dumps(body).encode("ascii")  # in which half a surrogate pair can be written

        while True:
            status, answer = await self._request("POST", "/chat/completions", content)
            if status == 200:
                return reply_of(answer)
            if not (status == 400 and self._do_without(answer, body)):
                self._give_up(status, answer)

    async def models(self) -> tuple[int, frozenset[str]]:
        """The status of asking which models there are, and their names as far as they can be read.

        Raises:
            RequestFailed, EnvironmentFault: as `ask` does.
        """
        status, answer = await self._request("GET", "/models")
        if status in (401, 403):
            self._give_up(status, answer)
        entries = answer.get("data")
        found = entries if isinstance(entries, list) else []
        names = (entry.get("id") for entry in found if isinstance(entry, dict))
        return status, frozenset(name for name in names if isinstance(name, str))

    async def _request(
        self, method: str, path: str, content: Callable[[], bytes] = bytes
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of the response, once there is one that no further attempt would change."""
        failed = 0

        def stop(state: RetryCallState) -> bool:
            nonlocal failed
            if state.outcome is not None and isinstance(state.outcome.exception(), _Limited):
                return (state.seconds_since_start or 0.0) > PATIENCE
            failed += 1
            return failed >= self._attempts

        try:
            async for attempt in self._retrying.copy(stop=stop):
                with attempt:
                    return await self._exchange(method, path, content)
        except _Limited as failure:
            raise EnvironmentFault(
                f"The judge at {self.shown_url} puts requests off for more than {PATIENCE:g} seconds: "
                f"{failure.reason}.",
                _LATER,
            ) from failure
        raise AssertionError("tenacity returns or raises")

    async def _exchange(
        self, method: str, path: str, content: Callable[[], bytes]
    ) -> tuple[int, dict[str, Any]]:
        """One attempt, when its turn comes and nobody is held back."""
        while True:
            await anyio.sleep(max(0.0, self._held_until - anyio.current_time()))
            async with self._places:
                if anyio.current_time() >= self._held_until:  # it may have changed while waiting for a place
                    return await self._attempt(method, path, content())

    async def _attempt(self, method: str, path: str, content: bytes) -> tuple[int, dict[str, Any]]:
        try:
            with anyio.fail_after(self._timeout):
                status, headers, body = await self._transfer(method, path, content)
        except TimeoutError:
            raise _Passing(f"it did not answer within {self._timeout:g} s") from None
        except (httpx.ConnectError, httpx.ProxyError) as error:
            raise _Passing(self._clean(str(error)) or "there is no connection", unreachable=True) from None
        except httpx.RequestError as error:  # bytes that are no HTTP, or no gzip, among others
            what = self._clean(str(error)) or type(error).__name__
            raise _Passing(f"the connection broke: {what}") from None
        answer = json_object(body)
        if status in _PASSING or status >= 500:
            self._raise_passing(status, retry_seconds(headers.get("retry-after", "")), answer)
        if status == 200 and answer is None:
            start = self._clean(body[:200].decode("utf-8", "replace"))
            raise _Passing(
                f"its response is not a JSON object: {start}" if start else "its response is empty"
            )
        if status == 200 and answer is not None and answer.get("error"):
            raise _Passing(self._said(status, answer))
        return status, answer or {}

    async def _transfer(self, method: str, path: str, content: bytes) -> tuple[int, Mapping[str, str], bytes]:
        url = self._url.copy_with(path=self._url.path.rstrip("/") + path)
        async with self._client.stream(method, url, content=content or None) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise RequestFailed(f"its response is longer than {LARGEST_BODY:,} bytes")
            return response.status_code, response.headers, bytes(body)

    def _raise_passing(self, status: int, wait: float, answer: Mapping[str, Any] | None) -> NoReturn:
        said = self._said(status, answer)
        if status == 429 and "insufficient_quota" in (
            error_field(answer, "code"),
            error_field(answer, "type"),
        ):
            # an account without money is answered with 429 too, and no waiting helps
            raise EnvironmentFault(
                f"The judge at {self.shown_url} says that the quota is used up: {said}.",
                "Use another key, or pay; then run the same command again: what it has said so far is kept.",
            )
        if wait > PATIENCE:
            raise EnvironmentFault(
                f"The judge at {self.shown_url} asks to be left alone for {wait:,.0f} seconds: {said}.",
                _LATER,
            )
        if status == 429 or wait > 0:
            self._held_until = max(self._held_until, anyio.current_time() + wait)
            raise _Limited(said)
        raise _Passing(said)

    def _do_without(self, answer: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
        """Whether a parameter that was refused is now left out, or named as the model wants it."""
        refused = error_field(answer, "param")
        name = next((name for name, sent in self._optional.items() if sent == refused), None)
        if name is None:  # another request may have found it out while this one was under way
            return refused in body and refused not in ("model", "messages")
        if refused == "max_tokens":
            self._optional[name] = "max_completion_tokens"  # what OpenAI's reasoning models call it
        else:
            del self._optional[name]
        return True

    def _give_up(self, status: int, answer: Mapping[str, Any]) -> NoReturn:
        """Raises what a status means that no further attempt would change."""
        said = self._said(status, answer)
        if status not in _REFUSED and not 300 <= status < 400:
            raise RequestFailed(said, rejected=True)
        if status in (401, 403):
            hint = "Put a key that may use it into the environment variable ADACD_JUDGE_KEY."
        elif self._url.path.rstrip("/").endswith("/v1"):
            hint = f"Check the judge's model ({self.model}) and address."
        else:
            hint = f"Check the judge's model ({self.model}) and address, which mostly ends in /v1."
        what = _REFUSED.get(status, "is somewhere else")
        raise EnvironmentFault(f"The judge at {self.shown_url} {what}: {said}.", hint)

    def _said(self, status: int, answer: Mapping[str, Any] | None) -> str:
        """`status 429, Rate limit reached`."""
        message = self._clean(error_field(answer, "message")).rstrip(".")
        return f"status {status}, {message}" if message else f"status {status}"

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return one_line(text)
