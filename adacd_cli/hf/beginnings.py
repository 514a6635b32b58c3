"""How a chat template begins a prompt, with and without the contrast prompt, up to the user's words.

Where both prompts of any question differ in their beginning alone, one beginning can be put in the other's
place in ids that somebody else rendered. Whether it is so is tried on questions that begin in different ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from adacd_cli.conversation import Conversation
from adacd_cli.errors import AdacdError
from adacd_cli.hf.rows import Ids
from adacd_cli.prompts import PromptPair, pair_for

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_WORDS = ("How", "a", "7", "«Q", "你好", "(x", "/s")
"""Questions that begin with characters of different kinds, which a tokenizer may join with what is before."""

_SYSTEMS = ("How", "7", "(x")


@dataclass(frozen=True)
class Beginning:
    """A beginning that prompts may have.

    Attributes:
        unprompted: its token ids.
        prompted: what stands there under the contrast prompt; None where that cannot be known.
        reason: why not; "" for a system message of the user's.
    """

    unprompted: Ids
    prompted: Ids | None
    reason: str = ""


def beginnings_of(tokenizer: Any, settings: Settings) -> list[Beginning]:
    """The beginnings of prompts without a system message (or with `settings.system`), and of those with one.

    Args:
        tokenizer: the model's.
        settings: the system texts, and how thinking models are asked.

    Raises:
        PromptError, ModelError: as `build_pair`.
    """
    system = settings.system
    pairs = [pair_for(tokenizer, Conversation.ask(word, system), settings) for word in _WORDS]
    unprompted = _shared([pair.unprompted_ids for pair in pairs])
    prompted = _shared([pair.prompted_ids for pair in pairs])
    found = [Beginning(unprompted, prompted)]
    turns = Conversation.ask(_WORDS[0], system).with_assistant(_WORDS[1]).with_user(_WORDS[2])
    try:
        pairs.append(pair_for(tokenizer, turns, settings))
    except AdacdError:
        pass  # a template of single questions
    if not all(_differ_there_alone(pair, unprompted, prompted) for pair in pairs):
        found = [Beginning(unprompted, None, "the chat template puts the contrast prompt elsewhere")]
    if not system:
        own = [_own_system(tokenizer, word, settings) for word in _SYSTEMS]
        other = _shared(own)
        # where a system message is folded into the user's, the contrast prompt stands before both
        if len(other) > len(unprompted):
            found.append(Beginning(other, None))
    return found


def _own_system(tokenizer: Any, text: str, settings: Settings) -> Ids:
    pair = pair_for(tokenizer, Conversation.ask("How", text), settings)
    return pair.unprompted_ids


def _differ_there_alone(pair: PromptPair, unprompted: Ids, prompted: Ids) -> bool:
    return (
        pair.unprompted_ids[: len(unprompted)] == unprompted
        and pair.prompted_ids[: len(prompted)] == prompted
        and pair.unprompted_ids[len(unprompted) :] == pair.prompted_ids[len(prompted) :]
    )


def _shared(rows: Sequence[Ids]) -> Ids:
    """The ids that all rows begin with."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return tuple(column[0] for column in alike)
