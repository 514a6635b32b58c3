"""What the chat template and the tokenizer make of the two streams, for a question of the doctor's own.

What it means is for the checks of `template`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from adacd_cli.conversation import Conversation
from adacd_cli.errors import AdacdError, PromptError

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.prompts import Prompts

QUESTION = "How do I boil an egg?"
_ANSWER = "Put it into boiling water."
_SYSTEM = "You talk like a cook."

_CONTROL = re.compile(r"<\|[^|<>\s]+\|>")

SystemRole = Literal["used", "dropped", "refused", "none"]
"""What the template does with a system message: uses it, drops its text, refuses it; none: no template."""

Thinking = Literal["none", "switch", "always"]
"""Whether the model thinks first: it knows no thinking, it can be switched off and on, or it always does."""


@dataclass(frozen=True)
class Pair:
    """What became of one question in both streams; see `look`.

    Attributes:
        template: whether there is a chat template.
        system_role: what the template does with a system message.
        default_system: the system text that the template says by itself, "" for none.
        dated: whether the template writes the day's date or the time.
        thinking: whether the model thinks first.
        bos: the tokens that begin a text by the tokenizer, as text; None where none does.
        leading_bos: how many of them begin each stream, prompted and unprompted.
        adds_bos: whether the tokenizer itself begins plain text with one.
        generation_prompt: the text after the question, which the answer follows.
        same_end: whether both streams end in the same tokens after the question.
        lengths: tokens of the prompted and of the unprompted stream.
        turn_end: the control tokens that the template writes between an answer and the next message.
        foreign: control tokens that the template writes and the tokenizer does not know.
    """

    template: bool
    system_role: SystemRole
    default_system: str
    dated: bool
    thinking: Thinking
    bos: str | None
    leading_bos: tuple[int, int]
    adds_bos: bool
    generation_prompt: str
    same_end: bool
    lengths: tuple[int, int]
    turn_end: tuple[str, ...]
    foreign: tuple[str, ...] = ()


def look(tokenizer: Any, settings: Settings) -> Pair:
    """Makes a pair with the settings' contrast prompt, and others to see how the template behaves.

    Raises:
        PromptError: no pair can be made, e.g. because both streams come out equal.
        ModelError: the chat template is not valid Jinja.
    """
    from adacd_cli.prompts import Contrast, build_prompts
    from adacd_cli.prompts.templates import find_template

    def prompts_of(
        conversation: Conversation,
        *,
        thinking: bool = settings.thinking,
        placement: str = settings.contrast_placement,
    ) -> Prompts:
        streams = {"unprompted": None, "prompted": Contrast(settings.contrast_prompt)}
        return build_prompts(tokenizer, conversation, streams, thinking=thinking, placement=placement)

    source = find_template(tokenizer)
    prompts = prompts_of(Conversation.ask(QUESTION, settings.system))
    bare = prompts_of(Conversation.ask(QUESTION))
    bos = tokenizer.bos_token_id
    unprompted, prompted = prompts.base, prompts.streams["prompted"]
    streams = prompted.ids, unprompted.ids
    after = settings.contrast_prompt if settings.contrast_placement == "user-end" else QUESTION
    ends = [prompted.text.rpartition(after)[2], unprompted.text.rpartition(QUESTION)[2]]
    tail = 0 if not ends[0] else max(1, len(tokenizer(ends[0], add_special_tokens=False)["input_ids"]) - 1)
    return Pair(
        template=source is not None,
        system_role=_system_role(tokenizer, source, prompts_of),
        default_system=_default_system(prompts_of) if source else "",
        dated=bool(source) and re.search(r"strftime_now|date_string|now\(\)", source or "") is not None,
        thinking=_thinking(tokenizer, source, prompts_of) if source else "none",
        bos=None if bos is None else str(tokenizer.bos_token),
        leading_bos=(_leading(streams[0], bos), _leading(streams[1], bos)),
        adds_bos=bos is not None and bos in tokenizer("a", add_special_tokens=True)["input_ids"][:1],
        generation_prompt=ends[1],
        same_end=ends[0] == ends[1] and (tail == 0 or streams[0][-tail:] == streams[1][-tail:]),
        lengths=(len(streams[0]), len(streams[1])),
        turn_end=_turn_end(tokenizer, prompts_of) if source else (),
        foreign=_foreign(tokenizer, bare.base.text) if source else (),
    )


def _system_role(tokenizer: Any, source: str | None, prompts_of: Any) -> SystemRole:
    from adacd_cli.prompts.streams import FOLDED
    from adacd_cli.prompts.templates import Dialect, TemplateRefusal, Turn, render, thinking_switches

    if source is None:
        return "none"
    try:
        prompts = prompts_of(Conversation.ask(QUESTION, _SYSTEM), thinking=False, placement="system")
    except PromptError:  # it does without
        return "refused"
    if FOLDED not in prompts.warnings:
        return "used"
    turns = [Turn("system", _SYSTEM), Turn("user", QUESTION)]
    for parts in (False, True):
        try:
            render(tokenizer, source, turns, Dialect(parts, thinking_switches(source, False)))
            return "dropped"
        except TemplateRefusal:
            continue
    return "refused"


def _default_system(prompts_of: Any) -> str:
    """What stands in the unprompted stream where the prompted one has p* as its system message."""
    try:
        prompts: Prompts = prompts_of(Conversation.ask(QUESTION), placement="system")
    except PromptError:  # p* can stand elsewhere only
        return ""
    prompted, text = prompts.streams["prompted"], prompts.base.text
    before, found, after = prompted.text.partition(prompted.contrast)
    if not found or not text.startswith(before) or not text.endswith(after):
        return ""
    return text[len(before) : len(text) - len(after)].strip()


def _thinking(tokenizer: Any, source: str, prompts_of: Any) -> Thinking:
    from adacd_cli.prompts.thinking import find_tags

    asked = Conversation.ask(QUESTION)
    direct = prompts_of(asked, thinking=False)
    if direct.thinking is not None:
        return "always"
    if find_tags(source, tokenizer) is None:
        return "none"
    thoughtful = prompts_of(asked, thinking=True)
    return "switch" if thoughtful.base.ids != direct.base.ids else "none"


def _foreign(tokenizer: Any, text: str) -> tuple[str, ...]:
    """What is written in the text like a control token, and is none to the tokenizer."""
    known = tokenizer.get_vocab().keys()
    return tuple(name for name in dict.fromkeys(_CONTROL.findall(text)) if name not in known)


def _leading(ids: tuple[int, ...], bos: int | None) -> int:
    """How many BOS tokens the ids begin with."""
    return next((place for place, index in enumerate(ids) if index != bos), len(ids))


def _turn_end(tokenizer: Any, prompts_of: Any) -> tuple[str, ...]:
    """The control tokens right after an answer of the conversation's, where the template takes one at all."""
    from adacd_cli.prompts.encode import Encoder

    said = Conversation.ask(QUESTION).with_assistant(_ANSWER).with_user("And then?")
    try:
        text = prompts_of(said).base.text
    except AdacdError:  # a template for single questions
        return ()
    rest = text.rpartition(_ANSWER)[2].lstrip()
    found: list[str] = []
    while match := Encoder.of(tokenizer).control.pattern.match(rest):
        found.append(match[0])
        rest = rest[match.end() :].lstrip()
    return tuple(found)
