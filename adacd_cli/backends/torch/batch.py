"""BatchedKVCache: one KV cache over the rows of a batch.

It prefills prompts of different lengths (left-padded, positions counted from each row's own first token), advances
every row by one token, drops rows, and takes in those of another cache."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from adacd_cli.backends.torch.kv_cache import Compiled, GrowingLayer, Tensors, new_cache
from adacd_cli.backends.torch.matmul import fast_small_batch
from adacd_cli.errors import ModelError, first_line

KeyValues = list[Tensors]  # keys and values of one row, [1, heads, tokens, dim] of each layer


class BatchedKVCache:
    """The model's keys and values for what each row has been fed; `lengths` says how many tokens that are. The
    model is called with input_ids and, as far as its forward takes them, attention_mask, position_ids and
    logits_to_keep, use_cache, and past_key_values (Mamba: cache_params); ModelError where it takes no cache.
    `compiled` are the same model's compiled forwards, used to advance."""

    def __init__(self, model: Any, compiled: Compiled | None = None) -> None:
        self.model, self._compiled = model, compiled
        self._fixed: Any = None  # where keys and values are while compiled forwards advance
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
        return len(self.lengths)

    @property
    def joins(self) -> bool:
        """Whether rows can be taken in and copied out: it holds nothing but keys and values."""
        layers = self._cache.layers
        return bool(layers) and all(type(layer) is GrowingLayer for layer in layers)

    def release(self) -> None:
        if self._fixed is not None and self._compiled is not None:
            self._compiled.end(self._fixed)
        self._fixed = None
        self._cache: Any = new_cache(self.model)
        self.lengths: list[int] = []
        self._held = 0  # columns of the cache, padding included

    @torch.inference_mode()
    def prefill(
        self, texts: Sequence[Sequence[int]], computed: Sequence[KeyValues | None] = (), positions: int = 1
    ) -> torch.Tensor:
        """Feeds whole texts, none empty, to an empty cache, and gives the logits of the token after each of the
        last positions, float32 [rows, positions, vocab]. `computed` are for each row keys and values of its first
        tokens, of fewer than the text has. All rows are fed as many tokens as the row that has most of them new,
        and at least `positions`: what would be padding of the others is computed again, so that no row has a
        gap."""
        sizes = [len(text) for text in texts]
        starts = [0 if each is None else _tokens(each) for each in computed] or [0] * len(texts)
        new = max(size - start for size, start in zip(sizes, starts, strict=True))
        starts = [max(0, size - new) for size in sizes]
        if any(starts):
            self._begin(computed, starts, max(sizes) - new)
        self.lengths = starts
        fed = [list(text[start:]) for text, start in zip(texts, starts, strict=True)]
        return self._forward(fed, positions)

    @torch.inference_mode()
    def feed(self, ids: Sequence[int], positions: int) -> torch.Tensor:
        """Feeds a cache with a single row, or the first one of an empty cache; gives the logits of the token after
        each of the last positions, at least 1, float32 [1, positions, vocab]."""
        self.lengths = self.lengths or [0]
        return self._forward([list(ids)], positions)

    @torch.inference_mode()
    def advance(self, tokens: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Feeds one token to each row: ids, or int64 [rows] on the model's device; gives the logits of the token
        after it, float32 [rows, 1, vocab]."""
        if not isinstance(tokens, torch.Tensor):
            tokens = torch.tensor(tokens, device=self.model.device)
        logits = self._advance_compiled(tokens.unsqueeze(-1))
        return self._forward(tokens.unsqueeze(-1)) if logits is None else logits

    def _advance_compiled(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """What `_forward` gives, by a compiled forward; None where there is none."""
        compiled = self._compiled
        if compiled is None or compiled.problem or not self.joins:
            return None
        if self._fixed is not None and self._held >= self._fixed.shape[1]:
            self.settle()
        try:
            if self._fixed is None:
                self._fixed = compiled.begin(self._cache.layers, self.lengths, self._held)
            logits = compiled.advance(self._fixed, tokens, self.lengths)
        except (KeyboardInterrupt, torch.OutOfMemoryError):
            self.release()
            raise
        except Exception as error:  # the compiler's own, of any kind; what is held is as it was
            compiled.problem = first_line(error)
            self.settle()
            return None
        self.lengths, self._held = [length + 1 for length in self.lengths], self._held + 1
        return logits.float()

    def settle(self) -> None:
        """Copies keys and values back from where compiled forwards had them."""
        if self._fixed is not None and self._compiled is not None:
            self._fixed.give(self._cache.layers, self.rows, self._held)
            self._compiled.end(self._fixed)
        self._fixed = None

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Keeps these rows, in this order, and drops the others' keys and values."""
        if list(rows) == list(range(self.rows)):
            return
        if not rows:
            self.release()
            return
        self.settle()
        # meant for beams, but the only selection that layers with a running state have as well
        self._cache.reorder_cache(torch.tensor(rows, device=self.model.device))
        self.lengths = [self.lengths[row] for row in rows]
        spare = self._held - max(self.lengths)
        if spare > 0 and self.joins:
            for layer in self._cache.layers:
                layer.cut_left(spare)
            self._held -= spare

    @torch.inference_mode()
    def join(self, other: BatchedKVCache) -> None:
        """Takes in the rows of another cache over the same model, which is then empty; both must `joins`."""
        self.settle()
        other.settle()
        held = max(self._held, other._held)
        for mine, theirs in zip(self._cache.layers, other._cache.layers, strict=True):
            mine.place([(mine.keys, mine.values), (theirs.keys, theirs.values)], held)
        self.lengths, self._held = self.lengths + other.lengths, held
        other.release()

    @torch.inference_mode()
    def copy_row(self, row: int, tokens: int) -> KeyValues:
        """Keys and values of a row's first tokens, without its padding."""
        self.settle()
        pad = self._held - self.lengths[row]
        part = slice(row, row + 1), slice(None), slice(pad, pad + tokens)
        return [(layer.keys[part].clone(), layer.values[part].clone()) for layer in self._cache.layers]

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token of a row; 0 for what keeps a running state."""
        layers = self._cache.layers if self.joins else []
        held: int = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
        return held // (self.rows * self._held)

    @torch.inference_mode()
    def begin(self, computed: KeyValues) -> None:
        """Begins an empty cache with the first tokens of one row that are computed already."""
        tokens = _tokens(computed)
        self._begin([computed], [tokens], tokens)
        self.lengths = [tokens]

    def trim(self, tokens: int) -> bool:
        """Takes back the last tokens of a single row; False where a running state cannot go back."""
        self.settle()
        try:
            self._cache.crop(-tokens)
        except (RuntimeError, ValueError, AttributeError):
            return False
        self.lengths[0] -= tokens
        self._held -= tokens
        return True

    def _begin(self, computed: Sequence[KeyValues | None], starts: Sequence[int], columns: int) -> None:
        """Lays the computed keys and values out, right-aligned in `columns`."""
        layers = self._cache.layers
        for number, like in enumerate(next(each for each in computed if each is not None)):
            rows = []
            for each, start in zip(computed, starts, strict=True):
                keys, values = like if each is None else each[number]
                rows.append((keys[:, :, :start], values[:, :, :start]))
            if number == len(layers):
                layers.append(self._cache.layer_class_to_replicate())
            layers[number].place(rows, columns)
        self._held = columns

    def _forward(self, new: list[list[int]] | torch.Tensor, positions: int = 1) -> torch.Tensor:
        """Logits of the last `positions` positions of each row, float32 [rows, positions, vocab]."""
        self.settle()
        device = self.model.device
        if isinstance(new, torch.Tensor):
            sizes, longest, ids = [1] * self.rows, 1, new
        else:
            sizes = [len(each) for each in new]
            longest = max(sizes)
            # any id will do for padding: the mask hides it
            ids = torch.tensor([[0] * (longest - len(each)) + each for each in new], device=device)
        after = [length + size for length, size in zip(self.lengths, sizes, strict=True)]
        columns = self._held + longest
        padded = any(length < columns for length in after)
        arguments: dict[str, Any] = {self._cache_argument: self._cache, "use_cache": True}
        ends = torch.tensor(after, device=device).unsqueeze(-1)
        if padded:
            mask = (torch.arange(columns, device=device) >= columns - ends).to(torch.int64)
            # a running state has no past positions to hide, only new ones
            whole = self._cache_argument == "past_key_values"
            arguments["attention_mask"] = mask if whole else mask[:, -longest:]
        if "position_ids" in self._takes:
            arguments["position_ids"] = (torch.arange(-longest, 0, device=device) + ends).clamp(min=0)
        if "logits_to_keep" in self._takes:
            arguments["logits_to_keep"] = positions
        if self.joins:
            for layer in self._cache.layers:
                # transformers then builds the mask without asking the device whether it hides anything
                layer.is_compileable = padded
        try:
            with fast_small_batch():
                output = self.model(ids, **arguments)
        except BaseException:
            # an interrupted forward leaves layers of different lengths: nothing held can be trusted
            self.release()
            raise
        self.lengths, self._held = after, columns
        logits: torch.Tensor = output.logits[:, -positions:].float()
        return logits


def _tokens(computed: KeyValues) -> int:
    return int(computed[0][0].shape[-2])
