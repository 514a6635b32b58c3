"""Prompts of an exact length, each different: real text for a tokenizer, or ids drawn at random.

The unprompted stream of Default has exactly the tokens asked for; every other stream has as many more as its
method's system text takes. No two requests of a batch begin alike, so that nothing can be read for two.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import replace
from itertools import cycle, islice
from typing import TYPE_CHECKING

from adacd_cli.config.methods import METHODS
from adacd_cli.conversation import Conversation
from adacd_cli.counting import counted
from adacd_cli.errors import UsageError
from adacd_cli.prompts import Prompt, Prompts, prompts_for

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel

_SENTENCES = (
    "The harbour wakes before the town does, when the first boats come in with ice on their ropes.",
    "A woman counts crates of herring and writes the numbers on the back of an old envelope.",
    "Nobody remembers who built the lighthouse, but everyone has an opinion about its colour.",
    "In summer the road is full of bicycles, and in winter the wind has it to itself.",
    "The baker sells two kinds of bread, and will tell you which of them you ought to buy.",
    "Behind the school there is a garden where the children grow beans, pumpkins and a few arguments.",
    "Once a month a train stops here by mistake, and somebody always gets off to look around.",
    "What would you tell a visitor who has only one afternoon and no umbrella?",
)

_SYSTEM_TOKENS = 12  # about what the contrast prompt and what a template writes around it take


class TextPrompts:
    """Text, rendered by the model's chat template; TOKENS is the length of Default's prompt, the user's own system
    message included, at least 1. A template that takes more by itself is cut."""

    def __init__(self, model: LanguageModel, tokens: int) -> None:
        self._tokenizer, self._tokens = model.tokenizer, tokens
        self._texts: list[str] = []

    def make(self, settings: Settings, count: int) -> list[Prompts]:
        """The prompts of that many requests; the same ones at every call. UsageError where the system message takes
        more tokens than the whole prompt may have."""
        default = settings.model_copy(update={"method": "default"})
        while len(self._texts) < count:
            self._texts.append(self._fitting(len(self._texts), default))
        made = []
        for text in self._texts[:count]:
            by = self._tokens - len(self._prompts(text, default).base.ids)
            prompts = self._prompts(text, settings)
            streams = {
                name: replace(each, ids=_stretched(each.ids, by)) for name, each in prompts.streams.items()
            }
            # without thinking, so that the contrast begins with the first token
            made.append(replace(prompts, streams=streams, thinking=None))
        return made

    def _prompts(self, text: str, settings: Settings) -> Prompts:
        return prompts_for(self._tokenizer, Conversation.ask(text, settings.system), settings)

    def _fitting(self, number: int, settings: Settings) -> str:
        """The text of a request: as many words of it as the tokens allow, at least one."""
        start = number % len(_SENTENCES)
        passage = cycle(" ".join((*_SENTENCES[start:], *_SENTENCES[:start])).split())
        words = [f"{number + 1}.", *islice(passage, self._tokens)]

        def length(count: int) -> int:
            return len(self._prompts(" ".join(words[:count]), settings).base.ids)

        least = length(1)
        if settings.system and least > self._tokens:
            alone = f"the system message alone makes a prompt of {counted(least, 'token')}"
            hint = f"Use --prompt-tokens {least} or more, or leave --system out."
            raise UsageError(f"--prompt-tokens is {self._tokens}, and {alone}.", hint)
        return " ".join(words[: max(1, bisect_right(range(len(words)), self._tokens, lo=1, key=length) - 1)])


def _stretched(ids: tuple[int, ...], by: int) -> tuple[int, ...]:
    """The ids with some more, or without some, at their beginning; at least one is left."""
    return ids[:1] * by + ids if by >= 0 else ids[min(-by, len(ids) - 1) :]


class RandomPrompts:
    """Ids below `vocabulary` drawn at random; streams with a prompt of their own have 12 more in front."""

    def __init__(self, vocabulary: int, tokens: int, seed: int) -> None:
        self._vocabulary, self._tokens, self._seed = vocabulary, tokens, seed

    def make(self, settings: Settings, count: int) -> list[Prompts]:
        specs = METHODS[settings.effective_method].streams_for(settings)
        generator = random.Random(self._seed)
        made = []
        for _ in range(count):
            system = tuple(generator.choices(range(self._vocabulary), k=_SYSTEM_TOKENS))
            ids = tuple(generator.choices(range(self._vocabulary), k=self._tokens))
            made.append(Prompts({spec.name: Prompt(system + ids if spec.prompt else ids) for spec in specs}))
        return made


PromptMaker = TextPrompts | RandomPrompts


def check_context(
    model: LanguageModel,
    settings: Settings,
    prompt_tokens: int,
    generation_tokens: int,
    prompts: Prompts | None = None,
) -> None:
    """UsageError where that is more than the model's context has; PROMPTS are those of a request under the
    settings' method, which may be longer than Default's prompt."""
    method = METHODS[settings.effective_method]
    limit = model.context_for(method, settings)
    longest, extra = prompt_tokens + generation_tokens, ""
    if prompts is not None:
        fed = min(method.window(settings), generation_tokens)
        second = max((len(each.ids) for each in prompts.others.values()), default=0) + fed if fed else 0
        streams = max(len(prompts.base.ids) + generation_tokens, second)
        if streams > longest:
            longest, extra = streams, f" with method {method.name}"
    if limit is not None and longest > limit:
        asked = f"{counted(prompt_tokens, 'prompt token')} and {generation_tokens:,} to generate"
        message = (
            f"{asked} take {counted(longest, 'token')}{extra}, and the context of {model.name} is {limit}."
        )
        raise UsageError(message, "Lower --prompt-tokens or --generation-tokens.")
