"""The shape of an answer of /v1/completions."""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import Any

from adacd_cli.events import Finished, Started, TokenStep
from adacd_cli.server.asked import Wanted
from adacd_cli.server.shapes import LEAST_LOGPROB, Shape, floored
from adacd_cli.server.spelling import Spelling, readable


class TextShape(Shape):
    """An answer of /v1/completions."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, wanted: Wanted, spelling: Spelling) -> None:
        super().__init__(model, wanted, spelling)
        self._characters = getincrementaldecoder("utf-8")(errors="ignore")
        self._length = 0  # whole characters of the tokens told so far

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
        kept = [step for step in steps if self._spelling.in_text(step.token_id)]
        offsets = []
        for step in kept:
            offsets.append(self._length)
            own = self._spelling.bytes_of(step.token_id, step.token)
            self._length += len(self._characters.decode(own))
        return {
            "tokens": [self._written(step.token_id, step.token) for step in kept],
            "token_logprobs": [floored(step.logprob) for step in kept],
            "top_logprobs": [self._by_text(step) for step in kept],
            "text_offset": offsets,
        }

    def _by_text(self, step: TokenStep) -> dict[str, float]:
        """The likeliest tokens and the chosen one; of tokens that are written alike the likeliest counts."""
        by_text = {self._written(step.token_id, step.token): floored(step.logprob)}
        for each in step.top_logprobs:
            written = self._written(each.token_id, each.text)
            by_text[written] = max(floored(each.logprob), by_text.get(written, LEAST_LOGPROB))
        return by_text

    def _written(self, token_id: int, text: str) -> str:
        return readable(self._spelling.bytes_of(token_id, text))
