"""What a model needs of memory, from its files alone, against the memory that is there.

So a model that does not fit is said without trying: on a CPU the system would end the process without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adacd_cli.counting import amount, counted
from adacd_cli.doctor.finding import Finding, failed, fine, skipped, warned
from adacd_cli.doctor.verdict import NO_FIT

if TYPE_CHECKING:
    import torch

    from adacd_cli.config import Settings
    from adacd_cli.loading.folder import Checkpoint
    from adacd_cli.loading.source import Source

PROMPT_TOKENS = 256
"""A prompt of ordinary length: a paragraph."""

_TIGHT = 0.9
"""Share of the free memory from which on it is called tight. The rest is for what was not counted: the
vocabulary, the activations of a prompt, and what other programs take in the meantime."""


@dataclass(frozen=True)
class Need:
    """What a model needs; see `estimate`.

    Attributes:
        model: what the user called it.
        dtype: the number format it computes in.
        elements: how many weights it has; None where its files do not say.
        weights: bytes of the weights; None where they are not known.
        loading: bytes that loading takes besides, for the largest tensor while it is converted.
        cache: bytes of the keys and values of two streams of `tokens`; 0 where that is not known.
        tokens: of a prompt and its answer.
        max_new_tokens: of the answer alone.
    """

    model: str
    dtype: str
    elements: int | None
    weights: int | None
    loading: int
    cache: int
    tokens: int
    max_new_tokens: int

    @property
    def peak(self) -> int:
        """Bytes at the worst moment: loading, or answering."""
        return (self.weights or 0) + max(self.loading, self.cache)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The numbers as JSON values."""
        return {
            "dtype": self.dtype,
            "elements": self.elements,
            "weights_bytes": self.weights,
            "loading_bytes": self.loading,
            "cache_bytes": self.cache,
            "tokens": self.tokens,
        }


def estimate(settings: Settings, source: Source, device: torch.device) -> Need:
    """What the model of these files will need, as far as they tell.

    Args:
        settings: the settings of the panel Model are read, and `max_new_tokens`.
        source: the model's files.
        device: where it will run.

    Raises:
        ModelError: the files are damaged, not complete, or of something else than a causal language model.
    """
    from adacd_cli.bench.memory import cache_bytes
    from adacd_cli.loading.folder import inspect
    from adacd_cli.loading.hardware import choose_dtype, weight_bytes
    from adacd_cli.loading.kind import causal_config, gguf_config
    from adacd_cli.loading.tokenizer import context_length

    name = settings.model
    checkpoint: Checkpoint | None = None
    elements: int | None
    if source.gguf:
        config = gguf_config(source, name)
        stored, elements = "GGUF", _elements(config)
    else:
        checkpoint = inspect(source.folder, name)
        config = causal_config(checkpoint, name, trust_remote_code=settings.trust_remote_code)
        stored, elements = checkpoint.dtype, checkpoint.elements
    # for a GGUF file the loader does not count the weights, and takes them for many
    chosen = choose_dtype(settings.dtype, stored, device, None if checkpoint is None else elements)
    if isinstance(chosen, str):  # the checkpoint's own number format
        itemsize, dtype = 4 if stored == "F32" else 2, _NAMES.get(stored, stored)
    else:
        itemsize, dtype = chosen.itemsize, str(chosen).removeprefix("torch.")
    weights = None if elements is None else elements * itemsize
    if checkpoint is not None:
        weights = weight_bytes(checkpoint, chosen, settings.quantize)
    text = config.get_text_config(decoder=True)
    largest = (getattr(text, "vocab_size", None) or 0) * (getattr(text, "hidden_size", None) or 0)
    converts = _NAMES.get(stored, stored) != dtype
    limit = context_length(config)
    tokens = PROMPT_TOKENS + settings.max_new_tokens
    tokens = tokens if limit is None else min(tokens, limit)
    return Need(
        model=name,
        dtype=settings.quantize or dtype,
        elements=elements,
        weights=weights,
        loading=4 * largest if converts else 0,
        cache=2 * cache_bytes(config, tokens, itemsize),
        tokens=tokens,
        max_new_tokens=settings.max_new_tokens,
    )


_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def free_for(device: torch.device) -> int | None:
    """Bytes free for a model there, on all GPUs where it may be spread over several; None if unknown."""
    import torch

    from adacd_cli.loading.hardware import free_on

    several = range(torch.cuda.device_count()) if device.type == "cuda" and device.index is None else ()
    if len(several) < 2:
        return free_on(device)
    return sum(free_on(torch.device("cuda", each)) or 0 for each in several)


def _elements(config: Any) -> int | None:
    """How many weights a model of this configuration has; None where it cannot be built without them."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    try:
        with no_init_weights(), torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config)
            empty.tie_weights()  # which building without weights leaves out
            return sum(int(each.numel()) for each in empty.parameters())
    except Exception:  # the loader will say what is wrong with it
        return None


def check_memory(need: Need, free: int | None, device: str) -> Finding:
    """Whether the model and an answer fit into the memory that is there.

    Args:
        need: what the model needs.
        free: bytes of free memory; None where nothing tells.
        device: where.
    """
    facts = {**need.facts, "free_bytes": free}
    if need.weights is None:
        return skipped(
            "memory",
            "Its files do not say how much memory it needs.",
        )
    weights = f"{amount(need.weights)} in {need.dtype}"
    if free is None:
        return skipped(
            "memory",
            f"Its weights need {weights}; how much memory is free is not known.",
        )
    there = f"{amount(free)} are free on {device}"
    if need.weights > free:
        return failed(
            "memory",
            f"Its weights need {weights}, and {there}.",
            f"{_narrower(need.dtype)} a smaller model.",
            facts,
            NO_FIT,
        )
    need_all = (
        f"Its weights need {weights}, and both streams of a prompt and an answer, "
        f"{counted(need.tokens, 'token')} in all, {amount(need.cache)}"
    )
    if need.weights + need.cache > free:
        return failed(
            "memory",
            f"{need_all}; that does not fit: {there}.",
            f"Lower --max-new-tokens, which is {need.max_new_tokens:,}, or use a smaller model.",
            facts,
            NO_FIT,
        )
    if need.peak > _TIGHT * free:
        return warned(
            "memory",
            f"{need_all}; that is tight: {there}.",
            f"{_narrower(need.dtype)} end other programs first.",
            facts,
        )
    return fine("memory", f"{need_all}; {there}.", facts)


def _narrower(dtype: str) -> str:
    """What takes fewer bytes a weight, as the beginning of a sentence that ends in another way out."""
    if dtype.endswith(("4bit", "int4")):
        return "Use a machine with more memory, or"
    quantize = "--quantize bnb-4bit"
    return f"Use --dtype bfloat16, {quantize}, or" if dtype == "float32" else f"Use {quantize}, or"
