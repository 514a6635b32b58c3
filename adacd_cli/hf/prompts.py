"""What both streams read under `generate`: conversations to tensors, and tensors to the prompts of each row."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import reduce
from itertools import count, product
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchEncoding

from adacd_cli import answers
from adacd_cli.config import SETTINGS, Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.config.resolve import changed
from adacd_cli.conversation import Conversation
from adacd_cli.engine.answer import decode_ids
from adacd_cli.errors import AdacdError, ConfigurationError, PromptError
from adacd_cli.prompts import Prompt, Prompts, prompts_for
from adacd_cli.prompts.prompts import shared_length
from adacd_cli.prompts.templates import find_marks, find_template

Ids = tuple[int, ...]

PANELS = ("Prompt", "Method")  # of the settings taken here; lengths and sampling are generate's own
_INPUTS_FOR = "make the inputs with adacd_cli.hf.inputs_for."

# questions whose first characters are of different kinds, which a tokenizer may join with what is before
_WORDS = ("How", "a", "7", "«Q", "你好", "(x", "/s")


def inputs_for(
    tokenizer: Any, prompt: answers.Prompt | answers.Prompts, settings: Settings | None = None, **changes: Any
) -> BatchEncoding:
    """What `model.generate(**inputs, custom_generate=adacd)` takes, left-padded: `input_ids`, `attention_mask`,
    `prompted_input_ids` and `prompted_attention_mask`, int64 [rows, tokens] each; and `settings`, `thinking` and
    `adacd_tokenizer`, so that they need not be passed again.

    Args:
        prompt: text, a list of messages or a Conversation; or a list of these.
        settings, **changes: settings of the panels Prompt and Method.

    Raises:
        ConfigurationError: a setting is unknown, out of range, or one of generate's own.
        PromptError, ModelError: see `prompts.build_prompts`.
    """
    chosen = settings_of(settings, changes, "inputs_for()")
    prompts = [prompts_for(tokenizer, each, chosen) for each in answers.as_conversations(prompt, chosen)[0]]
    pad = next((id for id in (tokenizer.pad_token_id, tokenizer.eos_token_id) if id is not None), 0)
    inputs: dict[str, Any] = {"settings": chosen, "thinking": chosen.thinking, "adacd_tokenizer": tokenizer}
    for name, place in (("", 0), ("prompted_", -1)):
        rows = [torch.tensor([*each.streams.values()][place].ids) for each in prompts]
        masks = [torch.ones_like(row) for row in rows]
        inputs[f"{name}input_ids"] = pad_sequence(rows, True, pad, "left")
        inputs[f"{name}attention_mask"] = pad_sequence(masks, True, 0, "left")
    return BatchEncoding(inputs)


def settings_of(settings: Settings | None, changes: dict[str, Any], where: str) -> Settings:
    """The settings with the changes that are not None, passed to WHERE; ConfigurationError for what is out of its
    range, or one of `generate`'s own settings."""
    base = changed(Settings() if settings is None else settings, {}, PANELS, where)
    for name in sorted(base.model_fields_set):
        if SETTINGS[name].panel == "Decoding" and getattr(base, name) != SETTINGS[name].default:
            raise ConfigurationError(
                f"`{name}` of the settings has no effect in transformers' generate.",
                "Pass generate its own arguments for lengths, sampling and stopping.",
            )
    return changed(base, {name: each for name, each in changes.items() if each is not None}, PANELS, where)


def read_rows(ids: Any, mask: Any, name: str) -> list[Ids]:
    """The ids of each row, [rows, tokens] or lists of any lengths, without the padding on its left; PromptError
    where the mask has another shape or hides other tokens than the first, or a row is empty."""
    rows = ids.tolist() if isinstance(ids, torch.Tensor) else [list(row) for row in ids]
    if mask is not None:
        masks = torch.as_tensor(mask).tolist()
        if [*map(len, masks)] != [*map(len, rows)] or any(row != sorted(row) for row in masks):
            raise PromptError(
                f"The attention mask of {name} is of another shape, or hides more than padding on the left.",
                'Pad on the left: tokenizer.padding_side = "left".',
            )
        rows = [row[len(row) - sum(kept) :] for row, kept in zip(rows, masks, strict=True)]
    if [] in rows:
        raise PromptError(f"Row {rows.index([])} of {name} is empty: it has no token.")
    return [tuple(row) for row in rows]


