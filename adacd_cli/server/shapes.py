"""Events to what OpenAI's clients read: the chunks of a stream, or one whole response.

A shape is made for one answer. It hears of its events in their order and knows nothing of HTTP.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, ClassVar

from adacd_cli.events import Finished, FinishReason, Started, TokenStep, to_json
from adacd_cli.server.asked import Wanted
from adacd_cli.server.spelling import Spelling

LEAST_LOGPROB = -9999.0
"""What stands for minus infinity, which JSON cannot say."""

_OPENING = ("method", "settings", "seed", "prompted_tokens", "unprompted_tokens")
_NOT_TOLD = ("event", "request", "elapsed_s", "logprob", "top_logprobs")


class Shape:
    """One answer.

    Args:
        model: the model's id, as clients know it.
        wanted: what was asked for.
        spelling: how tokens are written in lists of log-probabilities, and which are no part of the text.

    Attributes:
        id: the answer's.
        warnings: what is to be known about how its prompts were made.
    """

    prefix: ClassVar[str]
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, model: str, wanted: Wanted, spelling: Spelling) -> None:
        self.id = f"{self.prefix}-{secrets.token_hex(12)}"
        self.wanted, self._spelling = wanted, spelling
        self._head = {"id": self.id, "created": int(time.time()), "model": model}
        self._started: Started | None = None
        self._steps: list[TokenStep] = []
        self.warnings: tuple[str, ...] = ()
        self._thought = 0

    def hear(self, event: Started | TokenStep) -> None:
        """Takes an event in, for what is told at the end."""
        if isinstance(event, Started):
            self._started = event
            return
        self._thought += event.thinking
        if not self.wanted.stream and (self.wanted.trace or self.wanted.top_logprobs is not None):
            self._steps.append(event)

    def first(self, started: Started) -> dict[str, Any] | None:
        """The chunk that opens a stream."""
        return None

    def chunk(self, step: TokenStep) -> dict[str, Any] | None:
        """A token's chunk; None where it tells nothing."""
        tells_probability = self.wanted.top_logprobs is not None and self._spelling.in_text(step.token_id)
        if not (step.text or self.wanted.trace or tells_probability):
            return None
        own = {"adacd": {"step": told(step)}} if self.wanted.trace else {}
        return self._chunk(self._delta(step), self._logprobs([step]), None, own)

    def last(self, finished: Finished, reason: str) -> dict[str, Any]:
        """The chunk that closes the answer."""
        return self._chunk(self._no_delta(), None, reason, {"adacd": self._summary(finished)})

    def usage(self, finished: Finished) -> dict[str, Any]:
        """What the answer took, as a chunk of its own after the last."""
        return {
            **self._head,
            "object": self.chunk_object,
            "choices": [],
            "usage": self._usage(finished),
        }

    def whole(self, finished: Finished, reason: str) -> dict[str, Any]:
        """The whole response."""
        own = self._summary(finished)
        if self.wanted.trace:
            seed = self._started.seed if self._started else None
            own |= {"seed": seed, "trace": [told(step) for step in self._steps]}
        return {
            **self._head,
            "object": self.whole_object,
            "choices": [
                {
                    "index": 0,
                    **self._content(finished),
                    "logprobs": self._logprobs(self._steps),
                    "finish_reason": reason,
                }
            ],
            "usage": self._usage(finished),
            "adacd": own,
        }

    def _chunk(
        self,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None,
        reason: str | None,
        own: dict[str, Any],
    ) -> dict[str, Any]:
        choice = {"index": 0, **delta, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self.wanted.usage else {}
        return {**self._head, "object": self.chunk_object, "choices": [choice], **usage, **own}

    def _opening(self, started: Started) -> dict[str, Any]:
        return {"adacd": {"started": {name: getattr(started, name) for name in _OPENING}}}

    def _summary(self, finished: Finished) -> dict[str, Any]:
        method = self._started.method if self._started else self.wanted.settings.method_label
        warnings = {"warnings": list(self.warnings)} if self.warnings else {}
        return {
            "method": method,
            "added": finished.added,
            "subtracted": finished.subtracted,
            **warnings,
        }

    def _usage(self, finished: Finished) -> dict[str, Any]:
        read = self._started.unprompted_tokens if self._started else 0
        return {
            "prompt_tokens": read,
            "completion_tokens": finished.tokens,
            "total_tokens": read + finished.tokens,
            "completion_tokens_details": {"reasoning_tokens": self._thought},
        }

    def _delta(self, step: TokenStep) -> dict[str, Any]:
        raise NotImplementedError

    def _no_delta(self) -> dict[str, Any]:
        raise NotImplementedError

    def _content(self, finished: Finished) -> dict[str, Any]:
        raise NotImplementedError

    def _logprobs(self, steps: list[TokenStep]) -> dict[str, Any] | None:
        raise NotImplementedError


def told(step: TokenStep) -> dict[str, Any]:
    """A step as a trace tells it."""
    return {name: value for name, value in to_json(step).items() if name not in _NOT_TOLD}


def reason_of(finished: Finished) -> str:
    """OpenAI's finish_reason: an answer whose time ran out ended by its length."""
    return "stop" if finished.finish_reason is FinishReason.STOP else "length"


def floored(logprob: float | None) -> float:
    return LEAST_LOGPROB if logprob is None else max(logprob, LEAST_LOGPROB)
