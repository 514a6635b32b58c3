"""The weights through transformers: loaded whole or refused, then tried with one token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from adacd_cli.engine.memory import is_out_of_memory
from adacd_cli.errors import AdacdError, MissingExtraError, ModelError, OutOfMemoryError, first_line
from adacd_cli.loading.files import Source

_COMPUTED = ("inv_freq", "attn.bias", "masked_bias", "position_ids")
"""Ends of names that old checkpoints may lack or hold: buffers a model computes for itself."""

_AGAIN = "Download or save the model again."


def load_weights(source: Source, name: str, kind: Any = None, **options: Any) -> tuple[Any, tuple[str, ...]]:
    """The model, in eval mode, with every weight from the checkpoint.

    Args:
        kind: transformers' auto class; None is AutoModelForCausalLM.
        options: passed to `from_pretrained`: config, dtype, device_map, …

    Returns:
        The model, and warnings about tensors of the checkpoint that it does not use.

    Raises:
        ModelError: a tensor is missing or has another shape, or transformers cannot build the model.
        MissingExtraError: the checkpoint is quantised by a package that is not installed.
        OutOfMemoryError: the weights do not fit.
    """
    from transformers import AutoModelForCausalLM

    files = {"use_safetensors": True} if source.gguf is None else {"gguf_file": source.gguf}
    try:
        # Mismatched shapes are asked for here only to be refused below with their names.
        model, info = (kind or AutoModelForCausalLM).from_pretrained(
            source.folder, output_loading_info=True, ignore_mismatched_sizes=True, **files, **options
        )
    except Exception as error:  # transformers has no exception class of its own
        hint = "Leave --quantize out, or choose another kind of it."
        raise _translated(error, name, hint if "quantization_config" in options else _AGAIN) from error
    for tensor, stored, wanted in sorted(info["mismatched_keys"]):
        shapes = ["×".join(map(str, shape)) for shape in (stored, wanted)]
        raise ModelError(
            f"The weights of {name} do not fit its config.json: {tensor} is {shapes[0]} and should be {shapes[1]}.",
            "Put back the config.json of these weights, or download or save the model again.",
        )
    if missing := _first_of(info["missing_keys"]):
        raise ModelError(f"The weights of {name} are not complete: {missing} is missing.", _AGAIN)
    if unused := _first_of(info["unexpected_keys"]):
        return model.eval(), (f"The checkpoint holds tensors that this model does not use: {unused}.",)
    return model.eval(), ()


def smoke_run(model: Any, token_id: int, name: str) -> None:
    """One forward of one token: a dtype or device that does not work is found before the first answer. ModelError
    where the forward fails, or gives logits that are not finite; OutOfMemoryError where there is no memory for
    it."""
    place = f"{str(model.dtype).removeprefix('torch.')} on {model.device}"
    hint = "Try --dtype float32." if model.dtype != torch.float32 else "Try another --device."
    try:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[token_id]], device=model.device)).logits
        finite = bool(torch.isfinite(logits).all())
    except Exception as error:
        if is_out_of_memory(error):
            raise _translated(error, name, hint) from error
        raise ModelError(f"{name} does not run in {place}: {_reason(error)}.", hint) from error
    if not finite:
        damaged = "The checkpoint is probably damaged: download or save the model again."
        if model.dtype != torch.float32:
            damaged = "Try --dtype float32; if it stays so, the checkpoint is damaged."
        raise ModelError(f"{name} gives NaN or infinite logits in {place}.", damaged)


def _translated(error: Exception, name: str, hint: str) -> AdacdError:
    if is_out_of_memory(error):
        return OutOfMemoryError(
            f"There is not enough memory to load {name}.",
            "Use --quantize bnb-4bit, --dtype bfloat16, or a smaller model.",
        )
    if isinstance(error, ImportError):
        return MissingExtraError(
            f"{name} needs a package that is not installed: {_reason(error)}.",
            "Install that package with pip.",
        )
    return ModelError(f"{name} could not be loaded: {_reason(error)}.", hint)


def _reason(error: BaseException) -> str:
    return first_line(error).rstrip(".:")


def _first_of(keys: Iterable[str]) -> str:
    """The first name that is a weight's, and how many more there are; "" where there is none."""
    names = sorted(key for key in keys if not key.endswith(_COMPUTED))
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"{names[0]}{more}" if names else ""
