"""The way from a conversation, or a plain text, to the token ids of every stream of a method.

It checks the texts, hides their control tokens, has `streams` render the chat template, and encodes the result. A
model without a chat template gets plain text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adacd_cli.config import SETTINGS, Settings
from adacd_cli.config.methods import METHODS, spoken
from adacd_cli.conversation import Conversation
from adacd_cli.errors import PromptError
from adacd_cli.prompts.encode import Encoder, Escape, beginning, continued
from adacd_cli.prompts.placement import PLACEMENTS, Said
from adacd_cli.prompts.prompts import Prompt, Prompts, shared_length
from adacd_cli.prompts.streams import NO_TOOLS, Addition, layouts, placement_error, render_streams
from adacd_cli.prompts.templates import (
    Turn,
    find_marks,
    find_template,
    history_tags,
    last_user,
    no_think_flag,
    takes,
)

_NO_TEMPLATE = "This model has no chat template; it gets the conversation as plain text."
_GAP = "\n\n"
_CONTINUED = 8  # how many ids of a text that is continued tell how its next token is spelled


@dataclass(frozen=True)
class Contrast:
    """A text that a stream reads besides the conversation, and the setting that it comes from, for errors."""

    text: str
    setting: str = "contrast_prompt"


# what each stream reads besides the conversation, by name, the base stream first; None for nothing
Streams = Mapping[str, "Contrast | None"]


def streams_of(settings: Settings) -> dict[str, Contrast | None]:
    """What the streams of the settings' method read besides the conversation."""
    specs = METHODS[settings.effective_method].streams_for(settings)
    names = {spec.name: spec.prompt for spec in specs}
    return {name: Contrast(getattr(settings, own), own) if own else None for name, own in names.items()}


def prompts_for(tokenizer: Any, conversation: Conversation, settings: Settings) -> Prompts:
    """The prompts of the streams of the settings' method; see `build_prompts`."""
    thinking, placement = settings.thinking, settings.contrast_placement
    return build_prompts(
        tokenizer, conversation, streams_of(settings), thinking=thinking, placement=placement
    )


