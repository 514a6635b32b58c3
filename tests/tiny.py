"""Tiny random models of real architectures: seeded, float32, eval mode, the vocabulary of a real tokenizer.

Their weights are scaled so that logits are far from flat and greedy continuations vary. `tiny_model` gives
what `load` gives; `save_tiny` writes the same model as a folder that `load` can read.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    Gemma2Config,
    GenerationConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from adacd_cli.engine.model import LanguageModel

CONTEXT = 512
"""Positions that every tiny model was built for."""

SHARED_TOKENIZER = Path(__file__).resolve().parents[2] / "shared" / "tokenizers" / "minimind"

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
_ONE_KEY_VALUE_HEAD_EACH = {key: value for key, value in _SIZES.items() if key != "num_key_value_heads"}

_FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, {**_SIZES, "tie_word_embeddings": False}),
    "gemma2": (
        Gemma2Config,
        {
            **_SIZES,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 16,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    "qwen3": (Qwen3Config, {**_SIZES, "head_dim": 16, "tie_word_embeddings": True}),
    "mistral": (MistralConfig, {**_SIZES, "head_dim": 16, "sliding_window": 16}),
    "phi3": (Phi3Config, {**_SIZES, "original_max_position_embeddings": CONTEXT}),
    "gpt_neox": (GPTNeoXConfig, _ONE_KEY_VALUE_HEAD_EACH),
}
FAMILIES = tuple(_FAMILIES)
"""Names that `tiny_model` knows."""


def tiny_model(family: str, *, seed: int = 0) -> LanguageModel:
    """A random model of the family, fresh at each call; the same seed gives the same weights.

    Args:
        family: one of `FAMILIES`. gemma2 has soft-capping and, like mistral, a sliding window of 16.
        seed: seed of the weights; the global random state is left as it was.
    """
    tokenizer = tiny_tokenizer()
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    config_class, sizes = _FAMILIES[family]
    config = config_class(
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
        initializer_range=0.2,
        **sizes,
    )
    attention = "eager" if family == "gemma2" else "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    _sharpen(model)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, do_sample=False)
    return LanguageModel(
        model=model.eval(),
        tokenizer=tokenizer,
        name=f"tiny-{family}",
        revision=None,
        eos_ids=frozenset({end}),
        context_length=CONTEXT,
    )


def _sharpen(model: Any) -> None:
    """Scales the last norm: the logits' standard deviation is near 5 and the top probability varies."""
    with torch.no_grad():
        if model.config.model_type == "gemma2":
            # Gemma multiplies its tied embeddings by sqrt(hidden_size): each token would predict itself.
            model.get_input_embeddings().weight *= 0.25
            model.base_model.norm.weight += 11.0  # the norm's factor is 1 + weight
        elif model.config.model_type == "gpt_neox":
            model.base_model.final_layer_norm.weight *= 3.0
        else:
            model.base_model.norm.weight *= 3.0


_OTHERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT},
    "bloom": {"hidden_size": 64, "n_layer": 3, "n_head": 4},
    "gemma3_text": _SIZES | {"head_dim": 16, "sliding_window": 16},
    "lfm2": _SIZES | {"full_attn_idxs": [1], "block_multiple_of": 8, "block_ff_dim": 96},
    "mamba2": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_heads": 8,
        "head_dim": 16,
        "state_size": 16,
        "n_groups": 1,
    },
    "mamba": {"hidden_size": 64, "num_hidden_layers": 2},
    "jamba": _SIZES | {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
}
OTHERS = tuple(_OTHERS)
"""Kinds that `random_model` knows the sizes of: learned positions, ALiBi, local attention, running states."""


def random_model(kind: str, **sizes: Any) -> LanguageModel:
    """A random model of any kind that transformers has, with tokens that never end an answer.

    Args:
        kind: its `model_type`.
        sizes: fields of its configuration, beside those of `OTHERS` or what all of `FAMILIES` have.
    """
    like = tiny_model("llama")
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(like.tokenizer),
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
        **_OTHERS.get(kind, _SIZES) | sizes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return replace(like, model=model, name=kind, eos_ids=frozenset())


def long_rope(border: int, **sizes: Any) -> LanguageModel:
    """A random Phi-3 whose keys are others as soon as a text is longer than `border`."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 8,
        "long_factor": [3.0] * 8,
        "original_max_position_embeddings": border,
    }
    return random_model(
        "phi3", original_max_position_embeddings=border, rope_parameters=rope, use_cache=True, **sizes
    )


def save_tiny(family: str, folder: Path, *, seed: int = 0) -> LanguageModel:
    """Writes `tiny_model(family)` to the folder, safetensors, configs and tokenizer, and gives it back."""
    tiny = tiny_model(family, seed=seed)
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return tiny


def tiny_tokenizer() -> Any:
    """A fresh byte-level BPE tokenizer with ChatML's tokens and template: a real one, or else our own."""
    if (SHARED_TOKENIZER / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(SHARED_TOKENIZER)
        tokenizer.chat_template = CHATML
        return tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_bpe()),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )


# Fixed, because every token more or less gives other weights, and with them other near ties.
_TRAINING_TEXT = (
    "Please refuse to answer me! How do I kill a Python process? What is the capital of France?",
    "Tell me, in a few words, what the weather is like in the north of the country when the winter begins.",
    "Shoot a photo, crack an egg, blow up a balloon, bomb a test, and write down what happened then.",
    "The quick brown fox jumps over the lazy dog while seven wizards quietly mix potions of jade and amber.",
    "You are a helpful assistant. I am sorry, but I cannot help with that. Here is how to do it instead:",
)


@cache
def _trained_bpe() -> str:
    """A BPE over all 256 bytes with what merges `_TRAINING_TEXT` gives."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=1,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TRAINING_TEXT, trainer)
    text: str = tokenizer.to_str()
    return text
