"""Events in OpenAI's format: the chunks of a stream, or one whole response.

A format is made for one answer. It is given the answer's events in their order and knows nothing of HTTP.
"""

from __future__ import annotations

import re
import secrets
import time
from codecs import getincrementaldecoder
from collections.abc import Sequence
from functools import cache
from typing import Any

from adacd_cli.events import Event, Finished, FinishReason, Notice, ScoredToken, Started, TokenStep, to_json
from adacd_cli.server.params import Params

_LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not have."""

_STARTED = ("method", "profile", "settings", "seed", "prompted_tokens", "unprompted_tokens")
_NOT_IN_TRACE = ("event", "request", "elapsed_s", "logprob", "top_logprobs")

JSON = dict[str, Any]

_ONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""How SentencePiece writes a byte that no piece has."""


@cache
def _byte_alphabet() -> dict[str, int]:
    """The byte of each character in a byte-level vocabulary."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}


class TokenBytes:
    """The bytes of tokens, which a token's text does not show where a character is made of several tokens.

    `ends` are the ids that end an answer; they are no part of it.
    """

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._left_out = ends.union(getattr(tokenizer, "all_special_ids", ()))

    def bytes_of(self, token_id: int, text: str) -> bytes:
        """The bytes of a token, which decodes to `text` by itself."""
        if "\ufffd" not in text:
            return text.encode("utf-8", "surrogatepass")
        piece = str(self._tokenizer.convert_ids_to_tokens(token_id))
        if (one := _ONE_BYTE.fullmatch(piece)) is not None:
            return bytes.fromhex(one[1])
        if _byte_alphabet().keys() >= set(piece):
            return bytes(_byte_alphabet()[character] for character in piece)
        return text.encode("utf-8", "surrogatepass")

    def in_text(self, token_id: int) -> bool:
        """Whether the token is part of the answer's text: control tokens are left out of it."""
        return token_id not in self._left_out


