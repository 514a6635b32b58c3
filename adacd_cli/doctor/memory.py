"""How much memory a model needs, from its files alone, against the memory that is free.

So a model that does not fit is not even tried: on a CPU the system would kill the process without a message.
"""

from __future__ import annotations

import glob
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from adacd_cli.config import Settings
from adacd_cli.counting import amount, counted
from adacd_cli.doctor.findings import NO_FIT, Finding, checked, skipped
from adacd_cli.errors import ModelError
from adacd_cli.loading import hardware
from adacd_cli.loading.files import Source, inspect
from adacd_cli.loading.pretrained import causal_config, context_length, gguf_config

if TYPE_CHECKING:
    import torch

PROMPT_TOKENS = 256  # an ordinary prompt: a paragraph

_TIGHT = 0.9
"""Share of the free memory above which it is tight: logits, activations and other programs were not counted."""

_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class Need:
    """What a model needs; see `estimate`."""

    dtype: str  # the number format it computes in, or how it is quantised
    elements: int | None  # these two of its weights; None where its files do not say
    weights_bytes: int | None
    loading_bytes: int  # in addition while it is loaded, for the largest tensor while it is converted
    cache_bytes: int  # of the keys and values of two streams of `tokens`; 0 where unknown
    tokens: int  # of a prompt and its answer
    max_new_tokens: int


def estimate(settings: Settings, source: Source, device: torch.device) -> Need:
    """What the model of these files will need, as far as they tell. ModelError where the files are damaged, not
    complete, or of something else than a causal language model."""
    name, checkpoint = settings.model, None if source.gguf else inspect(source.folder, settings.model)
    if checkpoint is None:
        config, stored = gguf_config(source, name), "GGUF"
        # the loader does not count the weights of a GGUF file, and takes them for many
        elements, chosen = _elements(config), hardware.choose_dtype(settings.dtype, stored, device, None)
    else:
        config = causal_config(checkpoint, name, trust_remote_code=settings.trust_remote_code)
        stored, elements = checkpoint.dtype, checkpoint.elements
        chosen = hardware.choose_dtype(settings.dtype, stored, device, elements)
    if isinstance(chosen, str):  # the checkpoint's own number format
        itemsize, dtype = 4 if stored == "F32" else 2, _NAMES.get(stored, stored)
    else:
        itemsize, dtype = chosen.itemsize, str(chosen).removeprefix("torch.")
    weights = None if elements is None else elements * itemsize
    if checkpoint is not None:
        weights = hardware.weight_bytes(checkpoint, chosen, settings.quantize)
    text = config.get_text_config(decoder=True)
    largest = (getattr(text, "vocab_size", None) or 0) * (getattr(text, "hidden_size", None) or 0)
    tokens = PROMPT_TOKENS + settings.max_new_tokens
    tokens = min(tokens, context_length(config) or tokens)
    return Need(
        dtype=settings.quantize or dtype,
        elements=elements,
        weights_bytes=weights,
        loading_bytes=0 if _NAMES.get(stored, stored) == dtype else 4 * largest,
        cache_bytes=2 * cache_bytes(config, tokens, itemsize),
        tokens=tokens,
        max_new_tokens=settings.max_new_tokens,
    )


def check_mapped(source: Source, free: int | None) -> Finding:
    """Whether a GGUF file, or all files of a model in several, fits into the free memory in bytes, as llama.cpp
    maps it."""
    assert source.gguf is not None
    stem, several, _ = source.gguf.partition("-00001-of-")
    parts = source.folder.glob(f"{glob.escape(stem)}*.gguf" if several else glob.escape(source.gguf))
    needed = sum(each.stat().st_size for each in parts)
    sentence, step = f"Its weights are mapped from the file, {amount(needed)}", ""
    if free is None:
        return skipped("memory", f"{sentence}; how much memory is free is unknown.")
    sentence += f"; {amount(free)} are free"
    if needed > free:
        sentence, step = f"{sentence}: it will be read again and again", "Use a smaller file."
    return checked("memory", {"weights_bytes": needed, "free_bytes": free}, f"{sentence}.", step)


def free_for(device: torch.device) -> int | None:
    """Bytes free for a model there, on all GPUs where it may be spread over several; None if unknown."""
    import torch

    several = range(torch.cuda.device_count()) if device.type == "cuda" and device.index is None else ()
    if len(several) < 2:
        return hardware.free_on(device)
    return sum(hardware.free_on(torch.device("cuda", each)) or 0 for each in several)


def cache_bytes(config: Any, tokens: int, itemsize: int) -> int:
    """Bytes of the keys and values of that many tokens; 0 for a model that keeps something else."""
    text = config.get_text_config(decoder=True)
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size", "num_key_value_heads", "head_dim")
    layers, heads, hidden, shared, width = (getattr(text, name, None) for name in names)
    if not layers or not heads or not hidden:
        return 0
    return int(tokens * 2 * layers * (shared or heads) * (width or hidden // heads) * itemsize)


def _elements(config: Any) -> int | None:
    """How many weights a model of this configuration has; None where it cannot be built without them."""
    import torch

    from adacd_cli.bench.subject import construct

    try:
        return sum(int(each.numel()) for each in construct("", config, torch.float32, "meta").parameters())
    except ModelError:  # the loader will say what is wrong with it
        return None


def check_memory(need: Need, free: int | None, device: str) -> Finding:
    """Whether the model and an answer fit into the free memory, in bytes; None where unknown."""
    if need.weights_bytes is None:
        return skipped("memory", "The model's files do not say how much memory it needs.")
    sentence, step, verdict = f"Its weights need {amount(need.weights_bytes)} in {need.dtype}", "", ""
    if free is None:
        return skipped("memory", f"{sentence}; how much memory is free is unknown.")
    narrower = f"Use {'--dtype bfloat16, ' if need.dtype == 'float32' else ''}--quantize bnb-4bit, or"
    if need.dtype.endswith(("4bit", "int4")):
        narrower = "Use a machine with more memory, or"
    available = f"{amount(free)} are free on {device}"
    if need.weights_bytes > free:
        sentence, step, verdict = f"{sentence}, and {available}.", f"{narrower} a smaller model.", NO_FIT
    else:
        tokens = counted(need.tokens, "token")
        sentence += f", and two streams of {tokens} (prompt and answer) {amount(need.cache_bytes)}; "
        if need.weights_bytes + need.cache_bytes > free:
            sentence, verdict = f"{sentence}that does not fit: {available}.", NO_FIT
            step = f"Lower --max-new-tokens, which is {need.max_new_tokens:,}, or use a smaller model."
        elif need.weights_bytes + max(need.loading_bytes, need.cache_bytes) > _TIGHT * free:
            sentence, step = f"{sentence}that is tight: {available}.", f"{narrower} end other programs first."
        else:
            sentence += f"{available}."
    return checked("memory", {**asdict(need), "free_bytes": free}, sentence, step, verdict)
