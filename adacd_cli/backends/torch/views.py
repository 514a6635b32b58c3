"""One model seen in another way: with an adapter, or without a direction in its residual stream. A view is called
like the model and shares its weights. What it switches on is on during its own calls only."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from adacd_cli.errors import ModelError

_ATTENTION = ("self_attn", "attention", "attn", "self_attention")
_FEED_FORWARD = ("mlp", "feed_forward", "ffn", "block_sparse_moe")


class _View:
    """Called like `model`; everything but the call is the model's own."""

    def __init__(self, model: Any) -> None:
        self._model = model

        @functools.wraps(model.forward)
        def forward(*args: Any, **kwargs: Any) -> Any:
            with self._switched():
                return model(*args, **kwargs)

        self.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def _switched(self) -> AbstractContextManager[Any]:
        raise NotImplementedError


class AdapterView(_View):
    def __init__(self, adapted: Any) -> None:
        self._adapter = adapted.base_model
        self._adapter.disable_adapter_layers()
        super().__init__(adapted.get_base_model())

    @contextmanager
    def _switched(self) -> Iterator[None]:
        try:
            self._adapter.enable_adapter_layers()
            yield
        finally:
            self._adapter.disable_adapter_layers()


class AblatedView(_View):
    """The model without a direction ŵ, [hidden], of any length but 0: x ← x − (x·ŵ)·ŵ at every block's input and
    after attention and MLP. After Wang et al. (ICLR 2025); at all positions, so it equals orthogonalised weights.
    ModelError where the blocks, or attention and MLP in them, cannot be found."""

    def __init__(self, model: Any, direction: torch.Tensor) -> None:
        self._unit = (direction / direction.norm()).float()  # not every device has float64
        self._copies: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}
        self._parts = [_parts_of(block, model) for block in find_blocks(model)]
        super().__init__(model)

    @contextmanager
    def _switched(self) -> Iterator[None]:
        handles = []
        for block, attention, feed_forward in self._parts:
            handles.append(block.register_forward_pre_hook(self._before, with_kwargs=True))
            handles += [part.register_forward_hook(self._after) for part in (attention, feed_forward)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (self._without(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self._without(kwargs["hidden_states"])}

    def _after(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (self._without(output[0]), *output[1:])
        return self._without(output)

    def _without(self, states: torch.Tensor) -> torch.Tensor:
        place = states.device, states.dtype
        if place not in self._copies:
            self._copies[place] = self._unit.to(*place)
        direction = self._copies[place]
        return states - (states @ direction).unsqueeze(-1) * direction


def find_blocks(model: Any) -> list[Any]:
    """The decoder's blocks, in order. ModelError where no list has as many modules as the config counts layers."""
    layers = model.config.get_text_config(decoder=True).num_hidden_layers
    for module in model.modules():
        blocks = isinstance(module, torch.nn.ModuleList) and len(module) == layers
        if blocks and hasattr(module[0], "forward"):
            return list(module)
    raise ModelError(
        f"The blocks of {type(model).__name__} cannot be found, so no direction can be removed from it.",
        "Method surgical runs on decoders with a list of blocks, such as Llama, Gemma-2, Qwen3 or Mistral.",
    )


def _parts_of(block: Any, model: Any) -> list[Any]:
    found = [block]
    for names in (_ATTENTION, _FEED_FORWARD):
        found += [getattr(block, name) for name in names if hasattr(block, name)][:1] or [None]
        if found[-1] is None:
            hint = "Method surgical runs on decoders whose blocks hold attention and an MLP."
            what = f"A block of {type(model).__name__} has no {names[0]}, so none can be removed."
            raise ModelError(what, hint)
    return found
