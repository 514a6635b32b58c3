"""How a chat template begins a prompt, with and without the contrast prompt, up to the user's words.

Where both prompts of any question differ in their beginning alone, one beginning can be put in the other's
place in ids that somebody else rendered. Whether it is so is tried on questions that begin in different ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar

from adacd_cli.conversation import Conversation
from adacd_cli.errors import AdacdError
from adacd_cli.hf.rows import Ids
from adacd_cli.prompts import Prompt, Prompts, prompts_for

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_WORDS = ("How", "a", "7", "«Q", "你好", "(x", "/s")
"""Questions that begin with characters of different kinds, which a tokenizer may join with what is before."""

Item = TypeVar("Item")

_SYSTEMS = ("How", "7", "(x")


@dataclass(frozen=True)
class Beginning:
    """A beginning that prompts may have.

    Attributes:
        unprompted: its token ids.
        prompted: the ids that stand there under the contrast prompt; None where the words after it are then
            cut into other tokens.
        texts: the beginning as text, without and with the contrast prompt; None where nothing can take its
            place.
        reason: why nothing can.
    """

    unprompted: Ids
    prompted: Ids | None = None
    texts: tuple[str, str] | None = None
    reason: str = ""

    def replaced(self, row: Ids, tokenizer: Any) -> Ids | None:
        """The row under the contrast prompt; None where its text cannot be read off its ids."""
        if self.prompted is not None:
            return (*self.prompted, *row[len(self.unprompted) :])
        if self.texts is None:
            return None
        unprompted, prompted = self.texts
        text = tokenizer.decode(list(row), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        # a control token that somebody wrote as text does not come back as what it was
        if not text.startswith(unprompted) or _encode(tokenizer, text) != row:
            return None
        return _encode(tokenizer, prompted + text[len(unprompted) :])


def beginnings_of(tokenizer: Any, settings: Settings) -> list[Beginning]:
    """The beginnings of prompts without a system message (or with `settings.system`), and of those with one.

    Args:
        tokenizer: the model's.
        settings: the system texts, and how thinking models are asked.

    Raises:
        PromptError, ModelError: as `build_prompts`.
    """
    pairs = [prompts_for(tokenizer, Conversation.ask(word, settings.system), settings) for word in _WORDS]
    turns = Conversation.ask(_WORDS[0], settings.system).with_assistant(_WORDS[1]).with_user(_WORDS[2])
    try:
        more = [prompts_for(tokenizer, turns, settings)]
    except AdacdError:
        more = []  # a template of single questions
    found = [_beginning(pairs, [*pairs, *more])]
    if not settings.system:
        own = _with_own_system(tokenizer, settings)
        # where a system message is folded into the user's, the contrast prompt stands before both
        if len(own) > len(found[0].unprompted):
            found.append(Beginning(own, reason="it begins with a system message of its own"))
    return found


def _with_own_system(tokenizer: Any, settings: Settings) -> Ids:
    """How prompts with a system message begin; () where the template takes none."""
    try:
        asked = [prompts_for(tokenizer, Conversation.ask(_WORDS[0], text), settings) for text in _SYSTEMS]
    except AdacdError:
        return ()
    return _shared([pair.base.ids for pair in asked])


def ending_of(tokenizer: Any, settings: Settings) -> Ids:
    """The ids that every prompt ends in, after the user's words."""
    pairs = [prompts_for(tokenizer, Conversation.ask(word, settings.system), settings) for word in _WORDS]
    return _shared([pair.base.ids[::-1] for pair in pairs])[::-1]


def _beginning(singles: Sequence[Prompts], pairs: Sequence[Prompts]) -> Beginning:
    """What the prompts of single questions share, if it is all that sets both prompts of each pair apart."""
    unprompted = _shared([pair.base.ids for pair in singles])
    prompted = _shared([_second(pair).ids for pair in singles])
    if all(_differ_there(pair.base.ids, _second(pair).ids, unprompted, prompted) for pair in pairs):
        return Beginning(unprompted, prompted)
    texts = (
        "".join(_shared([pair.base.text for pair in singles])),
        "".join(_shared([_second(pair).text for pair in singles])),
    )
    if all(_differ_there(pair.base.text, _second(pair).text, *texts) for pair in pairs):
        return Beginning(unprompted, texts=texts)
    return Beginning(unprompted, reason="the chat template puts the contrast prompt elsewhere")


def _second(prompts: Prompts) -> Prompt:
    return [*prompts.streams.values()][-1]


def _differ_there(
    one: Sequence[Any], other: Sequence[Any], first: Sequence[Any], second: Sequence[Any]
) -> bool:
    """Whether two sequences begin with these, and go on in the same way."""
    begins = one[: len(first)] == first and other[: len(second)] == second
    return begins and one[len(first) :] == other[len(second) :]


def _shared(rows: Sequence[Sequence[Item]]) -> tuple[Item, ...]:
    """What all rows begin with."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return tuple(column[0] for column in alike)


def _encode(tokenizer: Any, text: str) -> Ids:
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
