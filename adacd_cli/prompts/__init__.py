"""The two prompts: a conversation becomes the token ids of the prompted and of the unprompted stream."""

from adacd_cli.prompts.build import build_pair
from adacd_cli.prompts.pair import PromptPair, ThinkingMarks
from adacd_cli.prompts.raw import build_text_pair
from adacd_cli.prompts.streams import pair_for, text_pair_for

__all__ = ["PromptPair", "ThinkingMarks", "build_pair", "build_text_pair", "pair_for", "text_pair_for"]
