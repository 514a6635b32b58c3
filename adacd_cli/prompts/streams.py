"""What the two streams of a decoding method read: of a conversation, or of a text to be gone on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adacd_cli.config.methods import METHODS
from adacd_cli.conversation import Conversation
from adacd_cli.prompts.build import build_pair
from adacd_cli.prompts.pair import PromptPair
from adacd_cli.prompts.raw import build_text_pair

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

    def build(contrast: str | None, setting: str) -> PromptPair:
        return build_pair(tokenizer, conversation, contrast, thinking=settings.thinking, setting=setting)

    return _for_method(build, settings)


def text_pair_for(tokenizer: Any, prompt: str | Sequence[int], settings: Settings) -> PromptPair:
    """Like `pair_for`, of a text that is to be gone on with, without a chat template.

    Args:
        tokenizer: any transformers tokenizer.
        prompt: the text, or its token ids.
        settings: the method and the system texts of its streams.

    Raises:
        PromptError: as `build_text_pair`.
    """
    return _for_method(
        lambda contrast, setting: build_text_pair(tokenizer, prompt, contrast, setting=setting), settings
    )


def _for_method(build: Callable[[str | None, str], PromptPair], settings: Settings) -> PromptPair:
    """What `build` makes with the method's system text, given with the setting's name, where it has one."""
    method = METHODS[settings.effective_method]
    second = method.second_stream(settings)
    text = method.prompt or (second.prompt if second else "")
    pair = build(getattr(settings, text) if text else None, text or "contrast_prompt")
    if method.prompt:
        return replace(pair, unprompted_ids=pair.prompted_ids, unprompted_text=pair.prompted_text)
    return pair
