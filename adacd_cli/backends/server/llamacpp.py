"""llama.cpp's own `/completion`, which names tokens by their ids and lists as many as are asked for. It leaves out
a token after which the text ends in half a character, its log-probabilities too. So a request for them makes it
choose a token whose text is whole (the list is the model's), and what a stream left out is found by its bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from adacd_cli.backends.server.client import Client
from adacd_cli.backends.server.dialect import ServerRefused, TopList, ids_of, sampled_token
from adacd_cli.engine.backend import SampledToken, Sampling

_FORCED = 1e9
# everything that the server's own defaults may change a distribution with
_NEUTRAL: dict[str, Any] = {
    **dict(cache_prompt=True, return_tokens=True, ignore_eos=False, stop=[]),
    **dict(repeat_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, dry_multiplier=0.0),
    **dict(min_p=0.0, typical_p=1.0, xtc_probability=0.0, dynatemp_range=0.0, mirostat=0),
}
_SAME = ("min_p", "presence_penalty", "frequency_penalty", "logit_bias", "ignore_eos")
# what it calls the settings that it knows
_CONTROLS = {name: name for name in _SAME} | {"repetition_penalty": "repeat_penalty"}
_SEEDS = 2**32 - 1  # llama.cpp's seeds have 32 bits, and the last one means any
_LISTED = (64, 1024)  # how many tokens are searched for those that a stream left out, before all of them are
_Entry = tuple[Any, Any, bytes]  # a token's id, its log-probability and its text, as the server gives them


class LlamaCpp:
    """A llama.cpp server; see `Dialect`. `whole` is a token whose text has no half characters."""

    name = "llama.cpp"
    most: int | None = None
    scores_ids = False  # its lists are as long as they are asked for
    controls = frozenset(_CONTROLS) | {"stop_token_ids"}

    def __init__(self, client: Client, model: str, whole: int) -> None:
        self._client, self._whole = client, whole
        self._body = {**_NEUTRAL, "model": model}
        self._url = f"{client.address.root}/completion"

    async def top(self, prompts: Sequence[Sequence[int]], count: int) -> list[TopList]:
        found = await self._entries(prompts, count)
        return [TopList.of(((token, value) for token, value, _ in entries), count) for entries in found]

    async def values(self, prompt: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        return {}

    async def stream(
        self, prompt: Sequence[int], sampling: Sampling, max_tokens: int
    ) -> AsyncGenerator[SampledToken, None]:
        body = self._asked(list(prompt), sampling, max_tokens, sampling.top) | {"stream": True}
        given = list(prompt)
        held: SampledToken | None = None  # a token without text may be the last one
        async with aclosing(self._client.stream(self._url, body)) as events:
            async for event in events:
                ended = bool(event.get("stop"))
                if held is not None:
                    yield replace(held, last=ended)
                    held = None
                for entry in event.get("completion_probabilities") or ():
                    predicted = event.get("tokens_predicted")
                    known = len(given) - len(prompt) + 1
                    if isinstance(predicted, int) and (missing := predicted - known) > 0:
                        content = str(event.get("content"))
                        found = await self._left_out(given, content, entry, missing, sampling.top)
                        if found is None:
                            return  # the caller goes on from the ids that it has
                        for token in found:
                            given.append(token.token_id)
                            yield token
                    token = _sampled(entry, sampling.top)
                    given.append(token.token_id)
                    if event.get("content") or ended:
                        yield token
                    else:
                        held = token

    async def tokenize(self, text: str) -> list[int] | None:
        body = {"model": self._body["model"], "content": text, "add_special": False, "parse_special": True}
        answer = await self._client.ask(f"{self._client.address.root}/tokenize", body)
        return ids_of(answer.get("tokens"))

    def _asked(self, prompt: Any, sampling: Sampling, max_tokens: int, count: int) -> dict[str, Any]:
        own = {_CONTROLS[name]: value for name, value in sampling.controls.items() if name in _CONTROLS}
        if "logit_bias" in own:
            own["logit_bias"] = [[token, bias] for token, bias in own["logit_bias"].items()]
        samplers = ["temperature", "top_k", "top_p"] if sampling.temperature > 0 else ["top_k"]
        if own:
            own["repeat_last_n"] = len(prompt) + max_tokens
            samplers = ["penalties", *samplers, "min_p"]
        if sampling.seed is not None:
            own["seed"] = sampling.seed % _SEEDS
        return {
            **self._body,
            **own,
            "prompt": prompt,
            "n_predict": max_tokens,
            "n_probs": count,
            "temperature": sampling.temperature,
            "samplers": samplers,
            "top_k": sampling.top_k if sampling.temperature > 0 else 1,
            "top_p": sampling.top_p,
        }

    async def _entries(self, prompts: Sequence[Sequence[int]], count: int) -> list[list[_Entry]]:
        """The server's own list for each prompt."""
        prompt = [list(ids) for ids in prompts]
        body = self._asked(prompt[0] if len(prompt) == 1 else prompt, Sampling(), 1, count)
        body |= {
            "logit_bias": [[self._whole, _FORCED]],
            "response_fields": ["completion_probabilities"],
        }
        answer = await self._client.ask(self._url, body)
        results = [answer] if len(prompt) == 1 else answer.get("list")
        if not isinstance(results, list) or len(results) != len(prompt):
            raise ServerRefused(f"it does not answer {len(prompt)} prompts at once")
        try:
            lists = [each["completion_probabilities"][0]["top_logprobs"] for each in results]
            return [[(each["id"], each["logprob"], _bytes(each)) for each in listed] for listed in lists]
        except (KeyError, IndexError, TypeError):
            raise ServerRefused("it gives no log-probabilities") from None

    async def _left_out(
        self, given: Sequence[int], content: str, after: Mapping[str, Any], missing: int, count: int
    ) -> list[SampledToken] | None:
        """The `missing` tokens that the stream left out before `after`, the one that made the text whole; None
        where they cannot be found. `given` are the ids before them, `content` is their text and that of `after`,
        and `count` most probable tokens are given of each position."""
        if "\ufffd" in content:  # bytes that are no character come as this: they are lost
            return None
        own = (each for each in after.get("top_logprobs", ()) if each.get("id") == after.get("id"))
        tail = _bytes(next(own, {}))
        left = content.encode("utf-8").removesuffix(tail)
        found: list[SampledToken] = []
        for more in range(missing - 1, -1, -1):  # how many are to follow this one
            ids = [*given, *(token.token_id for token in found)]
            for size in (*_LISTED, 10**9):
                (entries,) = await self._entries([ids], size)
                fitting = (each for each in entries if _fits(each[2], left, more, exact=bool(tail)))
                entry = next(fitting, None)  # the most probable one
                if entry is not None or len(entries) < size:
                    break
            if entry is None:
                return None
            token, value, own_bytes = entry
            left = left[len(own_bytes) :]
            found.append(sampled_token(token, value, [each[:2] for each in entries], count))
        return found


def _fits(own: bytes, left: bytes, more: int, *, exact: bool) -> bool:
    """Whether a text may begin with a token, and enough of it is left for `more`; `exact`: and for no others."""
    rest = len(left) - len(own)
    return own != b"" and left.startswith(own) and (rest == 0 if exact and not more else rest >= more)


def _sampled(entry: Mapping[str, Any], count: int) -> SampledToken:
    try:
        pairs = [(each["id"], each["logprob"]) for each in entry["top_logprobs"]]
        return sampled_token(entry["id"], entry["logprob"], pairs, count)
    except (KeyError, TypeError):
        raise ServerRefused("its log-probabilities do not name tokens by their ids") from None


def _bytes(entry: Mapping[str, Any]) -> bytes:
    """A token's own bytes; none where the server does not give them."""
    values = ids_of(entry.get("bytes")) or ()
    return bytes(values) if all(0 <= each < 256 for each in values) else b""
