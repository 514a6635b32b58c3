"""Events in OpenAI's format: the chunks of a stream, or one whole response. A format is made for one answer. It is
given the answer's events in their order and knows nothing of HTTP."""

from __future__ import annotations

import re
import secrets
import time
from codecs import getincrementaldecoder
from collections.abc import Sequence
from functools import cache
from typing import Any

from adacd_cli.events import Event, Finished, FinishReason, Notice, ScoredToken, Started, TokenStep, to_json
from adacd_cli.server.fields import JSON
from adacd_cli.server.params import Params

_LEAST_LOGPROB = -9999.0  # stands for minus infinity, which JSON does not have
_STARTED = ("method", "profile", "settings", "seed", "prompted_tokens", "unprompted_tokens")
_NOT_ENDED: JSON = {"finish_reason": None}
_NOT_IN_TRACE = ("event", "request", "elapsed_s", "logprob", "top_logprobs")
_ONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how SentencePiece writes a byte that no piece has


@cache
def _byte_alphabet() -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}


class TokenBytes:
    """The bytes of tokens, which a token's text does not show where a character is made of several tokens. `ends`
    are the ids that end an answer; they are no part of it."""

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._left_out = ends.union(getattr(tokenizer, "all_special_ids", ()))

    def bytes_of(self, token_id: int, text: str) -> bytes:
        """The bytes of a token, which decodes to `text` by itself."""
        if "\ufffd" in text:
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
    """One answer of /v1/chat/completions; a model's thinking is its `reasoning_content`. A request's further
    answers are given the `head` of the first (id, time and model) and their own `index`. `warnings` is what the
    client should know about its prompts and parameters, a sentence each."""

    prefix, object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(
        self, model: str, params: Params, token_bytes: TokenBytes, head: JSON | None = None, index: int = 0
    ) -> None:
        made = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self.head = head or made
        self.id = str(self.head["id"])
        self.params, self.warnings = params, params.warnings
        self.prompt_tokens = self.tokens = self.thinking_tokens = 0
        self._token_bytes, self._index = token_bytes, index
        self._started: Started | None = None
        self._steps: list[TokenStep] = []
        self._scores: list[ScoredToken] = []

    def add(self, event: Event | list[ScoredToken]) -> None:
        """Takes an event in, for what is reported at the end."""
        if isinstance(event, list):
            self._scores = event
        elif isinstance(event, Started):
            self._started, self.prompt_tokens = event, event.unprompted_tokens
        elif isinstance(event, Notice):
            self.warnings = (*self.warnings, event.text)
        elif isinstance(event, TokenStep):
            self.tokens += 1
            self.thinking_tokens += event.thinking
            if not self.params.stream and (self.params.trace or self.params.top_logprobs is not None):
                self._steps.append(event)

    def chunk_of(self, event: Event | list[ScoredToken]) -> JSON | None:
        """Takes an event in, and gives its chunk in a stream; None where there is nothing to report."""
        self.add(event)
        if isinstance(event, Started):
            started = {"started": {name: getattr(event, name) for name in _STARTED}}
            return self._opening({"adacd": started} if self.params.trace else {})
        if isinstance(event, Finished):
            return self._chunk(self._delta(None), None, {"adacd": self._summary(event)}, _ending(event))
        if not isinstance(event, TokenStep):
            return None
        logprobs = self.params.top_logprobs is not None and self._token_bytes.in_text(event.token_id)
        if not (event.text or self.params.trace or logprobs):
            return None
        adacd = {"adacd": {"step": _traced(event)}} if self.params.trace else {}
        return self._chunk(self._delta(event), self._logprobs([event]), adacd)

    def response(self, finished: Finished) -> JSON:
        summary = self._summary(finished)
        if self.params.trace:
            seed = self._started.seed if self._started else None
            summary |= {"seed": seed, "trace": [_traced(step) for step in self._steps]}
        logprobs, content = self._logprobs(self._steps), self._content(finished)
        choice = {"index": self._index, **content, "logprobs": logprobs, **_ending(finished)}
        own = {"choices": [choice], "usage": usage_of([self]), "adacd": summary}
        return {**self.head, "object": self.object, **own}

    def _opening(self, adacd: JSON) -> JSON | None:
        return self._chunk({"delta": {"role": "assistant", "content": ""}}, None, adacd)

    def _chunk(self, delta: JSON, logprobs: JSON | None, adacd: JSON, ending: JSON = _NOT_ENDED) -> JSON:
        choice = {"index": self._index, **delta, "logprobs": logprobs, **ending}
        usage = {"usage": usage_of([self]) if self.params.continuous_usage else None}
        own = {"choices": [choice], **(usage if self.params.usage else {}), **adacd}
        return {**self.head, "object": self.chunk_object, **own}

    def _summary(self, finished: Finished) -> JSON:
        method = self._started.method if self._started else self.params.settings.method_label
        warnings = {"warnings": list(self.warnings)} if self.warnings else {}
        return {"method": method, "added": finished.added, "subtracted": finished.subtracted, **warnings}

    def _logprobs(self, steps: list[TokenStep]) -> JSON | None:
        if self.params.top_logprobs is None:
            return None
        return self._logprob_lists([step for step in steps if self._token_bytes.in_text(step.token_id)])

    def _delta(self, step: TokenStep | None) -> JSON:
        return {"delta": {"reasoning_content" if step.thinking else "content": step.text} if step else {}}

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

    def _opening(self, adacd: JSON) -> JSON | None:
        if not (adacd or self._echo):
            return None
        return self._chunk({"text": self._echo}, self._logprobs([]) if self._scores else None, adacd)

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
        known = [(step, isinstance(step, ScoredToken) and step.logprob is None) for step in steps]
        for step in steps:
            offsets.append(self._length)
            own = self._token_bytes.bytes_of(step.token_id, step.token)
            self._length += len(self._characters.decode(own))
        return {
            "tokens": [self._written(step.token_id, step.token) for step in steps],
            "token_logprobs": [None if first else _floored(step.logprob) for step, first in known],
            "top_logprobs": [None if first else self._by_text(step) for step, first in known],
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


def _traced(step: TokenStep) -> JSON:
    return {name: value for name, value in to_json(step).items() if name not in _NOT_IN_TRACE}


def _ending(finished: Finished) -> JSON:
    """Why it ended (by its length where its time ran out), and the stop string as vLLM names it."""
    reason = "stop" if finished.finish_reason is FinishReason.STOP else "length"
    return {"finish_reason": reason, **({} if finished.stop is None else {"stop_reason": finished.stop})}


def usage_of(forms: Sequence[ChatFormat], per_prompt: int = 1) -> JSON:
    """The numbers of tokens so far of several answers, of which so many in a row are answers to one prompt."""
    prompt = sum(form.prompt_tokens for form in forms[::per_prompt])
    completion = sum(form.tokens for form in forms)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": sum(form.thinking_tokens for form in forms)},
    }


def _floored(logprob: float | None) -> float:
    return _LEAST_LOGPROB if logprob is None else max(logprob, _LEAST_LOGPROB)


def readable(own: bytes) -> str:
    r"""Bytes as text; `bytes:\xf0\x9f`, as OpenAI writes, where they are no whole characters."""
    try:
        return own.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)
