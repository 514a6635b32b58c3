"""The shape of an answer of /v1/completions."""

from __future__ import annotations

from typing import Any

from adacd_cli.events import Finished, Started, TokenStep
from adacd_cli.server.asked import Wanted
from adacd_cli.server.shapes import LEAST_LOGPROB, Shape, floored


class TextShape(Shape):
    """An answer of /v1/completions."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, wanted: Wanted, ends: frozenset[int]) -> None:
        super().__init__(model, wanted, ends)
        self._length = 0  # characters of the tokens told so far

    def first(self, started: Started) -> dict[str, Any] | None:
        if not self.wanted.trace:
            return None
        return self._chunk({"text": ""}, None, None, self._opening(started))

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
            "token_logprobs": [floored(step.logprob) for step in kept],
            "top_logprobs": [_by_text(step) for step in kept],
            "text_offset": offsets,
        }


def _by_text(step: TokenStep) -> dict[str, float]:
    """The likeliest tokens and the chosen one; of tokens that are written alike the likeliest counts."""
    by_text: dict[str, float] = {}
    for text, logprob in [
        *((each.text, each.logprob) for each in step.top_logprobs),
        (step.token, step.logprob),
    ]:
        by_text[text] = max(floored(logprob), by_text.get(text, LEAST_LOGPROB))
    return by_text
