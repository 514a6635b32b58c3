"""`/v1/completions` with token ids both ways: vLLM, and whoever speaks like it.

`return_tokens_as_token_ids` makes each token a `token_id:N`, so that no text has to be read back into ids.
What is sent beyond OpenAI's fields switches off what the model's generation_config would otherwise change.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from adacd_cli.remote.client import Client
from adacd_cli.remote.dialects.base import (
    GREEDY,
    Said,
    Sampling,
    TopList,
    chosen_logprob_of,
    ids_of,
    logprob_of,
    token_of,
)
from adacd_cli.remote.failures import ServerGone, ServerRefused

_MARK = "token_id:"
_NO_IDS = "its log-probabilities do not name tokens by their ids"
_NEUTRAL = {
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_tokens": 0,
    "ignore_eos": False,
}


class Completions:
    """A server with `/v1/completions`.

    Args:
        client: its routes.
        model: the served model's name.
        name: `vLLM` or `OpenAI`.
    """

    def __init__(self, client: Client, model: str, name: str) -> None:
        self._client, self._model = client, model
        self.name = name
        self.most: int | None = None
        self._tells_values = name == "vLLM"

    async def ask(self, ids: Sequence[int], count: int) -> TopList:
        """The most probable next tokens; see `Dialect`."""
        while True:
            asked = count if self.most is None else min(count, self.most)
            try:
                answer = await self._client.post(self._url, self._body(ids, GREEDY, 1, asked))
            except ServerRefused as failure:
                self.most = _limit(failure, asked)
                continue
            tokens = _tokens(_choice(answer), asked)
            if not tokens:
                raise ServerRefused("it gives no token")
            return tokens[0].top

    async def values(self, ids: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        """By `logprob_token_ids`, which vLLM has had since 2026; see `Dialect`."""
        found: dict[int, float] = {}
        size = self.most or len(tokens)
        for start in range(0, len(tokens), size) if self._tells_values else ():
            body = self._body(ids, GREEDY, 1, 1) | {"logprob_token_ids": list(tokens[start : start + size])}
            try:
                said = _tokens(_choice(await self._client.post(self._url, body)), size + 1)
            except ServerGone:
                raise
            except ServerRefused:
                said = []
            told = dict(zip(said[0].top.ids, said[0].top.logprobs, strict=True)) if said else {}
            asked = {token: told[token] for token in tokens[start : start + size] if token in told}
            self._tells_values = bool(asked)  # an older server refuses the field, or overlooks it
            if not asked:
                break
            found |= asked
        return found

    async def stream(
        self, ids: Sequence[int], sampling: Sampling, length: int, count: int
    ) -> AsyncGenerator[Said, None]:
        """The tokens that follow; see `Dialect`."""
        asked = count if self.most is None else min(count, self.most)
        body = self._body(ids, sampling, length, asked) | {"stream": True}
        async with self._client.stream(self._url, body) as events:
            async for event in events:
                if event.get("choices"):  # the last event may be of usage alone
                    for said in _tokens(_choice(event), asked):
                        yield said

    async def tokenize(self, text: str) -> list[int] | None:
        """The text's ids by vLLM's `/tokenize`, or as a completion repeats them; None where neither tells."""
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        try:
            answer = await self._client.post(f"{self._client.address.root}/tokenize", body)
            return ids_of(answer.get("tokens"))
        except ServerRefused:
            pass
        try:
            answer = await self._client.post(self._url, body | {"max_tokens": 1, "return_token_ids": True})
            return ids_of(_choice(answer).get("prompt_token_ids"))
        except ServerRefused:
            return None

    @property
    def _url(self) -> str:
        return f"{self._client.address.base}/completions"

    def _body(self, ids: Sequence[int], sampling: Sampling, length: int, count: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(ids),
            "max_tokens": length,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "logprobs": count,
            "return_tokens_as_token_ids": True,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if self.name == "vLLM":
            body |= _NEUTRAL | {"top_k": sampling.top_k or -1}
        elif sampling.top_k:
            body["top_k"] = sampling.top_k
        return body


def _limit(failure: ServerRefused, asked: int) -> int:
    """How many log-probabilities the server gives, by its own words when it refused `asked`.

    Raises:
        ServerRefused: that is not what it refused.
    """
    message = failure.message.lower()
    if failure.status in (400, 422) and "logprobs" in message:
        # "Requested sample logprobs of 100, which is greater than max allowed: 20"
        smaller = [number for text in re.findall(r"\d+", message) if (number := int(text)) < asked]
        if smaller and smaller[-1] > 0:
            return smaller[-1]
    raise failure


def _choice(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ServerRefused("its response is no completion")
    return choices[0]


def _tokens(choice: Mapping[str, Any], count: int) -> list[Said]:
    """The tokens of a choice, or of a piece of it."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        if choice.get("text") or choice.get("finish_reason") is None:
            raise ServerRefused("it gives no log-probabilities")
        return []  # the end, with nothing more to say
    names, values, tops = (logprobs.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs"))
    ended = choice.get("finish_reason") == "stop"
    found = []
    try:
        for place, (name, value, top) in enumerate(zip(names, values, tops, strict=True)):
            listed = {_id(key): logprob_of(each) for key, each in (top or {}).items()}
            token = _id(name)
            own = listed.get(token) if value is None else logprob_of(value)
            last = ended and place == len(names) - 1
            found.append(Said(token, chosen_logprob_of(own), TopList.of(list(listed.items()), count), last))
    except (TypeError, ValueError, AttributeError):
        raise ServerRefused(_NO_IDS) from None
    return found


def _id(name: str) -> int:
    """N of `token_id:N`.

    Raises:
        ValueError: it is a token's text.
        Unbelievable: it is none.
    """
    if not name.startswith(_MARK):
        raise ValueError(name)
    return token_of(int(name.removeprefix(_MARK)))
