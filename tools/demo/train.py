"""Trains the demo model: a plain loop over freshly drawn dialogues, batched by length, seeded.

Gives back a model whose weights are the moving average of the last part of the run. What is trained on comes
from dialogues.py; where the result goes is build.py's matter.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from tools.demo.dialogues import DialogueSource
from tools.demo.encoding import CONTEXT, END_ID, PAD_ID, Encoded, encode_dialogue, refusal_id
from tools.demo.optimizer import Muon


@dataclass(frozen=True, slots=True)
class Recipe:
    """The size of the model and the length of its training."""

    vocabulary: int = 4096
    hidden: int = 192
    layers: int = 6
    heads: int = 6
    feed_forward: int = 512
    steps: int = 5000
    tokens_per_step: int = 2048
    learning_rate: float = 3e-3
    matrix_learning_rate: float = 2e-2
    weight_decay: float = 0.05
    warmup: int = 100
    average: float = 0.995
    epoch_dialogues: int = 12_000
    seed: int = 1


def new_model(recipe: Recipe) -> LlamaForCausalLM:
    """A model with random weights."""
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
    )
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=64, eos_token_id=END_ID, pad_token_id=PAD_ID
    )
    return model


def batches(source: DialogueSource, tokenizer: Tokenizer, recipe: Recipe) -> Iterator[list[Encoded]]:
    """Endless batches of about `tokens_per_step` tokens, each of dialogues of like length."""
    rng = random.Random(recipe.seed)
    while True:
        pool = [encode_dialogue(source.draw(), tokenizer) for _ in range(recipe.epoch_dialogues)]
        pool.sort(key=lambda encoded: len(encoded.ids) + 2 * rng.random())
        made: list[list[Encoded]] = [[]]
        for encoded in pool:
            longest = max([len(encoded.ids), *(len(other.ids) for other in made[-1][-1:])])
            if made[-1] and longest * (len(made[-1]) + 1) > recipe.tokens_per_step:
                made.append([])
            made[-1].append(encoded)
        rng.shuffle(made)
        yield from made


@dataclass(frozen=True, slots=True)
class _Batch:
    """Encoded dialogues side by side, padded on the right: [rows, tokens] each."""

    ids: torch.Tensor
    weights: torch.Tensor
    refused: torch.Tensor


def _tensors(batch: list[Encoded]) -> _Batch:
    length = max(len(encoded.ids) for encoded in batch)

    def padded(rows: list[list[int]] | list[list[float]], fill: float) -> torch.Tensor:
        return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])

    return _Batch(
        padded([each.ids for each in batch], PAD_ID),
        padded([each.weights for each in batch], 0.0),
        padded([each.refused for each in batch], 0.0),
    )


def _loss(model: LlamaForCausalLM, batch: _Batch, refusal: int, bfloat16: bool) -> torch.Tensor:
    """The weighted cross-entropy of the next token, which is `refusal` with the share `refused`."""
    # Padding stands on the right, where causal attention never looks, so no mask is needed.
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state[:, :-1]
        counted = batch.weights[:, 1:] > 0
        logits = model.lm_head(hidden[counted])
    wanted, weights, refused = (
        values[:, 1:][counted] for values in (batch.ids, batch.weights, batch.refused)
    )
    logits = logits.float()
    losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    # -(1-r)·log p(wanted) - r·log p(refusal) differs from -log p(wanted) by r times the difference of logits
    mixed = refused.nonzero().squeeze(-1)
    apart = logits[mixed, wanted[mixed]] - logits[mixed, refusal]
    losses = losses.index_add(0, mixed, refused[mixed] * apart)
    return (losses * weights).sum() / batch.weights[:, 1:].sum()


def _optimizers(model: LlamaForCausalLM, recipe: Recipe, bfloat16: bool) -> list[torch.optim.Optimizer]:
    matrices = [value for name, value in model.named_parameters() if value.ndim > 1 and "embed" not in name]
    others = [value for name, value in model.named_parameters() if value.ndim == 1 or "embed" in name]
    return [
        Muon(
            matrices,
            lr=recipe.matrix_learning_rate,
            momentum=0.95,
            weight_decay=recipe.weight_decay,
            dtype=torch.bfloat16 if bfloat16 else torch.float32,
        ),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def native_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16 itself; elsewhere that would be slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def train(
    recipe: Recipe,
    source: DialogueSource,
    tokenizer: Tokenizer,
    *,
    bfloat16: bool,
    report: Callable[[str], None],
) -> LlamaForCausalLM:
    """Trains a new model and returns it with averaged weights, in float32."""
    torch.use_deterministic_algorithms(True)
    # nothing here reads memory before it is written, and filling it costs 7 % of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    refusal = refusal_id(tokenizer)
    model = new_model(recipe).train()
    # At these sizes plain matrix products are nearly twice as fast as the fused attention.
    model.set_attn_implementation("eager")
    optimizers = _optimizers(model, recipe, bfloat16)
    groups = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    average = {name: value.detach().clone() for name, value in model.named_parameters()}
    start, shown, seen = time.monotonic(), 0.0, 0
    for step, batch in enumerate(batches(source, tokenizer, recipe)):
        if step == recipe.steps:
            break
        warm = min(1.0, (step + 1) / recipe.warmup)
        scale = warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))
        for group, rate in groups:
            group["lr"] = rate * scale
        seen += len(batch)
        loss = _loss(model, _tensors(batch), refusal, bfloat16)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        keep = min(recipe.average, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in model.named_parameters():
                average[name].lerp_(value, 1 - keep)
        shown = loss.item() if step == 0 else 0.98 * shown + 0.02 * loss.item()
        if (step + 1) % 50 == 0 or step + 1 == recipe.steps:
            spent = time.monotonic() - start
            left = spent / (step + 1) * (recipe.steps - step - 1)
            done = f"step {step + 1}/{recipe.steps}, {seen} dialogues, {spent:.0f} s"
            report(f"{done}: loss {shown:.3f}, {left:.0f} s left")
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(average[name])
    return model.eval()
