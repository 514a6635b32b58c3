"""Prompts: a conversation becomes the token ids that each stream of a decoding method reads."""

from adacd_cli.prompts.build import Contrast, build_prompts, prompts_for, text_prompts_for
from adacd_cli.prompts.prompts import Prompt, Prompts, ThinkingMarks

__all__ = ["Contrast", "Prompt", "Prompts", "ThinkingMarks", "build_prompts", "prompts_for"]
__all__ += ["text_prompts_for"]
