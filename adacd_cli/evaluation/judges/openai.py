"""`openai`: a model behind any OpenAI-compatible endpoint as the judge.

Every answer is put into one of XSTest's three classes, or into none; with `aspects`, Just-Eval's five scores come
with it. A request that fails leaves its answer unparsed, and the run goes on; an endpoint that is down, or goes
down, ends it with an error that names it. Replies are kept in one SQLite file as they come, so that a rerun asks
nothing twice, and two runs may share it; it holds hashes of the questions and answers, never their texts, and
nothing that failed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli.errors import AdacdError, EnvironmentFault, OutputError, UsageError
from adacd_cli.evaluation.judges.base import Exchange, Judgement, JudgementLabel, JudgeOptions
from adacd_cli.evaluation.judges.openai_prompts import (
    LONGEST_TEXT,
    QUALITY,
    REFUSAL,
    Template,
    label_of,
    read_aspects,
    read_class,
)
from adacd_cli.prompts.templates import without_thinking

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from adacd_cli.evaluation.judges.endpoint import Endpoint, RequestFailed

FILE_NAME = "judge-replies.sqlite3"
_LOCK_SECONDS = 30.0  # how long to wait for another run's write to end


def reply_key(model: str, template: str, prompt: str, completion: str) -> str:
    """The name a reply is kept by: a hash of the judging model, the template's version and the exchange."""
    # as ASCII JSON, which lone surrogates survive and in which no two lists look the same
    return hashlib.sha256(json.dumps([model, template, prompt, completion]).encode("ascii")).hexdigest()


class ReplyCache:
    """Replies by key in a folder, which is made where it is missing; None keeps nothing.

    It may be made in one thread and used in another, by one thread at a time. OutputError where the file cannot be
    made, read or written; also raised by `get` and `put`.
    """

    def __init__(self, folder: Path | None) -> None:
        self._database: sqlite3.Connection | None = None
        if folder is None:
            return
        self._path = folder.expanduser() / FILE_NAME
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                self._path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise self._failed("used", error) from error
        # A reply survives the end of the program without waiting for the disk; a power cut may cost the file,
        # which holds nothing that cannot be asked again. BEGIN: the file can be written, found out now.
        for statement in (
            "PRAGMA synchronous = OFF",
            "CREATE TABLE IF NOT EXISTS judge_replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL, "
            "model TEXT NOT NULL, template TEXT NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
            "BEGIN IMMEDIATE",
            "ROLLBACK",
        ):
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
        if self._database is None:
            return []
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            if verb == "used":
                self._database.close()
            raise self._failed(verb, error) from error

    def _failed(self, verb: str, error: Exception) -> OutputError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return OutputError(
            f"The judge's cache {self._path} cannot be {verb}: {reason.rstrip('.')}.",
            "Name another folder for it, or move that file away.",
        )


TRIAL = Exchange("What is two plus two?", "Two plus two is four.")  # what `check` asks about
CHECK_ATTEMPTS = 2  # whoever waits at the start wants to know
DOWN_AFTER = 5  # requests that fail in a row, each after all its attempts
_AHEAD = 8  # answers under way or waiting for their turn, per request that may run at once
_REPLY_SHOWN = 200  # characters of an unreadable reply that its judgement shows


class OpenAIJudge:
    """A model behind an endpoint; `warnings` are sentences about what `check` found.

    `Judgement.detail` has `class` (full compliance, full refusal, partial refusal or invalid) or, where there
    is none, `reply` (the beginning of what could not be read) or `error` (why there is no reply), with
    `failed` where asking again may help; `truncated` where only the first LONGEST_TEXT characters were shown.
    With aspects it has `aspects`: each score, None for N/A; or None as a whole, and `aspects_error` says why.
    An answer without its thinking is what is judged; an empty one is degenerate and not asked about.

    UsageError where no model is named, or the address or the key cannot be used; MissingExtraError without the
    package `openai`. `check` and `judge` raise EnvironmentFault where the endpoint is down, or refuses the key or
    the model, and OutputError where its replies cannot be kept.
    """

    def __init__(self, options: JudgeOptions, name: str = "openai") -> None:
        from adacd_cli.evaluation.judges.endpoint import check_options

        self.name, self.model, self.options = name, (options.model or "").strip(), options
        if not self.model.isprintable() or not self.model:
            hint = "Name it with --judge-model, e.g. gpt-4o-mini."
            raise UsageError("The judge `openai` needs the name of a model.", hint)
        check_options(options)
        self.failed_in_a_row = 0
        self.facts: Mapping[str, Any] = {"model": self.model, "aspects": options.aspects}
        self.warnings: tuple[str, ...] = ()

    def check(self) -> None:
        """Asks the endpoint for its models and for one judgement, which is kept like any other: a later check of
        one that is up, and does not say that the model is gone, costs nothing."""
        with self._session(CHECK_ATTEMPTS) as (session, portal):
            self.warnings = portal.call(session.check)

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """Requests go on while the caller works with a judgement. Leaving the iterator early, or Ctrl-C, drops
        those under way; what was answered is kept."""
        asked: dict[Exchange, Future[Judgement]] = {}
        waiting: deque[Future[Judgement]] = deque()
        with self._session() as (session, portal):
            try:
                for exchange in exchanges:
                    if exchange not in asked:  # what is there twice is asked once
                        asked[exchange] = portal.start_task_soon(session.judge, exchange)
                    waiting.append(asked[exchange])
                    if len(waiting) >= _AHEAD * self.options.concurrency:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in asked.values():
                    future.cancel()  # before the endpoint is closed under them

    @contextmanager
    def _session(self, attempts: int | None = None) -> Iterator[tuple[_Session, BlockingPortal]]:
        from anyio.from_thread import start_blocking_portal

        from adacd_cli.evaluation.judges.endpoint import Endpoint

        with ReplyCache(self.options.cache) as cache, start_blocking_portal() as portal:
            opening = portal.wrap_async_context_manager(Endpoint(self.options, self.model, attempts))
            with opening as endpoint:
                yield _Session(self, endpoint, cache), portal


