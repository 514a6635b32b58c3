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

    A method of one stream gets a pair all the same; its second prompt is then fed to nothing.

    Args:
        tokenizer: any transformers tokenizer.
        conversation: what was said; it ends in a user message.
        settings: the method, the system texts of its streams, and `thinking`.

    Raises:
        PromptError, ModelError: as `build_pair`.
    """
    method = METHODS[settings.effective_method]
    second = method.second_stream(settings)
    text = method.prompt or (second.prompt if second else "") or "contrast_prompt"
    pair = build_pair(tokenizer, conversation, getattr(settings, text), thinking=settings.thinking)
    if method.prompt:
        return replace(pair, unprompted_ids=pair.prompted_ids, unprompted_text=pair.prompted_text)
    if second is not None and not second.prompt:
        return replace(pair, prompted_ids=pair.unprompted_ids, prompted_text=pair.unprompted_text)
    return pair
