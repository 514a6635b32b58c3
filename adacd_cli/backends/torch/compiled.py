"""One-token forwards compiled for fixed shapes: on a GPU as CUDA graphs, so that no step waits for Python.

Rows are rounded up to a power of two and columns to a bucket, so that few shapes are ever compiled; what is
compiled stays in inductor's cache on disk. Nothing else is compiled: a cache copies its keys and values in when it
begins to advance, and out again when something else is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, StaticLayer

from adacd_cli.backends.torch.kv_cache import GrowingLayer, Tensors

_LEAST_COLUMNS = 256
_SHAPES = 64  # how many shapes may be compiled; PyTorch itself gives up silently after eight


def columns_for(held: int) -> int:
    """The bucket that holds one token more than `held`: 256, 512, 1024, …"""
    return max(_LEAST_COLUMNS, 1 << held.bit_length())


def uncompiled(name: str, problem: str) -> str:
    """What to tell of a model that is decoded without compiled forwards."""
    return (
        f"{name} could not be compiled: {problem.rstrip('.')}. "
        "Decoding goes on without; the tokens are the same."
    )


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
            like = (
                each.new_empty((rows, each.shape[1], 1, each.shape[3])) for each in (layer.keys, layer.values)
            )
            fixed.lazy_initialization(*like)
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
