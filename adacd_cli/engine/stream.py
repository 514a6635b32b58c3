"""Stream: one KV cache over the rows of a batch.

It prefills prompts of different lengths (left-padded, positions counted from each row's own first token),
advances every row by one token, drops rows, and reuses what it already holds of a single row's prompt. It
knows nothing of methods or tokens' meaning.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from adacd_cli.errors import ModelError

_ATTENTION_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}


def new_cache(model: Any) -> Any:
    """An empty cache for the model.

    Without a config every layer keeps everything, so any number of tokens can be taken back, sliding windows
    included. Layers that hold a state instead of keys and values need the config to be laid out at all.
    """
    config = getattr(model, "config", None)
    text = config.get_text_config(decoder=True) if config is not None else None
    kinds: list[str] = getattr(text, "layer_types", None) or []
    if not _ATTENTION_KINDS.issuperset(kinds) or bool(getattr(text, "num_kv_shared_layers", 0)):
        return DynamicCache(config=config)
    return DynamicCache()


class Stream:
    """One of the two streams: the model's keys and values for what each row has been fed.

    Args:
        model: a causal LM; called with input_ids and, as far as its forward takes them, attention_mask,
            position_ids and logits_to_keep, use_cache, and past_key_values (Mamba: cache_params).

    Attributes:
        model: what was given.

    Raises:
        ModelError: the model takes no cache.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        parameters = inspect.signature(model.forward).parameters
        self._takes = {name for name in ("position_ids", "logits_to_keep") if name in parameters}
        caches = [name for name in ("past_key_values", "cache_params") if name in parameters]
        if not caches:
            raise ModelError(
                f"{type(model).__name__} cannot be decoded: its forward takes no cache of keys and values.",
                "Use a model whose forward takes past_key_values, as nearly every chat model's does.",
            )
        self._cache_argument = caches[0]
        self.release()

    @property
    def rows(self) -> int:
        """How many rows the cache holds."""
        return len(self._fed)

    def release(self) -> None:
        """Lets the cache go; the stream is as new."""
        self._cache: Any = None
        self._fed: list[list[int]] = []
        self._padding: torch.Tensor | None = None

    def prefill(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Feeds whole prompts; of a single one, only what follows the longest prefix already held.

        Args:
            prompts: token ids of each row, none empty.

        Returns:
            Logits of the token after each prompt, float32 [rows, vocab].
        """
        if len(prompts) == 1:
            return self.score(prompts[0], 1)
        self._begin(prompts)
        return self._forward([list(prompt) for prompt in prompts])[:, -1]

    def score(self, ids: Sequence[int], count: int) -> torch.Tensor:
        """Feeds a single row what is new of its ids since the last call, and takes back what is not of them.

        Args:
            ids: the row's token ids from the first on, none left out.
            count: how many of the last positions are asked for; at least 1, at most all.

        Returns:
            Logits of the token after each of them, float32 [count, vocab].
        """
        if self.rows == 1 and self._rewind_to(ids, again=count):
            new = list(ids[len(self._fed[0]) :])
        else:
            self._begin([ids])
            new = list(ids)
        return self._forward([new], count)[0]

    def _begin(self, prompts: Sequence[Sequence[int]]) -> None:
        """An empty cache for prompts of these lengths."""
        self.release()
        self._cache = new_cache(self.model)
        self._fed = [[] for _ in prompts]
        longest = max(len(prompt) for prompt in prompts)
        if any(len(prompt) < longest for prompt in prompts):
            pads = torch.tensor([[longest - len(prompt)] for prompt in prompts])
            self._padding = (torch.arange(longest) >= pads).to(torch.int64).to(self.model.device)

    def advance(self, tokens: Sequence[int]) -> torch.Tensor:
        """Feeds one token to each row.

        Returns:
            Logits of the token after it, float32 [rows, vocab].
        """
        if self._padding is not None:
            ones = self._padding.new_ones((self.rows, 1))
            self._padding = torch.cat([self._padding, ones], dim=-1)
        return self._forward([[token] for token in tokens])[:, -1]

    def keep(self, rows: Sequence[int]) -> None:
        """Keeps these rows, in this order, and drops the others' keys and values."""
        if list(rows) == list(range(self.rows)):
            return
        if not rows:
            self.release()
            return
        index = torch.tensor(rows, device=self.model.device)
        # meant for beams, but the only selection that layers with a running state have as well
        self._cache.reorder_cache(index)
        self._fed = [self._fed[row] for row in rows]
        if self._padding is not None:
            self._padding = self._padding[index]

    def _rewind_to(self, ids: Sequence[int], again: int) -> bool:
        """Takes back what differs from the ids, and the last `again` of them, whose logits are wanted.

        False when nothing held can be used.
        """
        fed = self._fed[0]
        shared = 0
        for mine, wanted in zip(fed, ids[:-again], strict=False):
            if mine != wanted:
                break
            shared += 1
        if shared == 0 or self._padding is not None:
            return False
        if shared < len(fed):
            try:
                self._cache.crop(shared - len(fed))
            except (RuntimeError, ValueError, AttributeError):
                return False  # a layer that keeps a running state cannot go back
            self._fed = [fed[:shared]]
        return True

    @torch.inference_mode()
    def _forward(self, new: list[list[int]], count: int = 1) -> torch.Tensor:
        """Logits of the last `count` positions, float32 [rows, count, vocab]."""
        device = self.model.device
        longest = max(len(ids) for ids in new)
        # any id will do for padding: the mask hides it
        padded = [[0] * (longest - len(ids)) + ids for ids in new]
        past = len(self._fed[0]) if self._padding is None else self._padding.shape[-1] - longest
        arguments: dict[str, Any] = {self._cache_argument: self._cache, "use_cache": True}
        if self._padding is not None:
            # a running state has no past positions to hide, only new ones
            whole = self._cache_argument == "past_key_values"
            arguments["attention_mask"] = self._padding if whole else self._padding[:, -longest:]
        if "position_ids" in self._takes:
            if self._padding is None:
                positions = torch.arange(past, past + longest, device=device).expand(len(new), -1)
            else:
                positions = (self._padding.cumsum(-1) - 1).clamp(min=0)[:, -longest:]
            arguments["position_ids"] = positions
        if "logits_to_keep" in self._takes:
            arguments["logits_to_keep"] = count
        try:
            output = self.model(torch.tensor(padded, device=device), **arguments)
        except BaseException:
            # an interrupted forward leaves layers of different lengths: nothing held can be trusted
            self.release()
            raise
        for fed, ids in zip(self._fed, new, strict=True):
            fed.extend(ids)
        logits: torch.Tensor = output.logits[:, -count:].float()
        return logits


@dataclass
class StreamPair:
    """The two streams of one request, to be kept over several runs by whoever owns them."""

    unprompted: Stream
    prompted: Stream
