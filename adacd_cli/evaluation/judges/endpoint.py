"""One OpenAI-compatible endpoint through the `openai` SDK, a message in, the text of its reply out, and the file
that replies are kept in. The SDK retries what may pass (429, 5xx, broken connections, timeouts) and honours
Retry-After. Here 429 gets more patience, parameters that a model refuses are left out, a body that is no chat
completion is asked for again, and each error becomes one of two: this request failed, or none can succeed."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import SplitResult, urlsplit

import anyio

from adacd_cli.errors import EnvironmentFault, MissingExtraError, OutputError, UsageError
from adacd_cli.evaluation.judges import JudgeOptions
from adacd_cli.http_util import error_field, headers_for, json_object, one_line, retry_seconds

if TYPE_CHECKING:
    from openai import APIError, APIStatusError

OPENAI_URL = "https://api.openai.com/v1"

ATTEMPTS = 7  # how often a request is made before it counts as failed, 429s aside; about 25 seconds
PATIENCE = 600.0  # seconds for which a request lets itself be put off by 429; the longest Retry-After
_PAUSE = 0.5  # seconds before a body that cannot be read is asked for again; doubles
_REFUSED = {401: "does not accept the key", 403: "does not allow this", 404: "does not know this"}


class RequestFailed(Exception):
    """One request failed for good, and the next one may not; the reason is the end of a sentence. `unreachable`: no
    connection could be made at all. `rejected`: the endpoint read it and does not take it."""

    def __init__(self, reason: str, *, unreachable: bool = False, rejected: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.unreachable, self.rejected = reason, unreachable, rejected


def parse_url(url: str | None) -> SplitResult:
    """An endpoint's base address, or UsageError; `/chat/completions`, which many copy along, is taken off."""
    try:
        parsed = urlsplit((url or OPENAI_URL).strip())
        valid = parsed.scheme in ("http", "https") and bool(parsed.hostname) and (parsed.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        hint = "Write it like http://localhost:8000/v1."
        raise UsageError(f"The judge's address is no http address: {url!r}.", hint)
    path = parsed.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return parsed._replace(path=path, fragment="")


def check_options(options: JudgeOptions) -> None:
    """Raises what OpenAIJudge does of an address or a key, or because the SDK is missing."""
    from importlib.util import find_spec

    parse_url(options.url)
    headers_for(options.key, whose="judge", variable="ADACD_JUDGE_KEY")
    if find_spec("openai") is None:
        message = "The judge `openai` needs the package openai, which is not installed."
        raise MissingExtraError(message, "pip install 'adacd[judge]'")


class Endpoint:
    """An endpoint and a model of it. Made, used and closed within one event loop. `attempts` is how often a request
    that may succeed later is made, those put off by 429 not counted; `shown_url` is the address without a password
    in it, for messages."""

    def __init__(self, options: JudgeOptions, model: str, attempts: int | None = None) -> None:
        from openai import AsyncOpenAI, Omit

        address = parse_url(options.url)
        self.shown_url = address._replace(netloc=address.netloc.rpartition("@")[2], query="").geturl()
        self._model, self._attempts, self._timeout = model, attempts or ATTEMPTS, options.timeout
        self._secrets = tuple(filter(None, (options.key, address.password)))
        self._slots = anyio.Semaphore(options.concurrency)
        # Parameters that some models take under another name, or not at all, by the name they are sent under.
        self._optional = {"temperature": "temperature", "max_tokens": "max_tokens"}
        self._headers: dict[str, Any] = {} if options.key else {"Authorization": Omit()}
        retrying: Any = {"timeout": options.timeout, "max_retries": self._attempts - 1}
        self._client = AsyncOpenAI(base_url=address.geturl(), api_key=options.key or "none", **retrying)

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self._client.close()

    async def ask(self, message: str, longest_reply: int) -> str:
        """The reply to one user message, greedy where the model can, at most LONGEST_REPLY tokens; "" where it says
        nothing. RequestFailed where this request failed; it was tried again where that could help. EnvironmentFault
        where none can succeed: key, model or address are wrong, or it is put off for longer than PATIENCE."""
        import openai

        values = {"temperature": 0, "max_tokens": longest_reply}
        content = message.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no UTF-8
        messages: Any = [{"role": "user", "content": content}]
        sent: dict[str, Any] = {}
        unread, begin = 0, anyio.current_time()
        while True:
            try:
                async with self._slots:  # by then it may be known what the model refuses
                    sent = {name: values[value] for name, value in self._optional.items()}
                    raw = await self._client.chat.completions.with_raw_response.create(
                        model=self._model, messages=messages, extra_headers=self._headers, **sent
                    )
                return self._reply_of(raw.content)
            except RequestFailed:
                unread += 1
                if unread >= self._attempts:
                    raise
                await anyio.sleep(_PAUSE * 2 ** (unread - 1))
            except openai.RateLimitError as error:
                await self._put_off(error, anyio.current_time() - begin)
            except openai.APIError as error:
                refused = error.param if isinstance(error, openai.BadRequestError) else None
                if not self._do_without(refused, sent):
                    self._give_up(error)

    async def models(self) -> tuple[int, frozenset[str]]:
        """The status of asking which models there are, and their names as far as they can be read; raises as
        `ask`."""
        import openai

        try:
            raw = await self._client.models.with_raw_response.list(extra_headers=self._headers)
        except openai.APIError as error:
            if isinstance(error, openai.APIStatusError) and error.status_code not in (401, 403):
                return error.status_code, frozenset()
            self._give_up(error)
        answer = json_object(raw.content)
        names = [entry.get("id") for entry in (answer or {}).get("data") or [] if isinstance(entry, dict)]
        return 200 if answer is not None else 0, frozenset(name for name in names if isinstance(name, str))

    def _reply_of(self, body: bytes) -> str:
        answer = json_object(body)
        if answer is None:
            start = self._clean(body[:200].decode("utf-8", "replace"))
            what = f"not a JSON object: {start}" if start else "empty"
            raise RequestFailed(f"its response is {what}")
        if answer.get("error"):
            raise RequestFailed(self._told(200, body))
        try:
            content = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise RequestFailed("its response is no chat completion") from None
        if isinstance(content, list):  # in parts, as some servers send it
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        return content if isinstance(content, str) else ""

    async def _put_off(self, error: APIStatusError, waited: float) -> None:
        """Waits before a request that was put off by 429 is made again, beyond what the SDK waits."""
        wait = retry_seconds(error.response.headers.get("retry-after", ""))
        what, hint = "", "Run the same command again later: its replies so far are kept."
        if "insufficient_quota" in (error.code, error.type):
            # an account without money is answered with 429 too, and no waiting helps
            what = "says that the quota is used up"
            hint = "Use another key, or pay; then run the same command again: its replies so far are kept."
        elif wait > PATIENCE:
            what = f"asks to be left alone for {wait:,.0f} seconds"
        elif waited >= PATIENCE:
            what = f"puts requests off for more than {PATIENCE:g} seconds"
        if what:
            told = self._told(error.status_code, error.response.content)
            raise EnvironmentFault(f"The judge at {self.shown_url} {what}: {told}.", hint)
        await anyio.sleep(wait)

    def _do_without(self, refused: str | None, sent: Mapping[str, Any]) -> bool:
        """Whether a parameter that was refused is now left out, or named as the model wants it."""
        if refused in self._optional:
            value = self._optional.pop(refused)
            if refused == "max_tokens":
                self._optional["max_completion_tokens"] = value  # what OpenAI's reasoning models call it
        return refused in sent  # another request may have found it out while this one was under way

    def _give_up(self, error: APIError) -> NoReturn:
        import openai

        if isinstance(error, openai.APITimeoutError):
            raise RequestFailed(f"it did not answer within {self._timeout:g} s") from None
        if not isinstance(error, openai.APIStatusError):
            cause = error.__cause__ or error
            what = self._clean(str(cause)) or type(cause).__name__
            if type(cause).__name__ in ("ConnectError", "ProxyError", "UnsupportedProtocol"):
                raise RequestFailed(what, unreachable=True) from None
            raise RequestFailed(f"the connection broke: {what}") from None
        status, told = error.status_code, self._told(error.status_code, error.response.content)
        if status not in _REFUSED and not 300 <= status < 400:
            passing = status in (408, 409, 425, 429) or status >= 500
            raise RequestFailed(told, rejected=not passing) from None
        mostly = "" if self.shown_url.endswith("/v1") else ", which mostly ends in /v1"
        hint = f"Check the judge's model ({self._model}) and address{mostly}."
        if status in (401, 403):
            hint = "Put a key that may use it into the environment variable ADACD_JUDGE_KEY."
        what = _REFUSED.get(status, "is somewhere else")
        raise EnvironmentFault(f"The judge at {self.shown_url} {what}: {told}.", hint) from None

    def _told(self, status: int, body: bytes) -> str:
        """`status 429, Rate limit reached`."""
        message = self._clean(error_field(json_object(body), "message")).rstrip(".")
        return f"status {status}, {message}" if message else f"status {status}"

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return one_line(text)


FILE_NAME = "judge-replies.sqlite3"
_LOCK_SECONDS = 30.0  # how long to wait for another run's write to end
# A reply survives the end of the program without waiting for the disk; a power cut may cost the file, which holds
# nothing that cannot be asked again. BEGIN: the file can be written, found out now.
_OPENING = (
    "PRAGMA synchronous = OFF",
    "CREATE TABLE IF NOT EXISTS judge_replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL, "
    "model TEXT NOT NULL, template TEXT NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    "BEGIN IMMEDIATE",
    "ROLLBACK",
)


def reply_key(model: str, template: str, prompt: str, completion: str) -> str:
    """The name a reply is kept by: a hash of the judging model, the template's version and the exchange."""
    # as ASCII JSON, which lone surrogates survive and in which no two lists look the same
    return hashlib.sha256(json.dumps([model, template, prompt, completion]).encode("ascii")).hexdigest()


class ReplyCache:
    """Replies by key in a folder, which is made where it is missing; None keeps nothing. It holds hashes of the
    questions and answers, never their texts, and several runs may share it. It may be made in one thread and used
    in another, by one thread at a time. OutputError, also from `get` and `put`, where the file cannot be made, read
    or written."""

    def __init__(self, folder: Path | None) -> None:
        self._path = folder.expanduser() / FILE_NAME if folder else None
        self._database: sqlite3.Connection | None = None
        if self._path is None:
            return
        with self._failing("used"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                self._path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
        for statement in _OPENING:
            self._run("used", statement)

    def get(self, key: str) -> str | None:
        rows = self._run("read", "SELECT reply FROM judge_replies WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def put(self, key: str, reply: str, *, model: str, template: str) -> None:
        """Keeps a reply, at once and for good."""
        readable = reply.encode("utf-8", "replace").decode("utf-8")
        insert = "INSERT OR REPLACE INTO judge_replies (key, reply, model, template) VALUES (?, ?, ?, ?)"
        self._run("written", insert, key, readable, model, template)

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._database is not None:
            self._database.close()

    def _run(self, verb: str, statement: str, *values: str) -> list[Any]:
        with self._failing(verb):
            return self._database.execute(statement, values).fetchall() if self._database else []

    @contextmanager
    def _failing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            what = f"The judge's cache {self._path} cannot be {verb}: {reason.rstrip('.')}."
            raise OutputError(what, "Name another folder for it, or move that file away.") from error
