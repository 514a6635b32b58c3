"""The server's metrics, for Prometheus, in a registry of its own.

Labels come from fixed lists, so that no request can make another series.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from adacd_cli.events import Decision, Started, TokenStep

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, with nothing in it
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("adacd_requests", "Responses", ["route", "status"], registry=own)
        self.left = Counter("adacd_requests_left", "Clients that left before the end", registry=own)
        self.seconds = Histogram(
            "adacd_request_seconds", "Seconds of a request", ["route"], buckets=_SECONDS, registry=own
        )
        self._first_token = Histogram(
            "adacd_first_token_seconds",
            "Seconds from a request to its first token, waiting included",
            buckets=_SECONDS,
            registry=own,
        )
        tokens = Counter("adacd_tokens", "Tokens of prompts and answers", ["kind"], registry=own)
        self._prompt, self._generated = tokens.labels("prompt"), tokens.labels("generated")
        decisions = Counter(
            "adacd_decisions", "Tokens by what was done with the contrast", ["decision"], registry=own
        )
        self._decisions = {decision: decisions.labels(decision.value) for decision in Decision}
        self.queue = Gauge("adacd_queue_length", "Requests in the queue", registry=own)
        self.running = Gauge("adacd_running_rows", "Requests that are being decoded", registry=own)
        self.max_concurrency = Gauge(
            "adacd_max_concurrency", "Requests that can be decoded at once", registry=own
        )
        self.ready = Gauge("adacd_ready", "1 while requests are answered", registry=own)

    def count_token(self, step: TokenStep) -> None:
        """Counts a token."""
        self._decisions[step.decision].inc()
        self._generated.inc()

    def count_first_token(self, started: Started, seconds: float) -> None:
        """Counts the prompts of a request whose first token has come, after so many seconds."""
        self._prompt.inc(started.unprompted_tokens + started.prompted_tokens)
        self._first_token.observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
