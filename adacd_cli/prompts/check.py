"""What is refused of the texts that a prompt pair is made of, before and after it is made."""

from __future__ import annotations

from collections.abc import Mapping

from adacd_cli.config import SETTINGS
from adacd_cli.config.methods import spoken
from adacd_cli.errors import PromptError
from adacd_cli.prompts.pair import PromptPair


def check_contrast(contrast_prompt: str | None, setting: str) -> None:
    """Refuses a contrast prompt without words.

    Args:
        contrast_prompt: p*; None where no stream reads one.
        setting: the setting that it comes from.

    Raises:
        PromptError: it is empty.
    """
    if contrast_prompt is not None and not contrast_prompt.strip():
        known = SETTINGS[setting]
        raise PromptError(
            f"The {spoken(setting)} is empty, so both streams would be the same.",
            f'Give a {known.flag}, such as "{known.default}".'
            if known.option.names
            else f"Leave {setting} out for its default, or give a text: {known.flag}=TEXT.",
        )


def check_texts(texts: Mapping[str, str]) -> None:
    """Refuses what is not Unicode text.

    Args:
        texts: each text by what it is called in the error.

    Raises:
        PromptError: one of them holds half of a surrogate pair.
    """
    for name, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = f"U+{ord(text[error.start]):04X} at character {error.start + 1}"
            raise PromptError(
                f"The {name} holds half of a surrogate pair ({code}), which is not text.",
                "Give the text as valid UTF-8.",
            ) from error


def check_differs(pair: PromptPair, setting: str) -> None:
    """Refuses a pair whose contrast prompt the tokenizer leaves no trace of.

    Raises:
        PromptError: both streams have the same ids.
    """
    if pair.prompted_ids == pair.unprompted_ids:
        raise PromptError(
            f"The tokenizer gives the same ids with and without the {spoken(setting)}.",
            f"Give another {SETTINGS[setting].flag}, one with words that the model's tokenizer knows.",
        )