class ChatFormat:
    """One answer of /v1/chat/completions; a model's thinking is its `reasoning_content`.

    A request's further answers are given its `first` and their own `index`. `warnings` is what the client should
    know about its prompts and parameters, a sentence each.
    """

    prefix, object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(
        self,
        model: str,
        params: Params,
        token_bytes: TokenBytes,
        first: ChatFormat | None = None,
        index: int = 0,
    ) -> None:
        self.id: str = first.id if first else f"{self.prefix}-{secrets.token_hex(12)}"
        self.params, self._token_bytes, self._index = params, token_bytes, index
        self.warnings = params.warnings
        self.head: JSON = (
            first.head if first else {"id": self.id, "created": int(time.time()), "model": model}
        )
        self._started: Started | None = None
        self._steps: list[TokenStep] = []
        self._scores: list[ScoredToken] = []
        self._tokens = self._thinking_tokens = 0

    def add(self, event: Event | list[ScoredToken]) -> None:
        """Takes an event in, for what is reported at the end."""
        if isinstance(event, list):
            self._scores = event
        elif isinstance(event, Started):
            self._started = event
        elif isinstance(event, Notice):
            self.warnings = (*self.warnings, event.text)
        elif isinstance(event, TokenStep):
            self._tokens += 1
            self._thinking_tokens += event.thinking
            if not self.params.stream and (self.params.trace or self.params.top_logprobs is not None):
                self._steps.append(event)

    def opening_chunk(self, started: Started) -> JSON | None:
        """The chunk that opens a stream; None where there is nothing to report."""
        return self._chunk(
            {"delta": {"role": "assistant", "content": ""}}, None, None, self._opening(started)
        )

    def token_chunk(self, step: TokenStep) -> JSON | None:
        """A token's chunk; None where there is nothing to report."""
        logprobs = self.params.top_logprobs is not None and self._token_bytes.in_text(step.token_id)
        if not (step.text or self.params.trace or logprobs):
            return None
        adacd = {"adacd": {"step": traced(step)}} if self.params.trace else {}
        return self._chunk(self._delta(step), self._logprobs([step]), None, adacd)

    def final_chunk(self, finished: Finished) -> JSON:
        """The chunk that ends the answer."""
        chunk = self._chunk(self._delta(None), None, _reason(finished), {"adacd": self._summary(finished)})
        chunk["choices"][0].update(_stop_of(finished))
        return chunk

    def usage_chunk(self, usage: JSON) -> JSON:
        """The numbers of tokens, as a chunk of its own after the last."""
        return {**self.head, "object": self.chunk_object, "choices": [], "usage": usage}

    def response(self, finished: Finished) -> JSON:
        """The whole response."""
        summary = self._summary(finished)
        if self.params.trace:
            seed = self._started.seed if self._started else None
            summary |= {"seed": seed, "trace": [traced(step) for step in self._steps]}
        logprobs, reason = self._logprobs(self._steps), _reason(finished)
        choice = {
            "index": self._index,
            **self._content(finished),
            "logprobs": logprobs,
            "finish_reason": reason,
            **_stop_of(finished),
        }
        body = {"choices": [choice], "usage": self.usage(), "adacd": summary}
        return {**self.head, "object": self.object, **body}

    def _opening(self, started: Started) -> JSON:
        if not self.params.trace:
            return {}
        return {"adacd": {"started": {name: getattr(started, name) for name in _STARTED}}}

    def _chunk(self, delta: JSON, logprobs: JSON | None, reason: str | None, adacd: JSON) -> JSON:
        choice = {"index": self._index, **delta, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": self.usage() if self.params.continuous_usage else None} if self.params.usage else {}
        return {**self.head, "object": self.chunk_object, "choices": [choice], **usage, **adacd}

    def _summary(self, finished: Finished) -> JSON:
        method = self._started.method if self._started else self.params.settings.method_label
        warnings = {"warnings": list(self.warnings)} if self.warnings else {}
        return {"method": method, "added": finished.added, "subtracted": finished.subtracted, **warnings}

    def usage(self) -> JSON:
        """The numbers of tokens so far."""
        prompt = self._started.unprompted_tokens if self._started else 0
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._tokens,
            "total_tokens": prompt + self._tokens,
            "completion_tokens_details": {"reasoning_tokens": self._thinking_tokens},
        }

    def _logprobs(self, steps: list[TokenStep]) -> JSON | None:
        if self.params.top_logprobs is None:
            return None
        return self._logprob_lists([step for step in steps if self._token_bytes.in_text(step.token_id)])

    def _delta(self, step: TokenStep | None) -> JSON:
        if step is None:
            return {"delta": {}}
        return {"delta": {"reasoning_content" if step.thinking else "content": step.text}}

    def _content(self, finished: Finished) -> JSON:
        thinking = {"reasoning_content": finished.thinking} if finished.thinking else {}
        return {"message": {"role": "assistant", "content": finished.text, "refusal": None, **thinking}}

    def _logprob_lists(self, steps: Sequence[Any]) -> JSON:
        content = []
        for step in steps:
            top = [self._logprob(each.token_id, each.text, each.logprob) for each in step.top_logprobs]
            content.append({**self._logprob(step.token_id, step.token, step.logprob), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _logprob(self, token_id: int, text: str, logprob: float | None) -> JSON:
        own = self._token_bytes.bytes_of(token_id, text)
        return {"token": text, "logprob": _floored(logprob), "bytes": list(own)}


class TextFormat(ChatFormat):
    """The same of /v1/completions, where texts stand in place of messages."""

    prefix, object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._echo, self._hidden = "", 0
        self._characters = getincrementaldecoder("utf-8")(errors="ignore")
        self._length = 0  # whole characters of the tokens so far

    def repeat(self, prompt: str, hidden: int) -> None:
        """Has the prompt stand before the answer, without its first `hidden` tokens, which are not the client's."""
        self._echo, self._hidden = prompt, hidden

    def opening_chunk(self, started: Started) -> JSON | None:
        """As of a chat; without a trace or the prompt there is nothing to report."""
        adacd = self._opening(started)
        if not (adacd or self._echo):
            return None
        return self._chunk({"text": self._echo}, self._logprobs([]) if self._scores else None, None, adacd)

    def _delta(self, step: TokenStep | None) -> JSON:
        return {"text": "" if step is None else step.text}

    def _content(self, finished: Finished) -> JSON:
        return {"text": self._echo + finished.text}

    def _logprobs(self, steps: list[TokenStep]) -> JSON | None:
        """With the prompt's, and then also the token that ends the answer: clients count on one more for each
        token that they ask for."""
        if not self._scores:
            return super()._logprobs(steps)
        tokens: list[TokenStep | ScoredToken] = [*self._scores[self._hidden :], *steps]
        self._hidden = len(self._scores)  # in a stream, once
        return self._logprob_lists(tokens)

    def _logprob_lists(self, steps: Sequence[TokenStep | ScoredToken]) -> JSON:
        offsets = []
        for step in steps:
            offsets.append(self._length)
            own = self._token_bytes.bytes_of(step.token_id, step.token)
            self._length += len(self._characters.decode(own))
        return {
            "tokens": [self._written(step.token_id, step.token) for step in steps],
            "token_logprobs": [None if _is_first(step) else _floored(step.logprob) for step in steps],
            "top_logprobs": [None if _is_first(step) else self._by_text(step) for step in steps],
            "text_offset": offsets,
        }

    def _by_text(self, step: TokenStep | ScoredToken) -> dict[str, float]:
        """The most probable tokens and the chosen one; of tokens that are written alike the most probable."""
        by_text = {self._written(step.token_id, step.token): _floored(step.logprob)}
        for each in step.top_logprobs:
            written = self._written(each.token_id, each.text)
            by_text[written] = max(_floored(each.logprob), by_text.get(written, _LEAST_LOGPROB))
        return by_text

    def _written(self, token_id: int, text: str) -> str:
        return readable(self._token_bytes.bytes_of(token_id, text))


def traced(step: TokenStep) -> JSON:
    """A step as a trace shows it."""
    return {name: value for name, value in to_json(step).items() if name not in _NOT_IN_TRACE}


def _is_first(step: TokenStep | ScoredToken) -> bool:
    return isinstance(step, ScoredToken) and step.logprob is None


def _reason(finished: Finished) -> str:
    """OpenAI's finish_reason; an answer whose time ran out ended by its length."""
    return "stop" if finished.finish_reason is FinishReason.STOP else "length"


def _stop_of(finished: Finished) -> JSON:
    """The stop string that ended the answer, as vLLM names it."""
    return {} if finished.stop is None else {"stop_reason": finished.stop}


def _floored(logprob: float | None) -> float:
    return _LEAST_LOGPROB if logprob is None else max(logprob, _LEAST_LOGPROB)


def readable(own: bytes) -> str:
    r"""Bytes as text; `bytes:\xf0\x9f`, as OpenAI writes, where they are no whole characters."""
    try:
        return own.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)
