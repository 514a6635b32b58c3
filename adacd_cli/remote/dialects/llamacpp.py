"""llama.cpp's own `/completion`, which names tokens by their ids and lists as many as are asked for.

The server says nothing of a token with which the text so far ends in half a character: neither its id nor
its log-probabilities. So a question for log-probabilities has it choose a token that is whole (what it lists
is the model's distribution, whatever is chosen), and what a stream left out is found again by its bytes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from adacd_cli.remote.client import Client
from adacd_cli.remote.dialects.base import (
    Said,
    Sampling,
    TopList,
    chosen_logprob_of,
    ids_of,
    logprob_of,
    token_of,
)
from adacd_cli.remote.failures import ServerRefused

_FORCED = 1e9
_NEUTRAL = {
    "cache_prompt": True,
    "return_tokens": True,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "dry_multiplier": 0.0,
    "xtc_probability": 0.0,
    "dynatemp_range": 0.0,
    "mirostat": 0,
    "ignore_eos": False,
    "stop": [],
}
"""Everything that the server's own defaults may change a distribution with."""

_SEEDS = 2**32 - 1
"""llama.cpp's seeds have 32 bits, and the last one means any."""

_LISTED = (64, 1024)
"""How many tokens are looked through for those that a stream left out, before all of them are."""


class LlamaCpp:
    """A llama.cpp server.

    Args:
        client: its routes.
        model: the served model's name; a server of one model takes any.
        whole: a token whose text has no half characters.
    """

    name = "llama.cpp"
    most: int | None = None

    def __init__(self, client: Client, model: str, whole: int) -> None:
        self._client, self._model, self._whole = client, model, whole

    async def ask(self, ids: Sequence[int], count: int) -> TopList:
        """The most probable next tokens; see `Dialect`."""
        return TopList.of(
            [(entry["id"], entry["logprob"]) for entry in await self._entries(ids, count)], count
        )

    async def values(self, ids: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        """None: its lists are as long as they are asked for."""
        return {}

    async def stream(
        self, ids: Sequence[int], sampling: Sampling, length: int, count: int
    ) -> AsyncGenerator[Said, None]:
        """The tokens that follow; see `Dialect`."""
        body = {
            **_NEUTRAL,
            "model": self._model,
            "prompt": list(ids),
            "n_predict": length,
            "n_probs": count,
            "stream": True,
            "temperature": sampling.temperature,
            "samplers": ["temperature", "top_k", "top_p"] if sampling.temperature > 0 else ["top_k"],
            "top_k": sampling.top_k if sampling.temperature > 0 else 1,
            "top_p": sampling.top_p,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed % _SEEDS
        given = list(ids)
        held: Said | None = None  # a token without text may be the last one
        async with self._client.stream(f"{self._client.address.root}/completion", body) as events:
            async for event in events:
                ended = bool(event.get("stop"))
                if held is not None:
                    yield Said(held.token_id, held.logprob, held.top, last=ended)
                    held = None
                for entry in event.get("completion_probabilities") or ():
                    missing = _count(event.get("tokens_predicted")) - (len(given) - len(ids)) - 1
                    if missing > 0:
                        found = await self._left_out(given, str(event.get("content")), entry, missing, count)
                        if found is None:
                            return  # whoever asks goes on from what is known
                        for said in found:
                            given.append(said.token_id)
                            yield said
                    said = _said(entry, count)
                    given.append(said.token_id)
                    if event.get("content") or ended:
                        yield said
                    else:
                        held = said

    async def tokenize(self, text: str) -> list[int] | None:
        """The text's ids by `/tokenize`."""
        body = {"model": self._model, "content": text, "add_special": False, "parse_special": True}
        answer = await self._client.post(f"{self._client.address.root}/tokenize", body)
        return ids_of(answer.get("tokens"))

    async def _entries(self, ids: Sequence[int], count: int) -> list[dict[str, Any]]:
        """The server's own list: id, bytes and log-probability of each token."""
        body = {
            **_NEUTRAL,
            "model": self._model,
            "prompt": list(ids),
            "n_predict": 1,
            "n_probs": count,
            "temperature": 0.0,
            "samplers": ["top_k"],
            "top_k": 1,
            "logit_bias": [[self._whole, _FORCED]],
            "response_fields": ["completion_probabilities"],
        }
        answer = await self._client.post(f"{self._client.address.root}/completion", body)
        try:
            entries: list[dict[str, Any]] = answer["completion_probabilities"][0]["top_logprobs"]
            for entry in entries:
                entry["id"], entry["logprob"] = token_of(entry["id"]), logprob_of(entry["logprob"])
        except (KeyError, IndexError, TypeError):
            raise ServerRefused("it gives no log-probabilities") from None
        return entries

    async def _left_out(
        self, given: Sequence[int], content: str, after: Mapping[str, Any], missing: int, count: int
    ) -> list[Said] | None:
        """The tokens that came before `after` without being told of; None where they cannot be found.

        Args:
            given: the ids before them.
            content: their text and that of `after`, together.
            after: the token that made the text whole.
            missing: how many there are.
            count: how many tokens of each position to tell of.
        """
        if "\ufffd" in content:  # bytes that are no character come as this, so they are not known
            return None
        left = content.encode("utf-8")
        own: Mapping[str, Any] = next(
            (each for each in after.get("top_logprobs", ()) if each.get("id") == after.get("id")), {}
        )
        tail = _bytes(own)
        left = left.removesuffix(tail)
        found: list[Said] = []
        ids = list(given)
        for more in range(missing - 1, -1, -1):  # how many are to follow this one
            entry, top = await self._entry_of(ids, left, more, exact=bool(tail) and not more, count=count)
            if entry is None:
                return None
            ids.append(entry["id"])
            left = left[len(_bytes(entry)) :]
            found.append(Said(entry["id"], entry["logprob"], top))
        return found

    async def _entry_of(
        self, ids: Sequence[int], left: bytes, more: int, *, exact: bool, count: int
    ) -> tuple[dict[str, Any] | None, TopList]:
        """The most probable token that the bytes begin with, and leaves enough for those to follow."""
        for size in (*_LISTED, 10**9):
            entries = await self._entries(ids, size)
            for entry in entries:  # the most probable first
                own = _bytes(entry)
                if own and left.startswith(own) and (own == left if exact else len(left) - len(own) >= more):
                    top = TopList.of([(each["id"], each["logprob"]) for each in entries[:count]], count)
                    return entry, top
            if len(entries) < size:
                break
        return None, TopList()


def _said(entry: Mapping[str, Any], count: int) -> Said:
    try:
        top = [(token_of(each["id"]), logprob_of(each["logprob"])) for each in entry["top_logprobs"]]
        own = chosen_logprob_of(entry["logprob"])
        return Said(token_of(entry["id"]), own, TopList.of(top, count))
    except (KeyError, TypeError):
        raise ServerRefused("its log-probabilities do not name tokens by their ids") from None


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _bytes(entry: Mapping[str, Any]) -> bytes:
    """A token's own bytes; none where it does not tell."""
    values = ids_of(entry.get("bytes")) or ()
    return bytes(values) if all(0 <= each < 256 for each in values) else b""
