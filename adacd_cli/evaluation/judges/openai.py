"""`openai`: a model behind any OpenAI-compatible endpoint as the judge.

Every answer is put into one of XSTest's three classes, or into none; with `aspects`, Just-Eval's five scores
come with it. What the endpoint said is kept on disk and not asked again. A request that fails leaves its
answer unparsed, and the run goes on; an endpoint that is down, or goes down, ends it by name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adacd_cli.errors import AdacdError, EnvironmentFault, UsageError
from adacd_cli.evaluation.judges.base import Exchange, Judgement
from adacd_cli.evaluation.judges.cache import ReplyCache, reply_key
from adacd_cli.evaluation.judges.openai_prompts import (
    LONGEST_TEXT,
    QUALITY,
    REFUSAL,
    Template,
    label_of,
    read_aspects,
    read_class,
)
from adacd_cli.evaluation.judges.options import JudgeOptions
from adacd_cli.prompts.thinking import without_thinking

if TYPE_CHECKING:  # anyio takes a while to import
    from adacd_cli.evaluation.judges.endpoint import Endpoint, RequestFailed

TRIAL = Exchange("What is two plus two?", "Two plus two is four.")
"""What `check` asks about."""

CHECK_ATTEMPTS = 2
"""How often `check` tries: whoever waits at the start wants to know."""

DOWN_AFTER = 5
"""Requests that fail in a row, each after all its attempts, before the endpoint counts as down."""

_AHEAD = 8
"""Answers under way or waiting for their turn, per request that may run at once."""

_REPLY_SHOWN = 200
"""Characters of an unreadable reply that its judgement shows."""


class OpenAIJudge:
    """A model behind an endpoint.

    `Judgement.detail` has `class` (full compliance, full refusal, partial refusal or invalid) or, where there
    is none, `reply` (the beginning of what could not be read) or `error` (why there is no reply), with
    `failed` where asking again may help; `truncated` where only the first LONGEST_TEXT characters were shown.
    With aspects it has `aspects`: each score, None for N/A; or None as a whole, and `aspects_error` says why.
    An empty answer is degenerate without being asked about.

    Args:
        options: url, model, key, concurrency, timeout, cache and aspects are read.
        name: as `--judge` takes it.

    Attributes:
        warnings: what `check` found that the user should know, one sentence each.

    Raises:
        UsageError: no model is named, or the address or the key cannot be used.
        MissingExtraError: the `openai` package is not installed.
    """

    def __init__(self, options: JudgeOptions, name: str = "openai") -> None:
        model = (options.model or "").strip()
        if not model.isprintable() or not model:
            raise UsageError(
                "The judge `openai` needs the name of a model.",
                "Name it with --judge-model, e.g. gpt-4o-mini.",
            )
        self._name, self._options, self._model = name, options, model
        self._failed_in_a_row = 0
        self.warnings: tuple[str, ...] = ()
        from adacd_cli.evaluation.judges.endpoint import check_options

        check_options(options.url, options.key)

    @property
    def name(self) -> str:
        """As `--judge` takes it."""
        return self._name

    @property
    def model(self) -> str:
        """The model that judges, as the endpoint knows it."""
        return self._model

    @property
    def facts(self) -> Mapping[str, Any]:
        """The endpoint's model decides, and what it is asked for."""
        return {"model": self._model, "aspects": self._options.aspects}

    def check(self) -> None:
        """Asks the endpoint for its models and for one judgement, which is kept like any other.

        So a later check of an endpoint that is up, and does not say that the model is gone, asks for nothing
        that costs anything.

        Raises:
            EnvironmentFault: it cannot be reached, or refuses the key or the model.
            OutputError: what it says cannot be kept.
        """
        from anyio.from_thread import start_blocking_portal

        with ReplyCache(self._options.cache) as cache, start_blocking_portal() as portal:
            portal.call(self._check, cache)

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """One judgement an exchange, in their order, each as soon as it is known.

        Requests go on while the caller works with a judgement. Leaving the iterator early, or Ctrl-C, drops
        those under way; what was answered is kept.

        Raises:
            EnvironmentFault: the endpoint is down, or refuses the key or the model.
            OutputError: what it says cannot be kept.
        """
        from anyio.from_thread import start_blocking_portal

        window = _AHEAD * self._options.concurrency
        asked: dict[Exchange, Future[Judgement]] = {}
        waiting: deque[Future[Judgement]] = deque()
        with (
            ReplyCache(self._options.cache) as cache,
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(self._endpoint()) as endpoint,
        ):
            try:
                for exchange in exchanges:
                    if exchange not in asked:  # what is there twice is asked once
                        desk = _Desk(endpoint, cache)
                        asked[exchange] = portal.start_task_soon(self._judge, desk, exchange)
                    waiting.append(asked[exchange])
                    if len(waiting) >= window:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in asked.values():
                    future.cancel()  # before the endpoint is closed under them

    def _endpoint(self, attempts: int | None = None) -> Endpoint:
        from adacd_cli.evaluation.judges.endpoint import ATTEMPTS, Endpoint

        options = self._options
        return Endpoint(
            options.url,
            self._model,
            options.key,
            concurrency=options.concurrency,
            timeout=options.timeout,
            attempts=attempts or ATTEMPTS,
        )

    async def _check(self, cache: ReplyCache) -> None:
        from adacd_cli.evaluation.judges.endpoint import RequestFailed

        async with self._endpoint(attempts=CHECK_ATTEMPTS) as endpoint:
            try:
                status, names = await endpoint.models()
            except RequestFailed as failure:
                if failure.unreachable:
                    raise self._unusable(endpoint, failure) from failure
                status, names = 0, frozenset()
            # Many endpoints list no models, and are up all the same.
            up = status in (200, 404, 405) and (not names or self._model in names)
            # what another address said of the same model says nothing about this one
            desk = _Desk(endpoint, cache if up else ReplyCache(None), asked_at=endpoint.shown_url)
            try:
                reply = desk.known(REFUSAL, TRIAL) or await desk.ask(REFUSAL, TRIAL)
            except RequestFailed as failure:
                raise self._unusable(endpoint, failure) from failure
            if read_class(reply) is None:
                start = " ".join(reply.split())[:60]
                self.warnings = (
                    f"The judge {self._model} names no class when it is asked for one: {start!r}.",
                )

    async def _judge(self, desk: _Desk, exchange: Exchange) -> Judgement:
        detail: dict[str, Any] = {}
        exchange = Exchange(exchange.prompt, without_thinking(exchange.completion))
        if max(len(exchange.prompt), len(exchange.completion)) > LONGEST_TEXT:
            detail["truncated"] = True
        if exchange.completion.strip():
            reply, error, failed = await self._ask(desk, REFUSAL, exchange)
            if failed:
                detail["failed"] = True
            name = None if reply is None else read_class(reply)
            label = label_of(name)
            if reply is None:
                detail["error"] = error
            elif name is None:
                detail["reply"] = reply[:_REPLY_SHOWN]
            else:
                detail["class"] = name
        else:
            label = "degenerate"  # an empty answer neither refuses nor answers, whoever judges
        if self._options.aspects:
            reply, error, failed = await self._ask(desk, QUALITY, exchange)
            if failed:
                detail["failed"] = True
            detail["aspects"] = None if reply is None else read_aspects(reply)
            if detail["aspects"] is None:
                detail["aspects_error"] = error or "the reply is not the JSON object that was asked for"
        return Judgement(self._name, label, detail)

    async def _ask(self, desk: _Desk, template: Template, exchange: Exchange) -> tuple[str | None, str, bool]:
        """The reply, or None; why there is none; and whether asking again may help."""
        from adacd_cli.evaluation.judges.endpoint import RequestFailed

        known = desk.known(template, exchange)
        if known is not None:
            return known, "", False
        try:
            reply = await desk.ask(template, exchange)
        except RequestFailed as failure:
            if failure.rejected:  # it is up, and reads requests, but not this one
                self._failed_in_a_row = 0
                return None, failure.reason, False
            self._failed_in_a_row += 1
            if failure.unreachable or self._failed_in_a_row >= DOWN_AFTER:
                raise self._unusable(desk.endpoint, failure) from failure
            return None, failure.reason, True
        self._failed_in_a_row = 0
        return reply, "", False

    def _unusable(self, endpoint: Endpoint, failure: RequestFailed) -> AdacdError:
        what = "cannot be reached" if failure.unreachable else "gives no judgement"
        kept = f"what it has said so far is kept in {self._options.cache}" if self._options.cache else ""
        hint = "Start it, or check its address; " + (
            f"{kept}." if kept else "then run the same command again."
        )
        return EnvironmentFault(f"The judge at {endpoint.shown_url} {what}: {failure.reason}.", hint)


@dataclass(frozen=True)
class _Desk:
    """An endpoint and what it said before; with `asked_at` only what was said at that address."""

    endpoint: Endpoint
    cache: ReplyCache
    asked_at: str = ""

    def known(self, template: Template, exchange: Exchange) -> str | None:
        return self.cache.get(self._key(template, exchange))

    async def ask(self, template: Template, exchange: Exchange) -> str:
        reply = await self.endpoint.ask(template.fill(exchange), template.longest_reply)
        if reply.strip():  # nothing said is nothing to keep
            key = self._key(template, exchange)
            self.cache.put(key, reply, model=self.endpoint.model, template=template.version)
        return reply

    def _key(self, template: Template, exchange: Exchange) -> str:
        version = f"{template.version} at {self.asked_at}" if self.asked_at else template.version
        return reply_key(self.endpoint.model, version, exchange.prompt, exchange.completion)
