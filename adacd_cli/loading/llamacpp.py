"""A GGUF file on llama.cpp: when it is taken, what it refuses, and the model that it gives."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from adacd_cli.config.settings import Settings
from adacd_cli.errors import ConfigurationError
from adacd_cli.loading.files import Source
from adacd_cli.loading.machine import Load, free_memory, too_many_threads
from adacd_cli.loading.progress import Progress

if TYPE_CHECKING:
    from adacd_cli.engine.model import LanguageModel

_OTHERS = {
    "dtype": "a GGUF file is computed in its own number formats",
    "quantize": "a GGUF file is quantised already",
    "compile": "there is nothing to compile",
}


def loads_with_llamacpp(settings: Settings, source: Source) -> bool:
    """Whether llama.cpp runs the model. ConfigurationError where it is asked for something else than a GGUF file;
    MissingExtraError where it is asked for, and not installed."""
    if source.gguf is None and settings.engine == "llamacpp":
        hint = "Use --engine torch, or name a GGUF file."
        raise ConfigurationError(f"`engine` llamacpp runs GGUF files, and {settings.model} is none.", hint)
    if source.gguf is None or settings.engine == "torch":
        if settings.gpu_layers is not None:
            what = "`gpu_layers` is for the llama.cpp engine, and the engine is torch."
            raise ConfigurationError(what, "Leave it out; --device chooses a GPU.")
        return False
    from adacd_cli.backends.llamacpp.library import available, library

    if settings.engine == "llamacpp":
        library()
    return available()


def unpacked(settings: Settings, source: Source) -> tuple[str, ...]:
    """A warning where a GGUF file runs on torch because llama.cpp is not there."""
    if source.gguf is None or settings.engine == "torch":
        return ()
    from adacd_cli.backends.llamacpp.library import INSTALL

    return (
        "llama.cpp is not installed, so PyTorch runs this GGUF file, unpacked: several times slower and "
        f"larger. {INSTALL} installs it.",
    )


def limited(trained: int | None, settings: Settings) -> int | None:
    """The context length under the settings. ConfigurationError where `context` is more than the positions that the
    model was trained for, as far as it names any."""
    if settings.context is None or trained is None:
        return settings.context or trained
    if settings.context > trained:
        raise ConfigurationError(
            f"`context` {settings.context:,} is more than the {trained:,} positions that {settings.model} was "
            "trained for.",
            "Leave --context out, or choose fewer.",
        )
    return settings.context


def endless(end_ids: Collection[int]) -> tuple[str, ...]:
    """A warning where no token ends an answer."""
    if end_ids:
        return ()
    return ("The model names no token that ends an answer: answers run to --max-new-tokens.",)


def load_llamacpp(settings: Settings, source: Source, others: Load, progress: Progress) -> LanguageModel:
    """Loads a GGUF file with llama.cpp. ConfigurationError where a setting has no meaning there; for others see
    `LlamaModel`."""
    for name, reason in _OTHERS.items():
        if getattr(settings, name) not in ("auto", None, False):
            what = f"`{name}` cannot be set for {settings.model}: it runs on llama.cpp, and {reason}."
            raise ConfigurationError(what, "Leave it out, or use --engine torch.")
    if settings.device not in ("auto", "cpu"):
        raise ConfigurationError(
            f"`device` {settings.device} cannot be set for {settings.model}: it runs on llama.cpp.",
            "Use --gpu-layers to choose how much a GPU computes, or --engine torch.",
        )
    progress("Starting PyTorch")
    import torch

    from adacd_cli.backends.llamacpp.model import LlamaModel
    from adacd_cli.backends.llamacpp.tokenizer import LlamaTokenizer
    from adacd_cli.engine.model import LanguageModel

    assert source.gguf is not None
    progress("Loading weights")
    torch.set_num_threads(1)  # the rules are little work, and waiting threads would take llama.cpp's cores
    model = LlamaModel(
        source.folder / source.gguf,
        settings.model,
        threads=settings.threads or others.free_cores(),
        gpu_layers=0 if settings.device == "cpu" else settings.gpu_layers,
        free_memory=free_memory,
    )
    tokenizer = LlamaTokenizer(model)
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        name=settings.model,
        revision=source.revision,
        eos_ids=tokenizer.end_ids,
        context_length=limited(model.context_length, settings),
        warnings=(*source.warnings, *too_many_threads(settings.threads), *endless(tokenizer.end_ids)),
    )
