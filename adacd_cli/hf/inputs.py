"""inputs_for: conversations to the tensors of both streams, as `generate(**inputs)` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import BatchEncoding

from adacd_cli.answers.ask import Prompt, Prompts, as_conversations
from adacd_cli.hf.settings import settings_of
from adacd_cli.prompts import prompts_for

if TYPE_CHECKING:
    from adacd_cli.config import Settings


def inputs_for(
    tokenizer: Any, prompt: Prompt | Prompts, settings: Settings | None = None, **changes: Any
) -> BatchEncoding:
    """What `model.generate(**inputs, custom_generate=adacd)` reads, left-padded.

    Args:
        tokenizer: the model's.
        prompt: text, a list of messages or a Conversation; or a list of these.
        settings: the settings of the panels Prompt and Method are read; None takes the defaults.
        **changes: settings of these panels that differ.

    Returns:
        `input_ids`, `attention_mask`, `prompted_input_ids` and `prompted_attention_mask`, int64
        [rows, tokens] each; and `settings`, `thinking` and `adacd_tokenizer`, so that they need not be given
        again.

    Raises:
        ConfigurationError: a setting is unknown, out of range, or is generate's own to say.
        PromptError, ModelError: as `prompts.build_prompts`.
    """
    chosen = settings_of(settings, changes, where="inputs_for()")
    conversations, _ = as_conversations(prompt, chosen)
    prompts = [prompts_for(tokenizer, conversation, chosen) for conversation in conversations]
    pad = next((id for id in (tokenizer.pad_token_id, tokenizer.eos_token_id) if id is not None), 0)
    ids, mask = _padded([each.base.ids for each in prompts], pad)
    prompted, prompted_mask = _padded([[*each.streams.values()][-1].ids for each in prompts], pad)
    return BatchEncoding(
        {
            "input_ids": ids,
            "attention_mask": mask,
            "prompted_input_ids": prompted,
            "prompted_attention_mask": prompted_mask,
            "settings": chosen,
            "thinking": chosen.thinking,
            "adacd_tokenizer": tokenizer,
        }
    )


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows), default=0)
    ids = [[pad] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return tuple(torch.tensor(each, dtype=torch.int64).reshape(len(rows), longest) for each in (ids, mask))  # type: ignore[return-value]
