"""The tokenizer and chat template of a GGUF file, by llama.cpp's own functions.

It has those methods of a transformers tokenizer that adacd calls, so no vocabulary is parsed in Python."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from adacd_cli.backends.llamacpp.library import library
from adacd_cli.backends.llamacpp.model import LlamaModel

_LONGEST_PIECE = 16_384
_UNKNOWN, _CONTROL, _USER_DEFINED, _LSTRIP, _RSTRIP = 1 << 0, 1 << 3, 1 << 4, 1 << 7, 1 << 8


class LlamaTokenizer:
    """Text to ids and back, of a loaded file; `chat_template` is None where the file has none."""

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
