"""What each stream of a method reads, by the stream's name: the value that this room hands to the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ThinkingMarks:
    """The tags a thinking model writes around its thinking, e.g. `<think>` and `</think>`; `opened` tells whether
    the generation prompt already ends inside an opened tag."""

    open: str
    close: str
    opened: bool


@dataclass(frozen=True)
class Prompt:
    """What one stream reads."""

    ids: tuple[int, ...]
    text: str = ""  # the rendered chat template behind the token ids
    contrast: str = ""  # the text that it reads besides the conversation, p* of AdaCD; "" for none
    # whether the prompt of the conversation's next turn begins with this one. False where p* stands in the last
    # user message, so that its KV cache is of no use to the next turn
    recurs: bool = True


@dataclass(frozen=True)
class Prompts:
    """One conversation, rendered for every stream of a method; all end in the same generation prompt."""

    # each stream's prompt by its name; the first one is the base stream, which plain decoding reads too
    streams: Mapping[str, Prompt]
    # the thinking tags to watch for; None when the model is not going to think
    thinking: ThinkingMarks | None = None
    warnings: tuple[str, ...] = ()
    # the last ids of the text that the answer goes on with; empty where an answer begins
    continued: tuple[int, ...] = ()

    @property
    def base_name(self) -> str:
        return next(iter(self.streams))

    @property
    def base(self) -> Prompt:
        return self.streams[self.base_name]

    @property
    def others(self) -> Mapping[str, Prompt]:
        """The prompts of the other streams by their names, in order."""
        return {name: prompt for name, prompt in self.streams.items() if name != self.base_name}

    @property
    def longest(self) -> int:
        return max(len(prompt.ids) for prompt in self.streams.values())

    def shared_with_base(self, name: str) -> int:
        """How many tokens a stream's prompt and the base stream's begin with alike."""
        return shared_length(self.base.ids, self.streams[name].ids)


def shared_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many items two sequences (of one type: tuples, or strings) begin with alike."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # slices compare at the speed of C
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
