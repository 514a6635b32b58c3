"""A server's address, and requests to it with retries and bounds on time and size; used within one event loop.

What may pass (429, 5xx, a broken connection) is tried again with growing pauses. While a server stays away each
further request is tried only once, so that many of them fail soon. A request that was accepted and then not
answered is not made again. No message holds the key."""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx

from adacd_cli.backends.server.dialect import ReadTimeout, ServerRefused, ServerUnavailable
from adacd_cli.errors import ConfigurationError
from adacd_cli.http_util import error_field, headers_for, json_object, one_line, retry_seconds

# where the server's key is looked for, in this order; `adacd serve` guards itself with the second one
KEY_VARIABLES = ("ADACD_MODEL_KEY", "ADACD_API_KEY")
ATTEMPTS = 6  # how often a request is made before it counts as failed; with the pauses about 15 seconds
# how long a connection may take, and how often one is tried for that takes longer
CONNECT_SECONDS, CONNECT_ATTEMPTS = 10.0, 2
# seconds between two attempts: doubled from the first on, and a little more at random
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
PATIENCE = 60.0  # the longest Retry-After, in seconds, that is waited for
LOOKING_SECONDS = 15.0  # how long a server may take to describe itself
# how long a response or a stream's first token may take (there may be a queue, and the prompt is read), and how
# long each further token
FIRST_SECONDS, NEXT_SECONDS = 180.0, 60.0
NOTICE_SECONDS = 20.0  # after so long the user is informed that the server is waited for
# bytes of a response, or of a line of a stream, that are read: a whole vocabulary takes some 20 MB
LARGEST = 64_000_000
START_IT = "Start it, or check the address and the port."
_IS_PLAIN = "write http:// in the address if the server has no TLS."
_NO_AUTHORITY = "Name the file of its certificate authority in the environment variable SSL_CERT_FILE."
_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))


@dataclass(frozen=True)
class Address:
    """Where a server is."""

    base: str  # its address up to and including `/v1`, without a slash at the end
    root: str  # the same without `/v1`: what a server has besides OpenAI's routes is there

    @classmethod
    def parse(cls, model: str) -> Address:
        """The address that `--model` gives; `/v1` is added where it names a host alone. ConfigurationError where it
        is no http address, or there is a user or a password in it."""
        try:
            url = httpx.URL(model.strip())
            if not 0 < (url.port or 80) < 2**16:
                url = httpx.URL()
        except (httpx.InvalidURL, UnicodeError, ValueError):
            url = httpx.URL()
        fault, hint = "", "Write it like http://localhost:8000/v1."
        if not url.host:
            fault = "is no http address"
        elif url.userinfo:
            fault = "has a user or a password in it"
            hint = f"Leave it out, and put a key into the environment variable {KEY_VARIABLES[0]}."
        elif url.query or url.fragment:
            fault = "goes on after its path"
        if fault:
            raise ConfigurationError(f"The model's address {fault}: {_without_secrets(model)!r}.", hint)
        path = url.path.rstrip("/")
        for route in ("/chat/completions", "/completions", "/models"):  # which many copy along
            path = path.removesuffix(route)
        root = str(url.copy_with(path=path.removesuffix("/v1").rstrip("/") or "/")).rstrip("/")
        return cls(f"{root}/v1", root)


def _without_secrets(model: str) -> str:
    scheme, slashes, rest = model.strip().partition("//")
    host, slash, path = rest.partition("/")
    return scheme + slashes + host.rpartition("@")[2] + slash + path.partition("?")[0].partition("#")[0]