def prompts_of(
    rows: Sequence[Ids], settings: Settings, tokenizer: Any, messages: Any, prompted: Sequence[Ids] | None
) -> list[Prompts]:
    """The prompts of both streams for each row of `input_ids`, as AdacdLogitsProcessor takes them; PromptError
    where they cannot be made, or do not belong to `input_ids`."""
    options = (settings.thinking,) if "thinking" in settings.model_fields_set else (False, True)
    ways = [settings.model_copy(update={"thinking": each}) for each in options]
    if prompted is None:
        if tokenizer is None:
            raise PromptError(
                "The second stream's prompt cannot be made without a tokenizer.",
                f"Pass adacd_tokenizer=tokenizer (transformers keeps tokenizer= to itself), or {_INPUTS_FOR}",
            )
        if messages is not None:
            conversations, _ = answers.as_conversations(messages, settings)
            _check_number("messages", conversations, rows)
            return [_rendered(*each, tokenizer, ways) for each in zip(count(), rows, conversations)]
        examples = [_examples(tokenizer, way) for way in ways]
        prompted = [_read_off(place, row, examples) for place, row in enumerate(rows)]
    _check_number("prompted_input_ids", prompted, rows)
    source = None if tokenizer is None else find_template(tokenizer)
    names = [stream.name for stream in METHODS[settings.effective_method].streams]
    found = []
    for place, (row, other) in enumerate(zip(rows, prompted, strict=True)):
        if row[-1] != other[-1] and (source or tokenizer is None):  # without a template there is no such end
            raise PromptError(
                f"Row {place} of prompted_input_ids ends in another token than input_ids.",
                "Both must end in the same generation prompt: render them with add_generation_prompt=True.",
            )
        marks = None
        if source is not None and row is not other:  # unknown, the first token tells whether it thinks
            marks = find_marks(source, tokenizer, decode_ids(tokenizer, row, control=True), options[-1])[0]
        found.append(Prompts(dict(zip(names, (Prompt(row), Prompt(other)), strict=False)), marks))
    return found


def _check_number(name: str, given: Sequence[Any], rows: Sequence[Ids]) -> None:
    if len(given) != len(rows):
        raise PromptError(f"`{name}` are for {len(given)} prompts, and input_ids have {len(rows)} rows.")


def _rendered(
    place: int, row: Ids, conversation: Conversation, tokenizer: Any, ways: Sequence[Settings]
) -> Prompts:
    for way in ways:
        prompts = prompts_for(tokenizer, conversation, way)
        if prompts.base.ids == row:
            return prompts
    raise PromptError(
        f"Row {place} of input_ids is not what the chat template makes of its messages.",
        "Render them with tokenizer.apply_chat_template(messages, add_generation_prompt=True), which adds no "
        f"special tokens twice, or {_INPUTS_FOR}",
    )


def _examples(tokenizer: Any, settings: Settings) -> list[tuple[Ids, Ids]]:
    """Both prompts of each question, then of a longer conversation and of one with a system message of its own,
    where the template takes them."""
    asked = [Conversation.ask(word, settings.system) for word in _WORDS]
    found = [prompts_for(tokenizer, each, settings) for each in asked]
    for each in (asked[0].with_assistant("a").with_user("7"), asked[0].with_system(settings.system or "How")):
        with suppress(AdacdError):
            found.append(prompts_for(tokenizer, each, settings))
    return [(each.base.ids, [*each.streams.values()][-1].ids) for each in found]


def _read_off(place: int, row: Ids, ways: Sequence[list[tuple[Ids, Ids]]]) -> Ids:
    """The row with the beginning (or else the end) that it would have under the contrast prompt, if all examples
    that begin as it does differ in nothing else."""
    for pairs, step in product(ways, (1, -1)):
        turned = [(one[::step], other[::step]) for one, other in pairs]
        sides = zip(*turned[: len(_WORDS)], strict=True)
        old, new = (reduce(lambda one, other: one[: shared_length(one, other)], side) for side in sides)
        alike = all(other == new + one[len(old) :] for one, other in turned if one[: len(old)] == old)
        if alike and row[::step][: len(old)] == old:
            return tuple((new + row[::step][len(old) :])[::step])
    raise PromptError(
        f"The second stream's prompt cannot be read off row {place} of input_ids: it begins otherwise than a "
        "question in the chat template (with a system message?), or the contrast prompt stands elsewhere.",
        f"Pass messages=, the list of messages that input_ids were made of, or {_INPUTS_FOR}",
    )
