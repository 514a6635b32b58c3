"""The server's metrics, for Prometheus, in a registry of its own.

Labels come from fixed lists, so that no request can make another series.
"""

from __future__ import annotations

from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from adacd_cli.events import Decision, Started, TokenStep

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, with nothing in it
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, buckets=_SECONDS, registry=self.registry)
        self.requests = counter("adacd_requests", "Responses", ["route", "status"])
        self.left = counter("adacd_requests_left", "Clients that left before the end")
        self.seconds = histogram("adacd_request_seconds", "Seconds of a request", ["route"])
        self._first_token = histogram(
            "adacd_first_token_seconds", "Seconds from a request to its first token, waiting included"
        )
        tokens = counter("adacd_tokens", "Tokens of prompts and answers", ["kind"])
        self._prompt, self._generated = tokens.labels("prompt"), tokens.labels("generated")
        decisions = counter("adacd_decisions", "Tokens by what was done with the contrast", ["decision"])
        self._decisions = {decision: decisions.labels(decision.value) for decision in Decision}
        self.queue = gauge("adacd_queue_length", "Requests in the queue")
        self.running = gauge("adacd_running_rows", "Requests that are being decoded")
        self.max_concurrency = gauge("adacd_max_concurrency", "Requests that can be decoded at once")
        self.ready = gauge("adacd_ready", "1 while requests are answered")

    def count_token(self, step: TokenStep) -> None:
        """Counts a token."""
        self._decisions[step.decision].inc()
        self._generated.inc()

    def count_first_token(self, started: Started, seconds: float) -> None:
        """Counts the prompts of a request whose first token has come, after so many seconds."""
        self._prompt.inc(started.unprompted_tokens + started.prompted_tokens)
        self._first_token.observe(seconds)
