"""llama.cpp's own plain decoding, one prompt in one context of its own: what our decoding is measured against."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

from adacd_cli.backends.llamacpp.library import library
from adacd_cli.backends.llamacpp.model import BATCH, LlamaModel


def decode_greedily(
    model: LlamaModel, prompt: Sequence[int], count: int, first: Callable[[], None] = lambda: None
) -> list[int]:
    """So many tokens after a prompt, as llama.cpp's simplest program decodes, whatever ends an answer.

    Args:
        model: the weights.
        prompt: token ids.
        count: how many tokens.
        first: called when the first one is there.

    Raises:
        RuntimeError: llama.cpp failed.
    """
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
