"""The keys and values of the rows of a batch, with room to grow or, for compiled forwards, of fixed shapes; and
`Rope`, which says when they change.

A growing layer writes new tokens into room that it already has, where transformers' own copies everything it holds.
Rows are aligned at their last token: what is left of a shorter one is padding, which the mask hides. So rows can be
dropped, joined and carried over, and padding of all of them is cut off without a copy.

One-token forwards are compiled for fixed shapes: on a GPU as CUDA graphs, so no step waits for Python. Rows are
rounded up to a power of two and columns to a bucket, so few shapes are compiled; inductor keeps them on disk. A
cache copies its keys and values in when it begins to advance, and out when something else is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer

ROOM = 128  # tokens that a buffer is made longer by, and is a multiple of
_LEAST_COLUMNS = 256
_SHAPES = 64  # how many shapes may be compiled; PyTorch itself gives up silently after eight
_ATTENTION_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
Tensors = tuple[torch.Tensor, torch.Tensor]  # keys and values of a layer, [rows, heads, tokens, dim] each


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A full-attention layer whose `keys` and `values` are views of longer buffers."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: Tensors | None = None
        self._start = 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **more: Any) -> Tensors:
        """Appends the new tokens' keys and values and gives those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held, new = self.get_seq_length(), key_states.shape[-2]
        if self._buffers is None or self._start + held + new > self._buffers[0].shape[-2]:
            old = (self.keys, self.values) if held else None
            self._make_room(key_states, value_states, held + new)
            if old is not None:
                self._write(0, *old)
        self._write(held, key_states, value_states)
        return self._show(held + new)

    def place(self, rows: Sequence[Tensors], tokens: int) -> None:
        """Holds these rows, [n, heads, its tokens, dim] each and on this layer's device, instead of what it held,
        each ending at the last of `tokens`: more than a row has are padding."""
        count = sum(keys.shape[0] for keys, _ in rows)
        keys, values = (each.new_empty((count, each.shape[1], 0, each.shape[3])) for each in rows[0])
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self._make_room(keys, values, tokens)
        assert self._buffers is not None
        for buffer, parts in zip(self._buffers, zip(*rows, strict=True), strict=True):
            first = 0
            for part in parts:
                pad, end = tokens - part.shape[-2], first + part.shape[0]
                buffer[first:end, :, :pad] = 0  # hidden, but NaN would shine through any mask
                buffer[first:end, :, pad:tokens] = part
                first = end
        self._show(tokens)

    def cut_left(self, tokens: int) -> None:
        if self.is_initialized:
            self._start += tokens
            self._show(self.get_seq_length() - tokens)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        if self._buffers is None:
            return
        index = beam_idx.to(self.keys.device)
        chosen = self.keys.index_select(0, index), self.values.index_select(0, index)
        self.place([chosen], self.get_seq_length())

    def _make_room(self, keys: torch.Tensor, values: torch.Tensor, tokens: int) -> None:
        length = (tokens // ROOM + 1) * ROOM
        self._start = 0
        self._buffers = tuple(  # type: ignore[assignment]
            each.new_empty((each.shape[0], each.shape[1], length, each.shape[3])) for each in (keys, values)
        )

    def _write(self, place: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        assert self._buffers is not None
        for buffer, new in zip(self._buffers, (keys, values), strict=True):
            buffer.narrow(-2, self._start + place, new.shape[-2]).copy_(new)

    def _show(self, tokens: int) -> Tensors:
        assert self._buffers is not None
        self.keys, self.values = (buffer.narrow(-2, self._start, tokens) for buffer in self._buffers)
        return self.keys, self.values


@dataclass(frozen=True)
class Rope:
    """How a model's keys depend on the text's length; for most models not at all. "longrope" (Phi-3 with 128k)
    turns all keys of a text otherwise that is longer than the length it was first trained for; "dynamic" does so
    for every length past that. A beginning then can be neither read apart from the rest nor taken over from another
    text."""

    borders: tuple[int, ...] = ()  # lengths; a text that is longer has other keys from its first token on
    limits: tuple[int, ...] = ()  # lengths past which every length has its own

    def alike(self, first: int, second: int) -> bool:
        """Whether texts of these lengths have the same keys as far as they begin alike."""
        longer = max(first, second)
        return self.side(first) == self.side(second) and all(longer <= limit for limit in self.limits)

    def side(self, tokens: int) -> tuple[bool, ...]:
        """On which side of each border a text of this length is: rows of one forward must be on the same."""
        return tuple(tokens > border for border in self.borders)


def text_config_of(model: Any) -> Any:
    """The configuration of the model's text decoder; None where it has none."""
    config = getattr(model, "config", None)
    return None if config is None else config.get_text_config(decoder=True)


def rope_of(model: Any) -> Rope:
    """What a model's configuration says of it."""
    text = text_config_of(model)
    parameters = getattr(text, "rope_parameters", None) or {}
    found: dict[str, list[int]] = {"longrope": [], "dynamic": []}
    for kind in (parameters, *parameters.values()):  # of all layers, or by the kind of layer
        if isinstance(kind, Mapping) and kind.get("rope_type") in found:
            length = kind.get("original_max_position_embeddings") or text.max_position_embeddings
            found[kind["rope_type"]].append(length)
    return Rope(tuple(found["longrope"]), tuple(found["dynamic"]))


def new_cache(model: Any) -> Any:
    """An empty cache for the model. Every attention layer keeps everything, so any number of tokens can be taken
    back, sliding windows included. Layers that hold a state instead of keys and values need the config to be laid
    out at all, and get transformers' own cache."""
    config, text = getattr(model, "config", None), text_config_of(model)
    kinds: list[str] = getattr(text, "layer_types", None) or []
    if not _ATTENTION_KINDS.issuperset(kinds) or bool(getattr(text, "num_kv_shared_layers", 0)):
        return DynamicCache(config=config)
    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    return cache


def columns_for(held: int) -> int:
    """The bucket that holds one token more than `held`: 256, 512, 1024, …"""
    return max(_LEAST_COLUMNS, 1 << held.bit_length())


def uncompiled(name: str, problem: str) -> str:
    """What to tell of a model that is decoded without compiled forwards."""
    why = problem.rstrip(".")
    return f"{name} could not be compiled: {why}. Decoding goes on without; the tokens are the same."


class Compiled:
    """The compiled forwards of one model, which has attention layers only. `problem` says why forwards are not
    compiled any more, "" while they are; `told`: whether the user was told of it."""

    def __init__(self, model: Any, backend: str = "inductor") -> None:
        self.model = model
        self.problem = ""
        self.told = False
        self._free: dict[tuple[int, int], list[_Fixed]] = {}
        graphs = "reduce-overhead" if model.device.type == "cuda" else None
        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, _SHAPES)
        self._call: Callable[..., Any] = torch.compile(
            model.__call__, backend=backend, fullgraph=True, dynamic=False, mode=graphs
        )

    def begin(self, layers: Sequence[GrowingLayer], lengths: Sequence[int], held: int) -> _Fixed:
        """Copies keys and values in, for `advance` to go on with; give the result back with `end`."""
        shape = 1 << (len(lengths) - 1).bit_length(), columns_for(held)
        free = self._free.setdefault(shape, [])
        # not under inference mode, whose tensors a compiled graph may not change
        with torch.inference_mode(False), torch.no_grad():
            fixed = free.pop() if free else _Fixed(layers, *shape)
            fixed.fill(layers, lengths, held)
        return fixed

    def end(self, fixed: _Fixed) -> None:
        """Takes back what `begin` gave, for the next stream of its shape."""
        self._free[fixed.shape].append(fixed)

    def advance(self, fixed: _Fixed, tokens: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """The logits after one more token of each row, [rows, 1, vocab]; `tokens` are int64 [rows, 1], and
        `lengths` says how many each row was fed before."""
        rows = len(lengths)
        with torch.inference_mode(False), torch.no_grad():
            fixed.ids[:rows] = tokens
            fixed.positions[:rows, 0] = torch.tensor(lengths, device=tokens.device)
            output = self._call(
                fixed.ids,
                attention_mask=fixed.mask,
                position_ids=fixed.positions,
                past_key_values=fixed.cache,
                use_cache=True,
                logits_to_keep=1,
            )
            # a CUDA graph writes its next output to the same place
            logits: torch.Tensor = output.logits[:rows].clone()
        return logits


class _Fixed:
    """Inputs and a cache whose shapes and addresses stay."""

    def __init__(self, layers: Sequence[GrowingLayer], rows: int, columns: int) -> None:
        self.shape = rows, columns
        self.cache = Cache(layers=[StaticLayer(columns) for _ in layers])
        for fixed, layer in zip(self.cache.layers, layers, strict=True):
            both = layer.keys, layer.values
            fixed.lazy_initialization(
                *(each.new_empty((rows, each.shape[1], 1, each.shape[3])) for each in both)
            )
        device = layers[0].keys.device
        self.ids = torch.zeros((rows, 1), dtype=torch.int64, device=device)
        self.positions = torch.zeros_like(self.ids)
        self.mask = torch.ones((rows, columns), dtype=torch.int64, device=device)

    def fill(self, layers: Sequence[GrowingLayer], lengths: Sequence[int], held: int) -> None:
        rows = len(lengths)
        for fixed, layer in zip(self.cache.layers, layers, strict=True):
            fixed.keys[:rows, :, :held] = layer.keys
            fixed.values[:rows, :, :held] = layer.values
            fixed.cumulative_length.fill_(held)
        pads = torch.tensor([held - length for length in lengths], device=self.mask.device)
        self.mask.fill_(1)
        self.mask[:rows] = torch.arange(self.shape[1], device=self.mask.device) >= pads.unsqueeze(-1)

    def give(self, layers: Sequence[GrowingLayer], rows: int, held: int) -> None:
        for fixed, layer in zip(self.cache.layers, layers, strict=True):
            whole: Tensors = fixed.keys[:rows, :, :held], fixed.values[:rows, :, :held]
            layer.place([whole], held)
