"""Products of a weight and a few rows on a CPU, at the speed at which memory gives the weight.

Decoding reads every weight for one or two rows. For so few PyTorch multiplies a float32 weight two to five times
slower than memory can be read on some processors, and lays a bfloat16 weight out anew each time. So a bfloat16
weight is laid out once for oneDNN, in the place of the original; a float32 product is computed with the weight on
the left where that was measured to be faster, but only inside the engine's forwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from adacd_cli.engine.memory import drop_pages, mapped_files, return_freed_memory

# a model whose weights are smaller has them in the processor's cache, where there is nothing to gain
_LEAST_BYTES = 64_000_000
# how much of the free memory copies of float32 weights may take; where they need more, none is made
_SHARE_OF_FREE_MEMORY = 0.25
# float32: up to this many rows the weight is read in place, and the way is tried; above it is copied
_FEW = 4
# float32: for more rows computing costs more than reading, and PyTorch's own way is as good as any
_MOST = 32
# weights of one shape that a way is tried on: more than a processor's cache holds, as in decoding
_TRIED_BYTES = 64_000_000
_GAIN = 0.9  # another way is taken where it needs less than this share of PyTorch's own time


class _Here(threading.local):
    """What holds on this thread alone: another may use the same model in its own way."""

    active = False


_here = _Here()


class fast_small_batch:
    """Within it the model's float32 products take the fastest way that was found, on this thread."""

    def __enter__(self) -> None:
        self._before, _here.active = _here.active, True

    def __exit__(self, *_: object) -> None:
        _here.active = self._before


def _plain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return linear(x, weight, bias)


def _turned(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """W·xᵀ; one row is doubled, because a product with a vector is the slow one."""
    rows = x if x.shape[0] > 1 else x.repeat(2, 1)
    product = torch.mm(weight, rows.t()).t()[: x.shape[0]].contiguous()
    return product if bias is None else product + bias


def _packed(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product


def _pack(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
    return packed


_Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


class _PackedLinear(torch.nn.Linear):
    """A bfloat16 layer that holds its weight as oneDNN lays it out, and nowhere else; made of a linear layer by
    changing its class. `weight` is unpacked for whoever reads it, and cannot be changed in place."""

    packed_weight: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        with torch.inference_mode():  # such a tensor refuses changes, which would be lost
            return self.packed_weight.to_dense()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        trains = torch.is_grad_enabled() and input.requires_grad
        if input.dtype is not torch.bfloat16 or trains or input.numel() == 0:
            return linear(input, self.packed_weight.to_dense(), self.bias)
        product = _packed(input.reshape(-1, self.in_features), self.packed_weight, self.bias)
        return product.view(*input.shape[:-1], -1)


class _Float32Linear(torch.nn.Linear):
    """A float32 layer that takes the way found for its shape; made of a linear layer by changing its class."""

    ways: tuple[_Way, ...]  # for 1, 2, … rows
    _copy: tuple[int, torch.Tensor] | None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows = input.numel() // self.in_features
        way = self.ways[rows - 1] if _here.active and 0 < rows <= len(self.ways) else _plain
        if way is _plain or input.dtype is not self.weight.dtype:
            return linear(input, self.weight, self.bias)
        weight = self._packed_copy() if way is _packed else self.weight
        return way(input.reshape(rows, -1), weight, self.bias).view(*input.shape[:-1], -1)

    def _packed_copy(self) -> torch.Tensor:
        """The weight as oneDNN lays it out, made when it is first needed and whenever it was changed."""
        version = self.weight._version
        if self._copy is None or self._copy[0] != version:
            self._copy = version, _pack(self.weight.detach())
        return self._copy[1]


@torch.inference_mode()
def speed_up(model: Any, free_bytes: int | None) -> None:
    """Makes the products of the model's linear layers faster; does nothing where nothing is to be gained. Tokens
    are those of PyTorch's own products: bfloat16 gives the same numbers, float32 the same up to the order in which
    they are added. Where it is not known how much memory is free, no float32 weight is copied."""
    layers: dict[tuple[torch.Size, torch.dtype], list[torch.nn.Linear]] = {}
    for module in model.modules():
        if type(module) is torch.nn.Linear and module.weight.device.type == "cpu":
            layers.setdefault((module.weight.shape, module.weight.dtype), []).append(module)
    needed = sum(module.weight.nbytes for same in layers.values() for module in same)
    if needed < _LEAST_BYTES:
        return
    copies = free_bytes is not None and needed <= _SHARE_OF_FREE_MEMORY * free_bytes and _can_pack()
    for (_, dtype), same in layers.items():
        if dtype is torch.bfloat16 and _can_pack():
            files = mapped_files()
            for module in same:
                weight = module._parameters.pop("weight")
                assert weight is not None
                module.__class__ = _PackedLinear
                module.packed_weight = _pack(weight.detach())
                drop_pages(files, weight.data_ptr(), weight.nbytes)
            del weight
            return_freed_memory()  # what the originals took, unless an embedding has them too
        elif dtype is torch.float32:
            above = _packed if copies else _plain
            ways = _fastest([module.weight for module in same]) + (above,) * (_MOST - _FEW)
            if any(way is not _plain for way in ways):
                for module in same:
                    module.__class__ = _Float32Linear
                    module.ways, module._copy = ways, None  # type: ignore[assignment]


def _can_pack() -> bool:
    """Whether this PyTorch has oneDNN's products; inductor calls them by the same names."""
    ops = torch.ops.mkldnn
    here: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return here and all(hasattr(ops, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))


def _fastest(weights: list[torch.Tensor]) -> tuple[_Way, ...]:
    """The faster way to read float32 weights of one shape in place, for 1 to `_FEW` rows."""
    most = max(1, _TRIED_BYTES // weights[0][0].nbytes)
    tried = [weight[:most] for weight in weights[: max(1, _TRIED_BYTES // weights[0].nbytes)]]
    found: list[_Way] = []
    for rows in (1, 2, _FEW):
        x = torch.randn(rows, tried[0].shape[-1])
        # the lesser of two passes each, in turn: whoever else is busy slows both
        passes = [[_seconds(way, x, tried) for way in (_plain, _turned)] for _ in range(2)]
        plain, turned = map(min, zip(*passes, strict=True))
        found += [_turned if turned < _GAIN * plain else _plain] * (rows - len(found))
    return tuple(found)


def _seconds(way: _Way, x: torch.Tensor, weights: Sequence[torch.Tensor]) -> float:
    begin = time.perf_counter()
    for weight in weights:
        way(x, weight, None)
    return time.perf_counter() - begin
