"""What each stream of a method reads, by the stream's name: the value that the prompt rooms hand to the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ThinkingMarks:
    """The tags a thinking model writes around its thinking, e.g. `<think>` and `</think>`.

    Attributes:
        open: opening tag as text.
        close: closing tag as text.
        opened: whether the generation prompt already ends inside an opened tag.
    """

    open: str
    close: str
    opened: bool


@dataclass(frozen=True)
class Prompt:
    """What one stream reads.

    Attributes:
        ids: token ids.
        text: the rendered chat template behind them.
        contrast: the text that this stream reads and the base stream does not, p* of AdaCD; "" for none.
        recurs: whether the prompt of the next turn of a conversation begins with this one; not so where
            p* stands in the last user message: nothing of it is worth keeping then.
    """

    ids: tuple[int, ...]
    text: str = ""
    contrast: str = ""
    recurs: bool = True


@dataclass(frozen=True)
class Prompts:
    """One conversation, rendered for every stream of a method; all end in the same generation prompt.

    Attributes:
        streams: each stream's prompt by its name; the first one is the base stream, which plain decoding
            reads too.
        thinking: the thinking tags to watch for; None when the model is not going to think.
        warnings: what the user should know about how the prompts were made, one sentence each.
    """

    streams: Mapping[str, Prompt]
    thinking: ThinkingMarks | None = None
    warnings: tuple[str, ...] = ()

    @property
    def base_name(self) -> str:
        """The name of the base stream."""
        return next(iter(self.streams))

    @property
    def base(self) -> Prompt:
        """The base stream's prompt."""
        return self.streams[self.base_name]

    def shared_with_base(self, name: str) -> int:
        """How many tokens a stream's prompt and the base stream's begin with alike."""
        return shared_length(self.base.ids, self.streams[name].ids)


def shared_length(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """How many ids two sequences begin with alike."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # slices compare at the speed of C
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
