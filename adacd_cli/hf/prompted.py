"""What the prompted stream reads in place of `input_ids`, and whether a row is going to think first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adacd_cli.conversation import Conversation
from adacd_cli.engine.detokenize import decode_ids
from adacd_cli.errors import PromptError
from adacd_cli.hf.beginnings import Beginning, beginnings_of, ending_of
from adacd_cli.hf.rows import Ids
from adacd_cli.prompts import Prompts, ThinkingMarks, prompts_for
from adacd_cli.prompts.templates import find_template
from adacd_cli.prompts.thinking import find_marks

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_SHOWN_TOKENS = 24
"""How much of a beginning is shown where it is not what it should be."""


@dataclass(frozen=True)
class Given:
    """What the caller says of the prompted stream.

    Attributes:
        prompted: its prompts.
        messages: the conversations behind `input_ids`.
        tokenizer: the model's.
        copies: how many rows stand for one prompt (num_return_sequences).
    """

    prompted: Sequence[Ids] | None
    messages: Any
    tokenizer: Any
    copies: int


def prompted_rows(
    prompts: Sequence[Ids], given: Given, settings: Settings, *, rendering_known: bool
) -> tuple[list[Ids], list[ThinkingMarks | None]]:
    """The prompted stream's prompt of each row, and the tags around its thinking if it is going to think.

    Args:
        prompts: the rows of `input_ids`, without padding.
        given: what the caller says.
        settings: the system text of the second stream, and how thinking models are asked.
        rendering_known: whether `settings.thinking` says how `input_ids` were rendered.

    Raises:
        PromptError: the prompts cannot be made, or do not belong to `input_ids`.
    """
    ways = [settings]
    if not rendering_known:
        ways = [settings.model_copy(update={"thinking": thinking}) for thinking in (False, True)]
    if given.prompted is not None:
        prompted = _for_each(given.prompted, prompts, given.copies, "prompted_input_ids")
        _check_ends(prompts, prompted)
    elif given.tokenizer is None:
        raise PromptError(
            "The prompted stream's prompt cannot be made without a tokenizer.",
            "Give generate adacd_tokenizer=tokenizer (transformers keeps tokenizer= to itself), or make its "
            "inputs with adacd_cli.hf.inputs_for.",
        )
    elif given.messages is not None:
        said = _for_each(_conversations(given.messages), prompts, given.copies, "messages")
        pairs = [
            _matching(place, prompt, conversation, given.tokenizer, ways)
            for place, (prompt, conversation) in enumerate(zip(prompts, said, strict=True))
        ]
        return [[*pair.streams.values()][-1].ids for pair in pairs], [pair.thinking for pair in pairs]
    else:
        found = [beginning for way in ways for beginning in beginnings_of(given.tokenizer, way)]
        prompted = [_replaced(place, row, found, given.tokenizer) for place, row in enumerate(prompts)]
    if given.tokenizer is None:
        return prompted, [None] * len(prompts)
    return prompted, _marks(prompts, given.tokenizer, ways)


def _for_each(given: Sequence[Any], prompts: Sequence[Ids], copies: int, name: str) -> list[Any]:
    """One for each row; `generate` repeats input_ids for num_return_sequences, and nothing of ours."""
    if len(given) != len(prompts) and len(given) * copies == len(prompts):
        given = [each for each in given for _ in range(copies)]
    if len(given) != len(prompts):
        raise PromptError(
            f"`{name}` are for {len(given)} prompts, and input_ids have {len(prompts)} rows.",
            f"Give {name} for each row of input_ids.",
        )
    return list(given)


def _check_ends(prompts: Sequence[Ids], prompted: Sequence[Ids]) -> None:
    for place, (plain, other) in enumerate(zip(prompts, prompted, strict=True)):
        if plain[-1] != other[-1]:
            raise PromptError(
                f"Row {place} of prompted_input_ids ends in another token ({other[-1]}) than input_ids "
                f"({plain[-1]}).",
                "Both must end in the same generation prompt: render them with add_generation_prompt=True.",
            )


def _conversations(messages: Any) -> list[Conversation]:
    """One conversation, or a batch of them."""
    batch = messages
    if not isinstance(messages, Sequence) or (messages and isinstance(messages[0], Mapping)):
        batch = [messages]
    return [each if isinstance(each, Conversation) else Conversation.of(each) for each in batch]


def _matching(
    place: int, prompt: Ids, conversation: Conversation, tokenizer: Any, ways: Sequence[Settings]
) -> Prompts:
    """The pair whose unprompted ids are the row's own."""
    pairs = [prompts_for(tokenizer, _with_system(conversation, way), way) for way in ways]
    for pair in pairs:
        if pair.base.ids == prompt:
            return pair
    expected = pairs[0].base.ids
    parted = next(
        (at for at, (one, other) in enumerate(zip(prompt, expected, strict=False)) if one != other),
        min(len(prompt), len(expected)),
    )
    raise PromptError(
        f"Row {place} of input_ids is not what the chat template makes of its messages: they part at token "
        f"{parted}, {_show(tokenizer, prompt[parted:])} for {_show(tokenizer, expected[parted:])}.",
        "Render them with tokenizer.apply_chat_template(messages, add_generation_prompt=True), which adds no "
        "special tokens twice, or make the inputs with adacd_cli.hf.inputs_for.",
    )


def _with_system(conversation: Conversation, settings: Settings) -> Conversation:
    return conversation if conversation.system is not None else conversation.with_system(settings.system)


def _replaced(place: int, row: Ids, found: Sequence[Beginning], tokenizer: Any) -> Ids:
    """The row with the prompted beginning in place of its own."""
    fitting = [each for each in found if row[: len(each.unprompted)] == each.unprompted]
    best = max(fitting, key=lambda each: len(each.unprompted), default=None)
    prompted = best.replaced(row, tokenizer) if best else None
    if prompted is not None:
        return prompted
    expected = found[0].unprompted
    why = f"it begins with {_show(tokenizer, row)}, not with {_show(tokenizer, expected)}"
    if best is not None:
        why = best.reason or "its text cannot be read off its ids"
    raise PromptError(
        f"The prompted stream's prompt cannot be read off row {place} of input_ids: {why}.",
        "Give generate messages=, the list of messages that input_ids were made of, or make its inputs with "
        "adacd_cli.hf.inputs_for.",
    )


def _marks(prompts: Sequence[Ids], tokenizer: Any, ways: Sequence[Settings]) -> list[ThinkingMarks | None]:
    """The tags around each row's thinking; where it is not known how a row was rendered, its end tells."""
    source = find_template(tokenizer)
    if source is None:
        return [None] * len(prompts)
    endings = [ending_of(tokenizer, way) for way in ways] if len(ways) > 1 else [()]

    def marks(row: Ids) -> ThinkingMarks | None:
        fitting = [
            (len(ending), -place, way.thinking)
            for place, (ending, way) in enumerate(zip(endings, ways, strict=True))
            if row[len(row) - len(ending) :] == ending
        ]
        # an answer that was begun already has no thinking to come
        thinking = max(fitting, default=(0, 0, False))[-1]
        return find_marks(source, tokenizer, decode_ids(tokenizer, list(row), control=True), thinking)[0]

    return [marks(row) for row in prompts]


def _show(tokenizer: Any, ids: Sequence[int]) -> str:
    shown = decode_ids(tokenizer, list(ids[:_SHOWN_TOKENS]), control=True)
    return repr(shown) if shown else "nothing"
