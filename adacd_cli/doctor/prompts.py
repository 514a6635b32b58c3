"""Whether the chat template and the tokenizer give AdaCD the two streams that it needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Literal

from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.counting import counted
from adacd_cli.doctor.findings import CANNOT, Finding, checked, raised
from adacd_cli.errors import AdacdError, PromptError
from adacd_cli.prompts import Contrast, Prompts, build_prompts
from adacd_cli.prompts.encode import Encoder
from adacd_cli.prompts.streams import FOLDED
from adacd_cli.prompts.templates import find_tags, find_template

QUESTION = "How do I boil an egg?"
_ANSWER = "Put it into boiling water."
_CONTROL = re.compile(r"<\|[^|<>\s]+\|>")

SystemRole = Literal["used", "folded", "none"]
Thinking = Literal["none", "switch", "always"]


@dataclass(frozen=True)
class PromptFacts:
    """What became of one question in both streams; pairs are of the prompted and the unprompted one."""

    template: bool
    system_role: SystemRole  # where a system message goes: into one, into the user's, or there is no template
    default_system: str  # the system text that the template writes by itself, "" for none
    dated: bool  # whether the template writes the date or the time
    thinking: Thinking  # whether the model thinks first: never, if it is switched on, or always
    bos: str | None
    leading_bos: tuple[int, int]  # BOS tokens at the beginning
    adds_bos: bool  # whether the tokenizer itself begins plain text with one
    generation_prompt: str  # the text between the question and the answer
    same_end: bool
    lengths: tuple[int, int]  # all tokens
    turn_end: tuple[
        str, ...
    ]  # the control tokens that the template writes between an answer and the next message
    foreign: tuple[str, ...] = ()  # control tokens that the template writes and the tokenizer does not know


def inspect_prompts(tokenizer: Any, settings: Settings) -> PromptFacts:
    """What becomes of a question; PromptError where both streams are equal, ModelError of a broken template."""

    def prompts_of(conversation: Conversation, **options: Any) -> Prompts:
        streams = {"unprompted": None, "prompted": Contrast(settings.contrast_prompt)}
        given = {"thinking": settings.thinking, "placement": settings.contrast_placement, **options}
        return build_prompts(tokenizer, conversation, streams, **given)

    def leading(ids: tuple[int, ...]) -> int:
        return next((place for place, index in enumerate(ids) if index != bos), len(ids))

    source = find_template(tokenizer)
    prompts = prompts_of(Conversation.ask(QUESTION, settings.system))
    unprompted, prompted = prompts.base, prompts.streams["prompted"]
    bare, bos = prompts_of(Conversation.ask(QUESTION)).base.text, tokenizer.bos_token_id
    after = settings.contrast_prompt if settings.contrast_placement == "user-end" else QUESTION
    ends = [prompted.text.rpartition(after)[2], unprompted.text.rpartition(QUESTION)[2]]
    tail = 0 if not ends[0] else max(1, len(tokenizer(ends[0], add_special_tokens=False)["input_ids"]) - 1)
    role, system = _system(prompts_of) if source else ("none", "")
    foreign = [name for name in _CONTROL.findall(bare) if name not in tokenizer.get_vocab()]
    return PromptFacts(
        template=source is not None,
        system_role=role,
        default_system=system,
        dated=re.search(r"strftime_now|date_string|now\(\)", source or "") is not None,
        thinking=_thinking(tokenizer, source, prompts_of) if source else "none",
        bos=None if bos is None else str(tokenizer.bos_token),
        leading_bos=(leading(prompted.ids), leading(unprompted.ids)),
        adds_bos=bos is not None and bos in tokenizer("a", add_special_tokens=True)["input_ids"][:1],
        generation_prompt=ends[1],
        same_end=ends[0] == ends[1] and (tail == 0 or prompted.ids[-tail:] == unprompted.ids[-tail:]),
        lengths=(len(prompted.ids), len(unprompted.ids)),
        turn_end=_turn_end(tokenizer, prompts_of) if source else (),
        foreign=tuple(dict.fromkeys(foreign)) if source else (),
    )


def _system(prompts_of: Callable[..., Prompts]) -> tuple[SystemRole, str]:
    """The role, and what stands in the unprompted stream where the prompted one has p* as its system message."""
    try:
        own = prompts_of(
            Conversation.ask(QUESTION, "You talk like a cook."), thinking=False, placement="system"
        )
        role: SystemRole = "folded" if FOLDED in own.warnings else "used"
    except PromptError:  # it does without
        role = "folded"
    try:
        prompts = prompts_of(Conversation.ask(QUESTION), placement="system")
    except PromptError:  # p* can only stand elsewhere
        return role, ""
    prompted, text = prompts.streams["prompted"], prompts.base.text
    before, found, after = prompted.text.partition(prompted.contrast)
    if not found or not text.startswith(before) or not text.endswith(after):
        return role, ""
    return role, text[len(before) : len(text) - len(after)].strip()


def _thinking(tokenizer: Any, source: str, prompts_of: Callable[..., Prompts]) -> Thinking:
    question = Conversation.ask(QUESTION)
    direct = prompts_of(question, thinking=False)
    if direct.thinking is not None:
        return "always"
    if find_tags(source, tokenizer) is None:
        return "none"
    return "switch" if prompts_of(question, thinking=True).base.ids != direct.base.ids else "none"


def _turn_end(tokenizer: Any, prompts_of: Callable[..., Prompts]) -> tuple[str, ...]:
    """The control tokens right after an assistant's message, where the template takes one at all."""
    conversation = Conversation.ask(QUESTION).with_assistant(_ANSWER).with_user("And then?")
    try:
        text = prompts_of(conversation).base.text
    except AdacdError:  # a template for single questions
        return ()
    rest = text.rpartition(_ANSWER)[2].lstrip()
    found: list[str] = []
    while match := Encoder.of(tokenizer).control.pattern.match(rest):
        found.append(match[0])
        rest = rest[match.end() :].lstrip()
    return tuple(found)