def build_prompts(
    tokenizer: Any,
    conversation: Conversation,
    streams: Streams,
    *,
    thinking: bool = False,
    placement: str = "system",
) -> Prompts:
    """The prompts of all streams for one conversation with a user message; one that ends in an assistant's message
    is answered from there on, without thinking. They differ by what each stream reads besides alone, all with the
    user's own system text and the same end. `thinking` tells whether a thinking model may think before it answers,
    and `placement`, a key of `PLACEMENTS`, where the texts of the streams other than the base stand; the base
    stream's own text is always a system message. PromptError where they cannot be made, with what is in the way;
    ModelError where the model's chat template is not valid Jinja."""
    contrasts = {name: each for name, each in streams.items() if each is not None}
    messages = conversation.messages
    texts = {"system message": conversation.system or ""}
    texts |= {f"{message.role} message {place}": message.content for place, message in enumerate(messages, 1)}
    _check_texts(contrasts.values(), texts)
    prefill = messages[-1].content if messages and messages[-1].role == "assistant" else ""
    questions = [message.content for message in messages if message.role == "user"]
    if not questions:
        raise PromptError(
            "The conversation has no user message, so there is nothing to answer.", "Add a user message."
        )
    _check_not_empty(questions[-1].strip())
    source, encoder = find_template(tokenizer), Encoder.of(tokenizer)
    all_texts = [*texts.values(), *(each.text for each in contrasts.values())]
    all_texts += strings_in([conversation.variables, [message.extra for message in messages]])
    thinking = thinking and not prefill
    escape = Escape(encoder.control, all_texts, source or "")
    said = _hide(conversation, escape, source, thinking)
    additions = []
    for name, each in contrasts.items():
        movable = name != next(iter(streams))
        where = PLACEMENTS[placement if movable else "system"]
        additions.append(Addition(escape.hide(each.text), each.setting, where, movable))
    warnings: tuple[str, ...] = (_NO_TEMPLATE,)
    if source is None:
        for turns, changes in layouts(said.turns):  # the last ones are words alone
            said, warnings = replace(said, turns=turns), (_NO_TEMPLATE, *changes)
        bare = said.plain()
        rendered = [each.placement.place(said, each.text).plain() for each in additions]
        marks, begin = None, beginning(tokenizer)
    else:
        variables = {name: each for name, each in conversation.variables.items() if takes(source, name)}
        bare, rendered, changes = render_streams(
            tokenizer, source, said, additions, thinking, _hide_in(variables, escape)
        )
        marks, more = find_marks(source, tokenizer, bare, thinking)
        warnings, begin = changes + more, ()
    unread = [name for name in conversation.variables if source is None or not takes(source, name)]
    unread = [name for name in unread if name != "reasoning_effort"]  # thinking itself is the switches'
    warnings += tuple(
        NO_TOOLS if name == "tools" else f"The chat template does not read `{name}`." for name in unread
    )
    if prefill:
        begun = escape.hide(prefill) if source else _GAP + escape.hide(prefill)
        if marks is not None:  # the answer comes after the thinking
            begun, marks = (f"\n{marks.close}\n\n" if marks.opened else marks.close) + begun, None
            warnings = changes
        bare, rendered = bare + begun, [text + begun for text in rendered]

    def encode(text: str) -> tuple[int, ...]:
        return begin + encoder.encode(tokenizer, text, escape)

    alone = Prompt(encode(bare), escape.show(bare))
    prompts = dict.fromkeys(streams, alone)
    for (name, each), addition, text in zip(contrasts.items(), additions, rendered, strict=True):
        ids = encode(text)
        _check_differs(alone.ids, ids, each)
        # The invariant of a fork: both begin alike up to the last complete token of the user's words. A token
        # is complete where what follows the words cannot change it. Tokenizers cut at white space, so all
        # before the last word are; those of that word itself may be joined with the line break after it.
        last_word = encode(_last_word(bare, text))
        if addition.placement.forks and shared_length(alone.ids, ids) < len(alone.ids) - len(last_word):
            raise placement_error(
                f"The tokenizer encodes the user's words in another way before the {spoken(each.setting)}",
                addition.placement,
                [own for own, place in PLACEMENTS.items() if not place.forks],
            )
        prompts[name] = Prompt(ids, escape.show(text), each.text, addition.placement.recurs)
    return Prompts(prompts, marks, warnings, alone.ids[-_CONTINUED:] if prefill else ())


def text_prompts_for(tokenizer: Any, prompt: str | Sequence[int], settings: Settings) -> Prompts:
    """Like `prompts_for`, of a text that the model continues, without a chat template; its control tokens are
    encoded as the text that they are. It may be given as token ids. The id that the tokenizer begins a text with
    comes first in all streams. A contrast prompt stands in front of the text, or at its end (placement user-end), a
    blank line apart. PromptError where the text or a contrast prompt is empty, or a token id is not one of the
    tokenizer's."""
    streams = streams_of(settings)
    contrasts = {name: each for name, each in streams.items() if each is not None}
    text = prompt if isinstance(prompt, str) else ""
    _check_texts(contrasts.values(), {"prompt": text})
    _check_not_empty(prompt)
    encoder, begin = Encoder.of(tokenizer), beginning(tokenizer)
    escape = Escape(encoder.control, [text, *(each.text for each in contrasts.values())])
    own = () if isinstance(prompt, str) else _checked_ids(prompt, encoder.size, begin)

    def encode(before: str, after: str) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return begin + encoder.encode(tokenizer, before + escape.hide(text) + after, escape)
        front = encoder.encode(tokenizer, before, escape) if before else ()
        back = continued(lambda text: encoder.encode(tokenizer, text, escape), after) if after else ()
        return begin + front + own + back

    alone = Prompt(encode("", ""), text)
    prompts = dict.fromkeys(streams, alone)
    for name, each in contrasts.items():
        placement = PLACEMENTS["system" if name == next(iter(streams)) else settings.contrast_placement]
        before, after = ("", _GAP + each.text) if placement.forks else (each.text + _GAP, "")
        ids = encode(escape.hide(before), escape.hide(after))
        _check_differs(alone.ids, ids, each)
        prompts[name] = Prompt(ids, before + text + after, each.text, placement.recurs)
    return Prompts(prompts, continued=alone.ids[-_CONTINUED:])


