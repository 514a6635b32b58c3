"""GGUF files of transformers models in memory, with float32 weights or quantised ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FLOAT32, _NORMAL, _CONTROL = 0, 1, 3
_ARCHITECTURES = {"llama": "LLAMA", "qwen3": "QWEN3", "gemma2": "GEMMA2", "phi3": "PHI3"}


def write_gguf(
    path: Path,
    model: Any,
    tokenizer: Any,
    *,
    template: bool = True,
    architecture: str = "",
    quantization: str = "",
    tensors: int = 0,
    add: Callable[[Any], None] = lambda writer: None,
) -> Path:
    """A model as llama.cpp reads it.

    Args:
        path: where it is written.
        model: a transformers causal LM of one of the four architectures.
        tokenizer: its tokenizer, byte-level BPE.
        template: whether the file gets the tokenizer's chat template.
        architecture: what the file calls it, where that is to be wrong.
        quantization: of its matrices, such as Q8_0.
        tensors: how many a file holds; the others are in files beside it. 0: all.
        add: adds more to its metadata.

    Returns:
        The file, or the first one.
    """
    import gguf

    config = model.config
    kind = config.model_type
    writer = gguf.GGUFWriter(str(path), architecture or kind, split_max_tensors=tensors)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name("tiny")  # llama.cpp changes the tokens of a file that is named like Phi-3
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(_FLOAT32)
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
        writer.add_sliding_window(config.sliding_window)
    if kind == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    _add_tokenizer(writer, tokenizer, config, template)
    add(writer)

    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, _ARCHITECTURES[kind]), config.num_hidden_layers)
    tied = config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        values = tensor.float()
        if kind == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            # llama.cpp pairs a head's rotated values
            values = values.view(-1, 2, size // 2, values.shape[-1]).transpose(1, 2).reshape(values.shape)
        if kind == "gemma2" and name.endswith("norm.weight"):
            values = values + 1
        data, own = values.contiguous().numpy(), names.get_name(name, try_suffixes=(".weight", ".bias"))
        if quantization and data.ndim > 1:
            form = gguf.GGMLQuantizationType[quantization]
            writer.add_tensor(own, gguf.quantize(data, form), raw_dtype=form)
        else:
            writer.add_tensor(own, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if path.exists() else min(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))


def _add_tokenizer(writer: Any, tokenizer: Any, config: Any, template: bool) -> None:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    ids = tokenizer.get_vocab()
    vocabulary = sorted(ids, key=ids.__getitem__)
    controls = {token["content"] for token in state["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([_CONTROL if token in controls else _NORMAL for token in vocabulary])
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]]
    )
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_bos_token_id(config.eos_token_id)  # llama.cpp wants one; nothing adds it
    writer.add_pad_token_id(config.pad_token_id)
    writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(tokenizer.chat_template)
