"""A GGUF file loaded by llama.cpp: its weights as they are, mapped from the file, and what it says of itself."""

from __future__ import annotations

import ctypes
import os
import re
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from adacd_cli.backends.llamacpp.library import ContextParams, library
from adacd_cli.errors import ModelError, OutOfMemoryError

BATCH = 512  # tokens in one call of llama.cpp at most
_FLOAT32 = 0
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)
_AGAIN = "Download it again."
_CHOOSE = "Choose the GGUF file of a chat model."


class LlamaModel:
    """The weights and their vocabulary, with llama.cpp's pointers `handle` and `vocab`. Made of a file, the first
    one of a model that is split, and what the user called it. It computes with so many CPU threads, and with a GPU
    for so many layers (None all); `free_memory` tells the bytes that are free now, None where that is not known.
    ModelError where it cannot be loaded, or is no causal language model; MissingExtraError where llama.cpp is not
    installed; OutOfMemoryError where it does not fit."""

    engine = "llamacpp"
    device = torch.device("cpu")  # where its logits arrive, whatever computes them

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        threads: int,
        gpu_layers: int | None = None,
        free_memory: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.path, self.threads, self.free_memory = path, threads, free_memory
        self._api = api = library()
        self.version = api.version
        _check_parts(path, name)
        params = api.llama_model_default_params()
        if gpu_layers is not None:
            params.n_gpu_layers = gpu_layers
        with api.errors() as errors:
            self.handle = api.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle:
            raise _translated(name, errors)
        self.close = weakref.finalize(self, api.llama_model_free, self.handle)
        self.vocab = api.llama_model_get_vocab(self.handle)
        self.vocab_size: int = api.llama_vocab_n_tokens(self.vocab)
        self.architecture = self.text("general.architecture")
        self.context_length: int | None = api.llama_model_n_ctx_train(self.handle) or None
        # in llama.cpp's words, such as `Q4_K - Medium`
        self.dtype = str(api.llama_ftype_name(api.llama_model_ftype(self.handle)).decode())
        # a running state can be neither forked nor cut
        running = api.llama_model_is_recurrent, api.llama_model_is_hybrid
        self.keys_only = not any(holds(self.handle) for holds in running)
        self._refuse_other_kinds(name)

    def context_params(self, cells: int, sequences: int = 1) -> ContextParams:
        """What a context for so many tokens of so many sequences is made with."""
        params: ContextParams = self._api.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = cells, sequences, True
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = self.threads
        if self.dtype == "all F32":  # as exact as the weights: flash attention rounds to 16 bits
            params.type_k = params.type_v = _FLOAT32
            params.flash_attn_type = 0
        return params

    @property
    def bytes(self) -> int:
        return int(self._api.llama_model_size(self.handle))

    def text(self, key: str) -> str:
        """A value of the file's metadata as text; "" where there is none."""
        length = self._api.llama_model_meta_val_str(self.handle, key.encode(), None, 0)
        if length < 0:
            return ""
        buffer = ctypes.create_string_buffer(length + 1)
        text = ctypes.cast(buffer, ctypes.c_char_p)
        self._api.llama_model_meta_val_str(self.handle, key.encode(), text, length + 1)
        return buffer.value.decode("utf-8", "replace")

    def _refuse_other_kinds(self, name: str) -> None:
        api, kind = self._api, ""
        if api.llama_model_has_encoder(self.handle) and api.llama_model_has_decoder(self.handle):
            kind = "an encoder-decoder model"
        elif not api.llama_model_has_decoder(self.handle):
            kind = "an encoder or embedding model without a language-model head"
        elif self.text(f"{self.architecture}.pooling_type") not in ("", "0"):
            kind = "an embedding model"
        elif api.llama_model_is_diffusion(self.handle):
            kind = "a diffusion model"
        if kind:
            raise ModelError(f"{name} is {kind} ({self.architecture}), not a causal language model.", _CHOOSE)


def _check_parts(path: Path, name: str) -> None:
    """Refuses, by a ModelError, a split file that is not the first one, or that lacks others."""
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return
    stem, number, count = match[1], int(match[2]), int(match[3])
    parts = [path.with_name(f"{stem}-{each:05}-of-{count:05}.gguf") for each in range(1, count + 1)]
    if number != 1:
        hint = f"Name the first one: {parts[0].name}."
        raise ModelError(f"{name} is part {number} of {count} of a model.", hint)
    for part in parts:
        if not part.exists():
            what = f"{name} is the first of {count} files, and {part.name} is not beside it."
            raise ModelError(what, "Put all of them into one folder.")


def _translated(name: str, errors: list[str]) -> ModelError | OutOfMemoryError:
    lines = [" ".join(line.split()) for line in errors if line.strip()]
    told = " ".join(lines)
    if "memory" in told:
        hint = "Use a smaller file of the model."
        return OutOfMemoryError(f"There is not enough memory to load {name}.", hint)
    unknown = re.search(r"unknown model architecture: '([^']*)'", told)
    if "CLIP cannot be used as main model" in told:
        return ModelError(f"{name} is the vision part of a model (mmproj), not a language model.", _CHOOSE)
    if unknown:
        what = f"The installed llama.cpp knows no architecture '{unknown[1]}', which {name} is."
        return ModelError(what, "A newer version of adacd[gguf] may, or --engine torch.")
    if "not within the file bounds" in told or "corrupted or incomplete" in told:
        return ModelError(f"{name} is cut off: it holds less than it lists.", _AGAIN)
    reason = lines[0].rpartition("error loading model: ")[2] if lines else "llama.cpp gives no reason"
    return ModelError(f"{name} cannot be loaded by llama.cpp: {reason.rstrip('.')}.", _AGAIN)


def decode_greedily(
    model: LlamaModel, prompt: Sequence[int], count: int, first: Callable[[], None] = lambda: None
) -> list[int]:
    """So many tokens after a prompt, as llama.cpp's simplest program decodes, whatever ends an answer: what our
    decoding is measured against. `first` is called at the first token. RuntimeError where llama.cpp failed."""
    api = library()
    sampler = api.llama_sampler_init_greedy()
    context = api.llama_init_from_model(model.handle, model.context_params(len(prompt) + count))
    if not context:
        raise RuntimeError("llama.cpp made no context")
    found: list[int] = []
    try:
        given = list(prompt)
        while True:
            for start in range(0, len(given), BATCH):
                part = given[start : start + BATCH]
                ids = (ctypes.c_int32 * len(part))(*part)
                if api.llama_decode(context, api.llama_batch_get_one(ctypes.addressof(ids), len(part))):
                    raise RuntimeError("llama_decode failed")
            given = [api.llama_sampler_sample(sampler, context, -1)]
            found += given
            if len(found) == 1:
                first()
            if len(found) == count:
                return found
    finally:
        api.llama_sampler_free(sampler)
        api.llama_free(context)