def _hide(conversation: Conversation, escape: Escape, source: str | None, thinking: bool) -> Said:
    """The conversation, its control tokens hidden, with the flag against thinking if a template reads one."""
    # Templates cut the thinking out of earlier answers, so they must see its tags there.
    tags = history_tags(source) if source else ()
    messages = conversation.messages
    turns = [
        Turn(
            each.role,
            escape.hide(each.content, tags if each.role == "assistant" else ()),
            _hide_in(each.extra, escape),
        )
        for each in (messages[:-1] if messages[-1].role == "assistant" else messages)
    ]
    if source and not thinking and (flag := no_think_flag(source)):
        place = last_user(turns)
        turns[place] = replace(turns[place], content=turns[place].content + flag)
    system = conversation.system or ""
    return Said(tuple(turns), escape.hide(system) if system.strip() else "")


def strings_in(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from strings_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from strings_in(each)


def _hide_in(value: Any, escape: Escape) -> Any:
    """A JSON value with every string in it hidden, keys included."""
    if isinstance(value, str):
        return escape.hide(value)
    if isinstance(value, Mapping):
        return {escape.hide(str(key)): _hide_in(each, escape) for key, each in value.items()}
    return [_hide_in(each, escape) for each in value] if isinstance(value, (list, tuple)) else value


def _check_texts(contrasts: Iterable[Contrast], texts: Mapping[str, str]) -> None:
    """Refuses contrast prompts without words, and texts, by what they are called, that are not Unicode."""
    for contrast in contrasts:
        setting, name = SETTINGS[contrast.setting], spoken(contrast.setting)
        if not contrast.text.strip():
            raise PromptError(
                f"The {name} is empty, so both streams would be the same.",
                f'Give a {setting.flag}, such as "{setting.default}".'
                if setting.flags
                else f"Leave {contrast.setting} out for its default, or give a text: {setting.flag}=TEXT.",
            )
        texts = {name: contrast.text, **texts}
    for name, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = f"U+{ord(text[error.start]):04X} at character {error.start + 1}"
            raise PromptError(
                f"The {name} holds half of a surrogate pair ({code}), which is not text.",
                "Give the text as valid UTF-8.",
            ) from error


def _check_not_empty(prompt: str | Sequence[int]) -> None:
    if not prompt:
        raise PromptError("The prompt is empty.", "Give a prompt with some text in it.")


def _checked_ids(ids: Sequence[int], size: int, begin: tuple[int, ...]) -> tuple[int, ...]:
    wrong = next((index for index in ids if not 0 <= index < size), None)
    if wrong is not None:
        raise PromptError(
            f"The prompt contains the token id {wrong}, but the tokenizer's ids go from 0 to {size - 1}.",
            "Encode the prompt with the model's own tokenizer.",
        )
    return tuple(ids[len(begin) :] if tuple(ids[: len(begin)]) == begin else ids)


def _check_differs(bare: tuple[int, ...], ids: tuple[int, ...], contrast: Contrast) -> None:
    if bare == ids:
        raise PromptError(
            f"The tokenizer gives the same ids with and without the {spoken(contrast.setting)}.",
            f"Give another {SETTINGS[contrast.setting].flag} with words that the tokenizer knows.",
        )


def _last_word(bare: str, other: str) -> str:
    """The end of `bare`, from the white space before the last word that both texts begin with alike."""
    front = bare[: shared_length(bare, other)].rstrip()
    word = front.rsplit(maxsplit=1)[-1] if front else ""
    return bare[len(front[: len(front) - len(word)].rstrip()) :]
