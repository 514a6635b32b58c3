"""The shape of an answer of /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from adacd_cli.events import Finished, Started, TokenStep
from adacd_cli.server.shapes import Shape, floored


class ChatShape(Shape):
    """An answer of /v1/chat/completions; a model's thinking is its `reasoning_content`."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def first(self, started: Started) -> dict[str, Any]:
        own = self._opening(started) if self.wanted.trace else {}
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
                **self._probable(step.token_id, step.token, step.logprob),
                "top_logprobs": [
                    self._probable(each.token_id, each.text, each.logprob) for each in step.top_logprobs
                ],
            }
            for step in steps
            if self._spelling.in_text(step.token_id)
        ]
        return {"content": content, "refusal": None}

    def _probable(self, token_id: int, text: str, logprob: float | None) -> dict[str, Any]:
        own = self._spelling.bytes_of(token_id, text)
        return {"token": text, "logprob": floored(logprob), "bytes": list(own)}