class Client:
    """A server's routes; raises UsageError where the key cannot be sent. A request that may succeed later is made
    `attempts` times; `notify` is called with a sentence for the user at each that is waited for."""

    def __init__(self, address: Address, key: str | None, attempts: int = ATTEMPTS) -> None:
        self.address, self.attempts = address, attempts
        self._key = key
        self.notify: Callable[[str], None] = lambda notice: None
        self._stays_away = False
        # one for each request under way: the scheduler bounds their number
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60)
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)  # `_within` bounds the rest
        headers = headers_for(key, whose="model", variable=KEY_VARIABLES[0])
        self._http = httpx.AsyncClient(headers=headers, limits=limits, timeout=timeout)
        self.close = self._http.aclose

    async def ask(self, url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object (a list is its `list`) at an address, or in reply to a body that is posted there. Raises
        ServerRefused where there is none, or nothing answers."""
        _, reply = await self._request(url, body)
        found = json_object(b'{"list":' + reply + b"}" if reply.lstrip().startswith(b"[") else reply)
        if found is None:
            start = self._clean(reply[:100].decode("utf-8", "replace"))
            raise ServerRefused(f"its response is no JSON object: {start or 'it is empty'}")
        return found

    async def stream(self, url: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON objects of a stream of server-sent events, as they come; none may take too long, whatever else
        comes to keep the connection alive. ServerRefused where it was refused, or an event is an error;
        ServerUnavailable where nothing answers any more, or the stream broke off."""
        response, _ = await self._request(url, body, whole=False)
        async with aclosing(response), aclosing(self._events(response)) as events:
            seconds = self._first_seconds
            while True:
                async with self._within(seconds, "gave no token for"):
                    event = await anext(events, None)
                if event is None:
                    return
                yield event
                seconds = NEXT_SECONDS

    async def _request(
        self, url: str, body: Mapping[str, Any] | None, *, whole: bool = True
    ) -> tuple[httpx.Response, bytes]:
        """As `_send`, and again where that may succeed later."""
        method, content = ("GET", None) if body is None else ("POST", json.dumps(body).encode("ascii"))
        attempts, pause, number = 1 if self._stays_away else self.attempts, FIRST_PAUSE, 0
        while True:
            number += 1
            seconds = LOOKING_SECONDS if body is None else self._first_seconds
            request = self._http.build_request(method, url, content=content)
            try:
                found = await self._send(request, seconds, whole)
            except ServerUnavailable as failure:
                if number >= min(attempts, failure.worth) or failure.wait > PATIENCE:
                    self._stays_away = failure.status == 0
                    raise
                await asyncio.sleep(max(failure.wait, pause * random.uniform(1.0, 1.25)))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._stays_away = False
                return found

    async def _send(self, request: httpx.Request, limit: float, whole: bool) -> tuple[httpx.Response, bytes]:
        """The response and its body, which is left open and empty where it is not wanted whole."""
        with self._named():
            async with self._within(limit, "gave no answer within"):
                response = await self._http.send(request, stream=True)
                if response.status_code == 200 and not whole:
                    return response, b""
                body = bytearray()
                async with aclosing(response):
                    async for chunk in response.aiter_bytes():
                        body += chunk
                        if len(body) > LARGEST:
                            raise ServerRefused(f"its response is longer than {LARGEST:,} bytes")
        if response.status_code != 200:
            wait = retry_seconds(response.headers.get("retry-after", ""))
            raise self._failure(response.status_code, json_object(bytes(body)), wait)
        return response, bytes(body)

    @property
    def _first_seconds(self) -> float:
        return NEXT_SECONDS if self._stays_away else FIRST_SECONDS

    @asynccontextmanager
    async def _within(self, seconds: float, silence: str) -> AsyncIterator[None]:
        """Ends what takes longer, as a server that `silence` (a sentence's middle) so many seconds."""
        waiting = f"The server has sent nothing for {NOTICE_SECONDS:g} s; waiting up to {seconds:g} s."
        loop = asyncio.get_running_loop()
        notice = loop.call_later(NOTICE_SECONDS, lambda: self.notify(waiting))
        try:
            with anyio.fail_after(seconds):
                yield
        except TimeoutError:
            raise ReadTimeout(f"it {silence} {seconds:g} s") from None
        finally:
            notice.cancel()

    async def _events(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
        with self._named():
            async for line in _lines_of(response):
                field, colon, value = line.partition(":")
                if not colon or field not in ("data", "error"):
                    continue
                value = value.strip()
                if value == "[DONE]":
                    return
                event = json_object(value.encode("utf-8", "replace"))
                if event is None:
                    raise ServerRefused(f"an event of its stream is no JSON object: {self._clean(value)}")
                if field == "error" or event.get("error"):
                    answer = event if field == "data" else {"error": event}
                    code = error_field(answer, "code")  # vLLM reports so that its engine died: 500
                    raise self._failure(int(code) if code.isdigit() else 0, answer)
                yield event

    def _failure(self, status: int, answer: Mapping[str, Any] | None, wait: float = 0.0) -> ServerRefused:
        message = self._clean(error_field(answer, "message"))
        said = f"status {status}" if status else "", message.rstrip(".")
        reason = ", ".join(filter(None, said)) or "an error in its stream"
        if status in _PASSING:
            return ServerUnavailable(reason, status, message, wait=wait)
        return ServerRefused(reason, status, message)

    def _clean(self, text: str) -> str:
        """A server's words as they may be shown: on one line, and without the key."""
        return one_line(text.replace(self._key, "***") if self._key else text)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Gives httpx's errors our names; none of them holds the request, whose headers have the key in them."""
        try:
            yield
        except httpx.ConnectTimeout:
            # a server without TLS waits for the rest of a line
            secure = self.address.base.startswith("https:")
            raise ServerUnavailable(
                f"no connection within {CONNECT_SECONDS:g} s",
                worth=1 if secure else CONNECT_ATTEMPTS,
                hint=f"{START_IT.removesuffix('.')}; {_IS_PLAIN}" if secure else "",
            ) from None
        except httpx.TimeoutException:
            raise ReadTimeout("it sent nothing for too long") from None
        except (httpx.ConnectError, httpx.ProxyError) as error:
            reason = self._clean(str(error)) or "there is no connection"
            tls: BaseException | None = error
            while tls is not None and not isinstance(tls, ssl.SSLError):
                tls = tls.__cause__ or tls.__context__
            if tls is None:
                raise ServerUnavailable(reason) from None
            certificate = isinstance(tls, ssl.SSLCertVerificationError)
            hint = _NO_AUTHORITY if certificate else f"{_IS_PLAIN[0].upper()}{_IS_PLAIN[1:]}"
            raise ServerUnavailable(f"there is no secure connection: {reason}", worth=1, hint=hint) from None
        except httpx.HTTPError as error:
            what = self._clean(str(error)) or type(error).__name__
            raise ServerUnavailable(f"the connection broke: {what}") from None


async def _lines_of(response: httpx.Response) -> AsyncIterator[str]:
    """The lines of a stream; httpx's own are of any length."""
    line = bytearray()
    async for chunk in response.aiter_bytes():
        *ended, rest = re.split(rb"[\r\n]", chunk)
        for piece in ended:
            yield (bytes(line) + piece).decode("utf-8", "replace")
            line.clear()
        line += rest
        if len(line) > LARGEST:
            raise ServerRefused(f"a line of its stream is longer than {LARGEST:,} bytes")
    yield line.decode("utf-8", "replace")