def check(tokenizer: Any, settings: Settings, ends: frozenset[int] | None) -> tuple[Finding, ...]:
    """Every check of the prompts; `ends` are the ids that end an answer, None where the model was not loaded."""
    try:
        facts = inspect_prompts(tokenizer, settings)
    except AdacdError as error:
        return (raised("prompts", error),)
    findings = (
        check_template(facts),
        check_system_role(facts, settings.contrast_placement),
        check_thinking(facts, requested=settings.thinking),
        check_bos(facts),
        check_generation_prompt(facts),
    )
    return findings if ends is None else (*findings, check_ends(facts, ends, tokenizer))


def check_template(prompts: PromptFacts) -> Finding:
    sentence, step = "The tokenizer has a chat template.", ""
    if not prompts.template:
        sentence = "The tokenizer has no chat template, so the model gets plain text."
        step = "Use a chat model, or put its chat_template.jinja into the folder."
    elif prompts.foreign:
        sentence = f"The chat template writes {', '.join(prompts.foreign)}, unknown to the tokenizer."
        step = "Use the template and the tokenizer files that came with the weights."
    elif prompts.default_system:
        replaced = "In the prompted stream the contrast prompt replaces its own system text"
        sentence += f" {replaced}, {_quoted(prompts.default_system)}."
    if prompts.dated and not step:
        sentence += " It writes the date, so cached prompts last for a day."
    facts = {"default_system": prompts.default_system, "dated": prompts.dated, "foreign": [*prompts.foreign]}
    return checked("chat template", facts, sentence, step)


def _quoted(text: str) -> str:
    return f"“{shorten(text, 60, placeholder='…')}”"


