"""`pair_for`: what the two streams of a decoding method read of one conversation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adacd_cli.config.methods import METHODS
from adacd_cli.conversation import Conversation
from adacd_cli.prompts.build import build_pair
from adacd_cli.prompts.pair import PromptPair

if TYPE_CHECKING:
    from adacd_cli.config import Settings


def pair_for(tokenizer: Any, conversation: Conversation, settings: Settings) -> PromptPair:
    """The prompts of both streams under the settings' method.

    Where no stream reads a system text of the method's, both prompts are the conversation alone.

    Args:
        tokenizer: any transformers tokenizer.
        conversation: what was said; it ends in a user message.
        settings: the method, the system texts of its streams, and `thinking`.

    Raises:
        PromptError, ModelError: as `build_pair`.
    """
    method = METHODS[settings.effective_method]
    second = method.second_stream(settings)
    text = method.prompt or (second.prompt if second else "")
    if not text:
        return build_pair(tokenizer, conversation, None, thinking=settings.thinking)
    pair = build_pair(
        tokenizer, conversation, getattr(settings, text), thinking=settings.thinking, setting=text
    )
    if method.prompt:
        return replace(pair, unprompted_ids=pair.prompted_ids, unprompted_text=pair.prompted_text)
    return pair