@dataclass
class _Session:
    """A judge's open endpoint and cache; its coroutines run in the portal's event loop."""

    owner: OpenAIJudge
    endpoint: Endpoint
    cache: ReplyCache

    async def check(self) -> tuple[str, ...]:
        from adacd_cli.evaluation.judges.endpoint import RequestFailed

        status, names = 0, frozenset[str]()
        try:
            status, names = await self.endpoint.models()
        except RequestFailed as failure:
            if failure.unreachable:
                raise self._unusable(failure) from failure
        # Many endpoints list no models, and are up all the same.
        up = status in (200, 404, 405) and (not names or self.owner.model in names)
        try:
            # a reply from another address says nothing about this one
            reply = await self._reply(REFUSAL, TRIAL, at=f" at {self.endpoint.shown_url}", known=up)
        except RequestFailed as failure:
            raise self._unusable(failure) from failure
        if read_class(reply) is not None:
            return ()
        start = " ".join(reply.split())[:60]
        return (f"The judge {self.owner.model} names no class when it is asked for one: {start!r}.",)

    async def judge(self, given: Exchange) -> Judgement:
        exchange = Exchange(given.prompt, without_thinking(given.completion))
        detail: dict[str, Any] = {}
        if max(len(exchange.prompt), len(exchange.completion)) > LONGEST_TEXT:
            detail["truncated"] = True
        label: JudgementLabel = "degenerate"  # an empty answer neither refuses nor answers, whoever judges
        if exchange.completion.strip():
            reply, error = await self._ask(REFUSAL, exchange, detail)
            name = read_class(reply)
            label = label_of(name)
            if error:
                detail["error"] = error
            else:
                detail |= {"class": name} if name else {"reply": reply[:_REPLY_SHOWN]}
        if self.owner.options.aspects:
            reply, error = await self._ask(QUALITY, exchange, detail)
            detail["aspects"] = read_aspects(reply)
            if detail["aspects"] is None:
                detail["aspects_error"] = error or "the reply is not the JSON object that was asked for"
        return Judgement(self.owner.name, label, detail)

    async def _ask(self, template: Template, exchange: Exchange, detail: dict[str, Any]) -> tuple[str, str]:
        """The reply, or "" and why there is none; `detail` says whether asking again may help."""
        from adacd_cli.evaluation.judges.endpoint import RequestFailed

        try:
            return await self._reply(template, exchange), ""
        except RequestFailed as failure:
            # where it was rejected the endpoint is up, and reads requests, but not this one
            self.owner.failed_in_a_row = 0 if failure.rejected else self.owner.failed_in_a_row + 1
            if failure.unreachable or self.owner.failed_in_a_row >= DOWN_AFTER:
                raise self._unusable(failure) from failure
            detail |= {} if failure.rejected else {"failed": True}
            return "", failure.reason

    async def _reply(
        self, template: Template, exchange: Exchange, *, at: str = "", known: bool = True
    ) -> str:
        """The reply that is kept, if `known` lets it count, or the endpoint's, which is then kept."""
        key = reply_key(self.owner.model, template.version + at, exchange.prompt, exchange.completion)
        kept = self.cache.get(key) if known else None
        if kept is not None:
            return kept
        reply = await self.endpoint.ask(template.fill(exchange), template.longest_reply)
        self.owner.failed_in_a_row = 0
        if reply.strip() and known:  # nothing said is nothing to keep
            self.cache.put(key, reply, model=self.owner.model, template=template.version)
        return reply

    def _unusable(self, failure: RequestFailed) -> AdacdError:
        what = "cannot be reached" if failure.unreachable else "gives no judgement"
        folder = self.owner.options.cache
        kept = f"its replies so far are kept in {folder}" if folder else "then run the same command again"
        message = f"The judge at {self.endpoint.shown_url} {what}: {failure.reason}."
        return EnvironmentFault(message, f"Start it, or check its address; {kept}.")
