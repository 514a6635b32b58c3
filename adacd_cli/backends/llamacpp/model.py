"""A GGUF file loaded by llama.cpp: its weights as they are, mapped from the file, and what it says of itself. The
tokenizer and chat template are by llama.cpp's own functions too, so no vocabulary is parsed in Python."""

from __future__ import annotations

import ctypes
import os
import re
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from adacd_cli.backends.llamacpp.library import ContextParams, library
from adacd_cli.errors import ModelError, OutOfMemoryError

BATCH = 512  # tokens in one call of llama.cpp at most
_FLOAT32 = 0
_LONGEST_PIECE = 16_384
_UNKNOWN, _CONTROL, _USER_DEFINED, _LSTRIP, _RSTRIP = 1 << 0, 1 << 3, 1 << 4, 1 << 7, 1 << 8
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


class LlamaTokenizer:
    """Text to ids and back, of a loaded file, by those methods of a transformers tokenizer that adacd calls;
    `chat_template` is None where the file has none."""

    def __init__(self, model: LlamaModel) -> None:
        self._model, self._api, self._vocab = model, library(), model.vocab
        template = self._api.llama_model_chat_template(model.handle, None)
        self.chat_template = template.decode("utf-8", "replace") if template else None
        self.bos_token_id, self.bos_token = self._special("bos")
        self.eos_token_id, self.eos_token = self._special("eos")
        self.pad_token_id, _ = self._special("pad")

    def __len__(self) -> int:
        return self._model.vocab_size

    @cached_property
    def end_ids(self) -> frozenset[int]:
        is_end = self._api.llama_vocab_is_eog
        return frozenset(index for index in range(len(self)) if is_end(self._vocab, index))

    @property
    def pieces(self) -> list[bytes]:
        """The bytes of every token, control tokens by their names."""
        write, buffer = self._api.llama_token_to_piece, ctypes.create_string_buffer(_LONGEST_PIECE)
        place = ctypes.addressof(buffer)
        sizes = (write(self._vocab, index, place, _LONGEST_PIECE, 0, True) for index in range(len(self)))
        return [ctypes.string_at(place, max(0, size)) for size in sizes]  # each before the next is written

    @cached_property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """The control and user-defined tokens by id, as `tokenizers.AddedToken`."""
        from tokenizers import AddedToken

        attributes, found = self._api.llama_vocab_get_attr, {}
        for index in range(len(self)):
            bits = attributes(self._vocab, index)
            if bits & (_CONTROL | _USER_DEFINED | _UNKNOWN):
                found[index] = AddedToken(
                    self._text(index),
                    lstrip=bool(bits & _LSTRIP),
                    rstrip=bool(bits & _RSTRIP),
                    normalized=False,
                    special=not bits & _USER_DEFINED,
                )
        return found

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {self._text(index): index for index in range(len(self))}

    def get_vocab(self) -> dict[str, int]:
        return dict(self._ids)

    def encode(self, text: str, add_special_tokens: bool = True, *, control: bool = True) -> list[int]:
        """The ids of a text; with `control` the names of control tokens stand for them, and `add_special_tokens`
        adds a beginning and an end where the file says so."""
        data = text.encode("utf-8", "surrogatepass")
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = self._api.llama_tokenize(
            self._vocab, data, len(data), ctypes.addressof(ids), len(ids), add_special_tokens, control
        )
        assert count >= 0, "a token has at least a byte"
        return ids[:count]

    def __call__(self, text: str, add_special_tokens: bool = True, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": self.encode(text, add_special_tokens)}

    def tokenize(self, text: str, split_special_tokens: bool = False) -> list[str]:
        return [self._text(index) for index in self.encode(text, False, control=not split_special_tokens)]

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        return self._text(ids) if isinstance(ids, int) else [self._text(index) for index in ids]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        return self._ids.get(tokens) if isinstance(tokens, str) else [self._ids.get(each) for each in tokens]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False, **_: Any) -> str:
        """The text of ids; what is no whole character is U+FFFD."""
        array = (ctypes.c_int32 * len(ids))(*ids)
        size = 16 * len(ids) + 16
        while True:
            buffer = ctypes.create_string_buffer(size)
            source, target = ctypes.addressof(array), ctypes.addressof(buffer)
            count = self._api.llama_detokenize(
                self._vocab, source, len(ids), target, size, False, not skip_special_tokens
            )
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            size = -count

    def apply_chat_template(
        self,
        messages: list[dict[str, Any]],
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        **variables: Any,
    ) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        assert not tokenize
        special = {"bos_token": self.bos_token, "eos_token": self.eos_token}
        rendered, _ = render_jinja_template(
            conversations=[messages],
            chat_template=chat_template or self.chat_template,
            add_generation_prompt=add_generation_prompt,
            **{**{name: text for name, text in special.items() if text is not None}, **variables},
        )
        return str(rendered[0])

    def get_chat_template(self) -> str:
        """The template's source. ValueError where the file has none."""
        if self.chat_template is None:
            raise ValueError("the file has no chat template")
        return str(self.chat_template)

    def _special(self, name: str) -> tuple[int | None, str | None]:
        index = getattr(self._api, f"llama_vocab_{name}")(self._vocab)
        return (index, self._text(index)) if index >= 0 else (None, None)

    def _text(self, index: int) -> str:
        return str(self._api.llama_vocab_get_text(self._vocab, index).decode("utf-8", "replace"))


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
