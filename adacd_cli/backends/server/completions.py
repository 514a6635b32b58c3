"""`/v1/completions` with token ids both ways: vLLM, and whoever speaks like it. `return_tokens_as_token_ids` makes
each token a `token_id:N`, so that no text has to be encoded again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from adacd_cli.backends.server.client import Client
from adacd_cli.backends.server.dialect import ServerRefused, ServerUnavailable, TopList, ids_of, sampled_token
from adacd_cli.config.settings import CONTROLS
from adacd_cli.engine.backend import SampledToken, Sampling

_GREEDY = Sampling()
# fields beyond OpenAI's: they switch off what the model's generation_config would otherwise change
_NEUTRAL: dict[str, Any] = {
    **dict(min_p=0.0, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0),
    **dict(min_tokens=0, ignore_eos=False),
}
_OPENAI = frozenset(("logit_bias", "presence_penalty", "frequency_penalty", "stop_token_ids"))
MOST_IDS = 128  # vLLM's limit of `logprob_token_ids` in one request, whatever its --max-logprobs is
# how often a list is requested that comes back too short: one request with `logprob_token_ids` cuts the lists of
# every other request that vLLM's V1 runner computes in the same batch, whoever sent it
TRIES = 5
_PAUSE = 0.02  # seconds before the second try; doubled for each further one


class Completions:
    """A server with `/v1/completions`; see `Dialect`. Its name is `vLLM` or `OpenAI`."""

    def __init__(self, client: Client, model: str, name: str) -> None:
        self._client, self._model, self.name = client, model, name
        self._url = f"{client.address.base}/completions"
        self.most: int | None = None
        self.scores_ids = name == "vLLM"
        self.controls = frozenset(CONTROLS) if name == "vLLM" else _OPENAI
        self._most_ids = MOST_IDS

    async def top(self, prompts: Sequence[Sequence[int]], count: int) -> list[TopList]:
        found = [TopList()] * len(prompts)
        for number in range(TRIES):
            wanted = min(count, self.most or count)
            short = [place for place, listed in enumerate(found) if len(listed.ids) < wanted]
            if not short:
                break
            if number:
                await asyncio.sleep(_PAUSE * 2 ** (number - 1))
            lists = await self._top_once([prompts[place] for place in short], count)
            for place, listed in zip(short, lists, strict=True):
                found[place] = max(listed, found[place], key=lambda each: len(each.ids))
        return found

    async def _top_once(self, prompts: Sequence[Sequence[int]], count: int) -> list[TopList]:
        """One response; a limit that the server names in a refusal is kept to from then on."""
        while True:
            wanted = min(count, self.most or count)
            prompt = [list(ids) for ids in prompts]
            body = self._body(prompt[0] if len(prompt) == 1 else prompt, _GREEDY, 1, wanted)
            try:
                answer = await self._client.ask(self._url, body)
            except ServerRefused as failure:
                if (limit := _limit(failure, wanted, "logprobs")) is None:
                    raise
                self.most = limit
                continue
            tokens = [_tokens(choice, wanted) for choice in _choices(answer, len(prompts))]
            if not all(tokens):
                raise ServerRefused("it gives no token")
            return [TopList(*zip(*each[0].top, strict=True)) for each in tokens]

    async def values(self, prompt: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        found: dict[int, float] = {}
        waiting = list(tokens)
        while waiting and self.scores_ids:
            portion = waiting[: self._most_ids]
            body = self._body(list(prompt), _GREEDY, 1, 1) | {"logprob_token_ids": portion}
            try:
                (choice,) = _choices(await self._client.ask(self._url, body), 1)
                (scored, *_) = _tokens(choice, len(portion) + 1)
            except ServerUnavailable:
                raise
            except ServerRefused as failure:
                limit = _limit(failure, len(portion), "logprob_token_ids")
                self.scores_ids = limit is not None  # an older server may refuse the field
                self._most_ids = limit or self._most_ids
                continue
            values = {token: value for token, value in scored.top if token in set(portion)}
            self.scores_ids = bool(values)
            found |= values
            del waiting[: len(portion)]
        return found

    async def stream(
        self, prompt: Sequence[int], sampling: Sampling, max_tokens: int
    ) -> AsyncGenerator[SampledToken, None]:
        wanted = min(sampling.top, self.most or sampling.top)
        body = self._body(list(prompt), sampling, max_tokens, wanted) | {"stream": True}
        async with aclosing(self._client.stream(self._url, body)) as events:
            async for event in events:
                if event.get("choices"):  # the last event may be of usage alone
                    for token in _tokens(_choices(event, 1)[0], wanted):
                        yield token

    async def tokenize(self, text: str) -> list[int] | None:
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        with suppress(ServerRefused):
            answer = await self._client.ask(f"{self._client.address.root}/tokenize", body)
            return ids_of(answer.get("tokens"))
        with suppress(ServerRefused):
            answer = await self._client.ask(self._url, body | {"max_tokens": 1, "return_token_ids": True})
            return ids_of(_choices(answer, 1)[0].get("prompt_token_ids"))
        return None

    def _body(self, prompt: Any, sampling: Sampling, max_tokens: int, count: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": max_tokens,
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
        own = sampling.controls.items()
        return body | {name: value for name, value in own if self.name == "vLLM" or name != "stop_token_ids"}


def _limit(failure: ServerRefused, wanted: int, field: str) -> int | None:
    """How many values the server gives, by its own words when it refused `wanted`; None for another refusal."""
    message = failure.message.lower()
    if failure.status not in (400, 422) or field not in message:
        return None
    # "Requested sample logprobs of 100, which is greater than max allowed: 20"
    smaller = [number for text in re.findall(r"\d+", message) if 0 < (number := int(text)) < wanted]
    return smaller[-1] if smaller else None


def _choices(answer: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(each, dict) for each in choices):
        raise ServerRefused("its response is no completion")
    if count > 1:
        by_index = {each.get("index"): each for each in choices}
        choices = [by_index[place] for place in range(count) if place in by_index]
    if len(choices) < count:
        raise ServerRefused(f"it gives {len(choices)} completions for {count} prompts")
    return choices[:count]


def _tokens(choice: Mapping[str, Any], count: int) -> list[SampledToken]:
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        if choice.get("text") or choice.get("finish_reason") is None:
            raise ServerRefused("it gives no log-probabilities")
        return []  # the end, without another token
    names, values, tops = (logprobs.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs"))
    found = []
    try:
        for name, value, top in zip(names, values, tops, strict=True):
            listed = {_id(key): each for key, each in (top or {}).items()}
            token = _id(name)
            own = listed.get(token) if value is None else value
            found.append(sampled_token(token, own, listed.items(), count))
    except (TypeError, ValueError, AttributeError):
        raise ServerRefused("its log-probabilities do not name tokens by their ids") from None
    if found and choice.get("finish_reason") == "stop":
        found[-1] = replace(found[-1], last=True)
    return found


def _id(name: str) -> int:
    """N of `token_id:N`; raises ValueError where it is a token's text."""
    mark, _, number = name.partition(":")
    if mark != "token_id":
        raise ValueError(name)
    return int(number)
