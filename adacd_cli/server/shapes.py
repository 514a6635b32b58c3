"""Events to what OpenAI's clients read: the chunks of a stream, or one whole response.

A shape is made for one answer. It hears of its events in their order and knows nothing of HTTP.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, ClassVar

from adacd_cli.events import Finished, FinishReason, Started, TokenStep, to_json
from adacd_cli.server.asked import Wanted

LEAST_LOGPROB = -9999.0
"""What stands for minus infinity, which JSON cannot say."""

_NOT_TOLD = ("event", "request", "elapsed_s", "logprob", "top_logprobs")


class Shape:
    """One answer.

    Args:
        model: the model's id, as clients know it.
        wanted: what was asked for.
        ends: token ids that end an answer; they stand in no list of log-probabilities.
    """

    prefix: ClassVar[str]
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, model: str, wanted: Wanted, ends: frozenset[int]) -> None:
        self.id = f"{self.prefix}-{secrets.token_hex(12)}"
        self.wanted, self._ends = wanted, ends
        self._head = {"id": self.id, "created": int(time.time()), "model": model}
        self._started: Started | None = None
        self._steps: list[TokenStep] = []
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
        tells_probability = self.wanted.top_logprobs is not None and step.token_id not in self._ends
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

    def _summary(self, finished: Finished) -> dict[str, Any]:
        method = self._started.method if self._started else self.wanted.settings.method_label
        return {"method": method, "added": finished.added, "subtracted": finished.subtracted}

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


class ChatShape(Shape):
    """An answer of /v1/chat/completions; a model's thinking is its `reasoning_content`."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def first(self, started: Started) -> dict[str, Any]:
        own: dict[str, Any] = {}
        if self.wanted.trace:
            names = ("method", "settings", "seed", "prompted_tokens", "unprompted_tokens")
            own = {"adacd": {"started": {name: getattr(started, name) for name in names}}}
        return self._chunk({"delta": {"role": "assistant", "content": ""}}, None, None, own)

    def _delta(self, step: TokenStep) -> dict[str, Any]:
        return {"delta": {"reasoning_content" if step.thinking else "content": step.text}}

    def _no_delta(self) -> dict[str, Any]:
        return {"delta": {}}

    def _content(self, finished: Finished) -> dict[str, Any]:
        thought = {"reasoning_content": finished.thinking} if finished.thinking else {}
        return {"message": {"role": "assistant", "content": finished.text, "refusal": None, **thought}}

    def _logprobs(self, steps: list[TokenStep]) -> dict[str, Any] | None:
        if self.wanted.top_logprobs is None:
            return None
        content = [
            {
                **_probable(step.token, step.logprob),
                "top_logprobs": [_probable(each.text, each.logprob) for each in step.top_logprobs],
            }
            for step in steps
            if step.token_id not in self._ends
        ]
        return {"content": content, "refusal": None}


class TextShape(Shape):
    """An answer of /v1/completions."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, wanted: Wanted, ends: frozenset[int]) -> None:
        super().__init__(model, wanted, ends)
        self._length = 0  # characters of the tokens told so far

    def first(self, started: Started) -> dict[str, Any] | None:
        if not self.wanted.trace:
            return None
        names = ("method", "settings", "seed", "prompted_tokens", "unprompted_tokens")
        own = {"adacd": {"started": {name: getattr(started, name) for name in names}}}
        return self._chunk({"text": ""}, None, None, own)

    def _delta(self, step: TokenStep) -> dict[str, Any]:
        return {"text": step.text}

    def _no_delta(self) -> dict[str, Any]:
        return {"text": ""}

    def _content(self, finished: Finished) -> dict[str, Any]:
        return {"text": finished.text}

    def _logprobs(self, steps: list[TokenStep]) -> dict[str, Any] | None:
        if self.wanted.top_logprobs is None:
            return None
        kept = [step for step in steps if step.token_id not in self._ends]
        offsets = []
        for step in kept:
            offsets.append(self._length)
            self._length += len(step.token)
        return {
            "tokens": [step.token for step in kept],
            "token_logprobs": [_floored(step.logprob) for step in kept],
            "top_logprobs": [_by_text(step) for step in kept],
            "text_offset": offsets,
        }


def told(step: TokenStep) -> dict[str, Any]:
    """A step as a trace tells it."""
    return {name: value for name, value in to_json(step).items() if name not in _NOT_TOLD}


def reason_of(finished: Finished) -> str:
    """OpenAI's finish_reason: an answer whose time ran out ended by its length."""
    return "stop" if finished.finish_reason is FinishReason.STOP else "length"


def _probable(text: str, logprob: float | None) -> dict[str, Any]:
    # half a character of UTF-8 is shown as a sign that stands for other bytes
    known = None if "\ufffd" in text else list(text.encode())
    return {"token": text, "logprob": _floored(logprob), "bytes": known}


def _floored(logprob: float | None) -> float:
    return LEAST_LOGPROB if logprob is None else max(logprob, LEAST_LOGPROB)


def _by_text(step: TokenStep) -> dict[str, float]:
    """The likeliest tokens and the chosen one; of tokens that are written alike the likeliest counts."""
    by_text: dict[str, float] = {}
    for text, logprob in [
        *((each.text, each.logprob) for each in step.top_logprobs),
        (step.token, step.logprob),
    ]:
        by_text[text] = max(_floored(logprob), by_text.get(text, LEAST_LOGPROB))
    return by_text
