"""The state of the server that every route reads: its settings, its limits and its model; and its metrics, whose
labels come from fixed lists, so that no request can make another series."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import prometheus_client as prometheus

from adacd_cli.config import Settings
from adacd_cli.errors import AdacdError
from adacd_cli.events import Decision
from adacd_cli.server.errors import ApiError, api_error, refused
from adacd_cli.server.openai_format import TokenBytes

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel
    from adacd_cli.engine.grammar import Grammar, Grammars
    from adacd_cli.prompts import Prompts
    from adacd_cli.server.params import Params

_SLACK = 4  # a prompt with so many times more characters than its tokens could have is refused unencoded


@dataclass
class ServerState:
    """What the server was started with, by the flags of `adacd serve`, and its model once it is loaded."""

    settings: Settings
    model_id: str = "demo"
    max_prompt_tokens: int | None = None  # None for what the model's context takes
    max_answer_tokens: int | None = None  # None for any
    max_body_bytes: int = 4 * 2**20
    key: str | None = None
    local: str | None = None  # the address, where other host names are refused; None for any host name
    origins: tuple[str, ...] = ()  # of the web pages that may send requests from a browser
    log_prompts: bool = False
    quiet: bool = False
    debug: bool = False
    model: LanguageModel | None = None
    longest_token: int = 1  # characters of the vocabulary's longest token
    token_bytes: TokenBytes = field(default_factory=lambda: TokenBytes(None, frozenset()))
    grammars: Grammars | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    def set_model(self, model: LanguageModel) -> None:
        from adacd_cli.engine.grammar import Grammars

        self.grammars = Grammars(model)
        self.longest_token = max(map(len, model.tokenizer.get_vocab()), default=1)
        self.token_bytes = TokenBytes(model.tokenizer, model.eos_ids)
        self.model = model

    def check_model(self, name: str | None) -> None:
        """Refuses any model but the one that is served, by a 404; None stands for it too."""
        if name not in (None, self.model_id):
            message = f"This server has no such model; it serves `{self.model_id}`."
            raise ApiError(404, message, param="model", code="model_not_found")

    def check_size(self, texts: Sequence[str], param: str, params: Params) -> None:
        """Refuses by 400, before they are encoded, prompts that are too long whatever their tokens are: texts, each
        at least a token, in the field `param`, and the contrast prompts of the request's own."""
        assert self.model is not None
        most = min(filter(None, (self.max_prompt_tokens, self.model.context_length)), default=None)
        if most is None:
            return
        fields = {param: texts, **{name: [text] for name, text in params.contrast_prompts.items()}}
        for name, parts in fields.items():
            if len(parts) > most or sum(map(len, parts)) > most * self.longest_token * _SLACK:
                raise refused(f"The prompt is longer than {most} tokens.", name, "context_length_exceeded")

    def render(self, render: Callable[[], Prompts], param: str, params: Params) -> Prompts:
        """The prompts that `render` makes; raises ApiError, 400, where there are none or they are too long."""
        try:
            prompts = render()
        except AdacdError as error:
            raise api_error(error, param) from error
        length, most, how = len(prompts.base.ids), self.max_prompt_tokens, ""
        if params.contrast_prompts and prompts.longest > length:
            length, how = prompts.longest, " with its contrast prompt"
        if most is not None and length > most:
            message = f"The prompt is {length} tokens long{how}; this server takes at most {most}."
            raise refused(message, param, "context_length_exceeded")
        return prompts

    def grammar(self, schema: Mapping[str, Any], param: str) -> Grammar:
        """What answers are held to by the schema in the field `param`, in up to some seconds; raises ApiError, 400,
        where they cannot be."""
        assert self.grammars is not None
        try:
            return self.grammars.of_json(schema)
        except AdacdError as error:
            raise refused(f"`{param}` cannot be used. {error.message} {error.hint}".strip(), param) from error

    def warn(self, warnings: Sequence[str]) -> None:
        """Writes what of a request is not used to stderr."""
        for warning in () if self.quiet else warnings:
            print(f"Warning: {warning}", file=sys.stderr, flush=True)

    def log(self, answer_id: str, **values: Any) -> None:
        """Writes a prompt or an answer to stderr where that is wanted, as JSON without control characters."""
        if self.log_prompts:
            print(json.dumps({"id": answer_id, **values}), file=sys.stderr, flush=True)


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The counters of one server, for Prometheus, in a registry of its own."""

    def __init__(self) -> None:
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second, empty series for each counter
        own = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=own)
        counter, gauge = partial(prometheus.Counter, registry=own), partial(prometheus.Gauge, registry=own)
        histogram = partial(prometheus.Histogram, buckets=_SECONDS, registry=own)
        first_token = "Seconds from a request to its first token, waiting included"
        self.registry = own
        self.requests = counter("adacd_requests", "Responses", ["route", "status"])
        self.left = counter("adacd_requests_left", "Clients that left before the end")
        self.seconds = histogram("adacd_request_seconds", "Seconds of a request", ["route"])
        self.first_token = histogram("adacd_first_token_seconds", first_token)
        tokens = counter("adacd_tokens", "Tokens of prompts and answers", ["kind"])
        self.prompt, self.generated = tokens.labels("prompt"), tokens.labels("generated")
        decisions = counter("adacd_decisions", "Tokens by what was done with the contrast", ["decision"])
        self.decisions = {decision: decisions.labels(decision.value) for decision in Decision}
        self.queue = gauge("adacd_queue_length", "Requests in the queue")
        self.running = gauge("adacd_running_rows", "Requests that are being decoded")
        self.max_concurrency = gauge("adacd_max_concurrency", "Requests that can be decoded at once")
        self.ready = gauge("adacd_ready", "1 while requests are answered")