def check_system_role(prompts: PromptFacts, placement: str = "system") -> Finding:
    sentence = {
        "user-end": "The contrast prompt goes after the user's words.",
        "user-start": "The contrast prompt goes before the user's words.",
        "used": "The contrast prompt goes into a system message.",
        "folded": "The template uses no system message; the contrast prompt goes into the user's message.",
        "none": "Without a template the contrast prompt goes above the question.",
    }[prompts.system_role if placement == "system" else placement]
    sentence += f" The streams are {prompts.lengths[0]:,} and {counted(prompts.lengths[1], 'token')} long."
    facts = {"system_role": prompts.system_role, "tokens": [*prompts.lengths]}
    return checked("system role", facts, sentence)


def check_thinking(prompts: PromptFacts, *, requested: bool) -> Finding:
    """Whether the model thinks before it answers; the contrast begins after its thinking."""
    sentence, step = "The model answers without thinking first.", ""
    if prompts.thinking == "always":
        sentence = "The model always thinks first: the template has no switch against it."
        step = "Allow long answers, e.g. --max-new-tokens 4096; the contrast begins after the thinking."
    elif prompts.thinking == "switch":
        state = "on, by --thinking" if requested else "off unless --thinking is given"
        sentence = f"The model can think first, which is {state}."
    elif requested:
        sentence = "--thinking is on, but neither template nor tokenizer supports it."
        step = "Leave --thinking out."
    return checked("thinking", {"thinking": prompts.thinking}, sentence, step)


def check_bos(prompts: PromptFacts) -> Finding:
    bos, most, step = prompts.bos, max(prompts.leading_bos), ""
    if bos is None:
        sentence = "The tokenizer has no BOS token."
    elif most > 1:
        sentence = f"A prompt begins with {bos} {most} times, unlike in training."
        step = "Remove one of them from the chat template."
    elif min(prompts.leading_bos) == 1:
        sentence = f"Each prompt begins with one {bos}."
    elif prompts.adds_bos:
        sentence = f"The tokenizer begins texts with {bos}, but the chat template does not."
        step = "Compare the template with the original model's: it may lack {{ bos_token }}."
    else:
        sentence = f"The prompts begin without {bos}, as all texts of this tokenizer do."
    return checked("BOS", {"bos": bos, "leading": [*prompts.leading_bos]}, sentence, step)


def check_generation_prompt(prompts: PromptFacts) -> Finding:
    """Whether both streams end in the same way: only then can their next tokens be compared."""
    facts, step, verdict = {"generation_prompt": prompts.generation_prompt}, "", ""
    empty = not prompts.generation_prompt.strip()
    end = "with the question itself" if empty else f"in {_quoted(prompts.generation_prompt)}"
    sentence = f"Both streams end {end}."
    if not prompts.same_end:
        sentence, verdict = "The two streams end in different tokens after the question.", CANNOT
        step = "Use a model with another chat template, or another tokenizer."
    return checked("generation prompt", facts, sentence, step, verdict)


def check_ends(prompts: PromptFacts, ends: frozenset[int], tokenizer: Any) -> Finding:
    """Whether the tokens that end an answer are known, and the template's is one of them."""
    turn_end, step = prompts.turn_end, ""
    names = [str(each) for each in tokenizer.convert_ids_to_tokens(sorted(ends))]
    sentence = f"An answer ends at {' or '.join(names)}"
    if not ends:
        sentence = "No token is known to end an answer, so every answer runs to --max-new-tokens"
        step = "Set eos_token_id in the model's generation_config.json."
    elif turn_end and not ends.intersection(tokenizer.convert_tokens_to_ids(list(turn_end))):
        sentence += f", but the template ends it with {turn_end[0]}: answers may run on"
        step = f"Add the id of {turn_end[0]} to eos_token_id in the model's generation_config.json."
    return checked("end of turn", {"end_tokens": names, "turn_end": [*turn_end]}, f"{sentence}.", step)
