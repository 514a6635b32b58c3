"""The prompt pair's checks: what the chat template and the tokenizer make of the two streams.

`look` asks them, with a question of its own; the checks read what came of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from adacd_cli.conversation import Conversation
from adacd_cli.counting import counted
from adacd_cli.doctor.finding import Finding, failed, fine, raised, warned
from adacd_cli.doctor.verdict import CANNOT
from adacd_cli.errors import AdacdError

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.prompts.pair import PromptPair

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
    from adacd_cli.prompts import build_pair
    from adacd_cli.prompts.templates import find_template

    def pair_of(conversation: Conversation, *, thinking: bool = settings.thinking) -> PromptPair:
        return build_pair(tokenizer, conversation, settings.contrast_prompt, thinking=thinking)

    source = find_template(tokenizer)
    pair = pair_of(Conversation.ask(QUESTION, settings.system))
    bare = pair_of(Conversation.ask(QUESTION))
    bos = tokenizer.bos_token_id
    streams = pair.prompted_ids, pair.unprompted_ids
    ends = [text.rpartition(QUESTION)[2] for text in (pair.prompted_text, pair.unprompted_text)]
    tail = 0 if not ends[0] else max(1, len(tokenizer(ends[0], add_special_tokens=False)["input_ids"]) - 1)
    return Pair(
        template=source is not None,
        system_role=_system_role(tokenizer, source, settings),
        default_system=_default_system(bare) if source else "",
        dated=bool(source) and re.search(r"strftime_now|date_string|now\(\)", source or "") is not None,
        thinking=_thinking(tokenizer, source, pair_of) if source else "none",
        bos=None if bos is None else str(tokenizer.bos_token),
        leading_bos=(_leading(streams[0], bos), _leading(streams[1], bos)),
        adds_bos=bos is not None and bos in tokenizer("a", add_special_tokens=True)["input_ids"][:1],
        generation_prompt=ends[1],
        same_end=ends[0] == ends[1] and (tail == 0 or streams[0][-tail:] == streams[1][-tail:]),
        lengths=(len(streams[0]), len(streams[1])),
        turn_end=_turn_end(tokenizer, pair_of) if source else (),
        foreign=_foreign(tokenizer, bare.unprompted_text) if source else (),
    )


def _system_role(tokenizer: Any, source: str | None, settings: Settings) -> SystemRole:
    from adacd_cli.prompts import build_pair
    from adacd_cli.prompts.placement import FOLDED
    from adacd_cli.prompts.templates import Dialect, TemplateRefusal, Turn, render, thinking_switches

    if source is None:
        return "none"
    pair = build_pair(tokenizer, Conversation.ask(QUESTION, _SYSTEM), settings.contrast_prompt)
    if FOLDED not in pair.warnings:
        return "used"
    turns = [Turn("system", _SYSTEM), Turn("user", QUESTION)]
    for parts in (False, True):
        try:
            render(tokenizer, source, turns, Dialect(parts, thinking_switches(source, False)))
            return "dropped"
        except TemplateRefusal:
            continue
    return "refused"


def _default_system(pair: PromptPair) -> str:
    """What stands in the unprompted stream where the prompted one has p*."""
    before, found, after = pair.prompted_text.partition(pair.contrast_prompt)
    text = pair.unprompted_text
    if not found or not text.startswith(before) or not text.endswith(after):
        return ""
    return text[len(before) : len(text) - len(after)].strip()


def _thinking(tokenizer: Any, source: str, pair_of: Any) -> Thinking:
    from adacd_cli.prompts.thinking import find_tags

    asked = Conversation.ask(QUESTION)
    direct = pair_of(asked, thinking=False)
    if direct.thinking is not None:
        return "always"
    if find_tags(source, tokenizer) is None:
        return "none"
    thoughtful = pair_of(asked, thinking=True)
    return "switch" if thoughtful.unprompted_ids != direct.unprompted_ids else "none"


def _foreign(tokenizer: Any, text: str) -> tuple[str, ...]:
    """What is written in the text like a control token, and is none to the tokenizer."""
    known = tokenizer.get_vocab().keys()
    return tuple(name for name in dict.fromkeys(_CONTROL.findall(text)) if name not in known)


def _leading(ids: tuple[int, ...], bos: int | None) -> int:
    """How many BOS tokens the ids begin with."""
    return next((place for place, index in enumerate(ids) if index != bos), len(ids))


def _turn_end(tokenizer: Any, pair_of: Any) -> tuple[str, ...]:
    """The control tokens right after an answer of the conversation's, where the template takes one at all."""
    from adacd_cli.prompts.encode import Encoder

    said = Conversation.ask(QUESTION).with_assistant(_ANSWER).with_user("And then?")
    try:
        text = pair_of(said).unprompted_text
    except AdacdError:  # a template for single questions
        return ()
    rest = text.rpartition(_ANSWER)[2].lstrip()
    found: list[str] = []
    while match := Encoder.of(tokenizer).control.pattern.match(rest):
        found.append(match[0])
        rest = rest[match.end() :].lstrip()
    return tuple(found)


def examine(tokenizer: Any, settings: Settings, ends: frozenset[int] | None) -> tuple[Finding, ...]:
    """Every check of the prompt pair.

    Args:
        tokenizer: the model's.
        settings: the prompts' settings are read.
        ends: ids that end an answer; None where the model was not loaded, and does not tell them.
    """
    try:
        pair = look(tokenizer, settings)
    except AdacdError as error:
        return (raised("prompt pair", error, CANNOT),)
    findings = (
        check_template(pair),
        check_system_role(pair),
        check_thinking(pair, asked=settings.thinking),
        check_bos(pair),
        check_generation_prompt(pair),
    )
    return findings if ends is None else (*findings, check_ends(pair, ends, tokenizer))


def check_template(pair: Pair) -> Finding:
    """Whether there is a chat template, and what it says by itself."""
    name, facts = (
        "chat template",
        {"default_system": pair.default_system, "dated": pair.dated, "foreign": list(pair.foreign)},
    )
    if not pair.template:
        return warned(
            name,
            "The tokenizer has no chat template, so that the model gets plain text.",
            "Use a chat model, or put its chat_template.jinja into the folder.",
            facts,
        )
    if pair.foreign:
        return warned(
            name,
            f"The chat template writes {', '.join(pair.foreign)}, which the tokenizer does not know: they "
            "belong to different models.",
            "Use the template and the tokenizer files that came with the weights.",
            facts,
        )
    said = ["The tokenizer has a chat template."]
    if pair.default_system:
        said.append(
            f"By itself it begins with the system text “{_short(pair.default_system)}”, in whose place the "
            "prompted stream reads the contrast prompt."
        )
    if pair.dated:
        said.append("It writes the date: kept beginnings of prompts last a day.")
    return fine(name, " ".join(said), facts)


def check_system_role(pair: Pair) -> Finding:
    """Where the contrast prompt stands."""
    name, facts = "system role", {"system_role": pair.system_role, "tokens": list(pair.lengths)}
    sentences = {
        "used": "The contrast prompt goes into a system message.",
        "dropped": "The template drops the text of a system message; the contrast prompt is folded into the "
        "user's message.",
        "refused": "The template has no system role; the contrast prompt is folded into the user's message.",
        "none": "Without a template the contrast prompt stands above the question.",
    }
    sizes = f"The streams are {pair.lengths[0]:,} and {counted(pair.lengths[1], 'token')} long."
    return fine(name, f"{sentences[pair.system_role]} {sizes}", facts)


def check_thinking(pair: Pair, *, asked: bool) -> Finding:
    """Whether the model thinks before it answers; the contrast begins after its thinking.

    Args:
        pair: the prompt pair.
        asked: whether `--thinking` is on.
    """
    name, facts = "thinking", {"thinking": pair.thinking}
    if pair.thinking == "always":
        return warned(
            name,
            "The template always lets the model think first: it has no switch against it.",
            "Give answers room, e.g. --max-new-tokens 4096; the contrast begins after the thinking.",
            facts,
        )
    if pair.thinking == "switch":
        state = "on, by --thinking" if asked else "off unless --thinking is given"
        return fine(name, f"The template has a switch for thinking, which is {state}.", facts)
    if asked:
        return warned(
            name,
            "Thinking is asked for, and neither template nor tokenizer knows of any.",
            "Leave --thinking out.",
            facts,
        )
    return fine(name, "The model answers without thinking first.", facts)


def check_bos(pair: Pair) -> Finding:
    """Whether each stream begins with BOS as often as it should: once, or not at all."""
    name, facts = "BOS", {"bos": pair.bos, "leading": list(pair.leading_bos)}
    most, least = max(pair.leading_bos), min(pair.leading_bos)
    if pair.bos is None:
        return fine(name, "The tokenizer has no token that begins a text.", facts)
    if most > 1:
        return warned(
            name,
            f"A prompt begins with {pair.bos} {most} times, which models were not trained on.",
            "Take one of them out of the chat template.",
            facts,
        )
    if least == 0 and pair.adds_bos:
        return warned(
            name,
            f"The tokenizer begins texts with {pair.bos}, and the chat template does not.",
            "Compare the template with that of the model's makers: it may lack {{ bos_token }}.",
            facts,
        )
    if least == 0:
        return fine(name, f"The prompts begin without {pair.bos}, as texts do by this tokenizer.", facts)
    return fine(name, f"Each prompt begins with one {pair.bos}.", facts)


def check_generation_prompt(pair: Pair) -> Finding:
    """Whether both streams end alike: only then their next tokens can be compared."""
    name, facts = "generation prompt", {"generation_prompt": pair.generation_prompt}
    if not pair.same_end:
        return failed(
            name,
            "The two streams end in different tokens after the question.",
            "Use a model with another chat template, or another tokenizer.",
            facts,
            CANNOT,
        )
    if not pair.generation_prompt.strip():
        return fine(name, "Both streams end with the question itself.", facts)
    shown = _short(" ".join(pair.generation_prompt.split()))
    return fine(name, f"Both streams end alike, in “{shown}”.", facts)


def check_ends(pair: Pair, ends: frozenset[int], tokenizer: Any) -> Finding:
    """Whether the tokens that end an answer are known, that of the template's among them.

    Args:
        pair: the prompt pair.
        ends: ids that end an answer.
        tokenizer: it spells them.
    """
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(sorted(ends))]
    facts: Mapping[str, Any] = {"end_tokens": names, "turn_end": list(pair.turn_end)}
    if not ends:
        return warned(
            "end of turn",
            "No token is known to end an answer, so that each runs to --max-new-tokens.",
            "Name eos_token_id in the model's generation_config.json.",
            facts,
        )
    known = f"An answer ends at {' or '.join(names)}"
    if pair.turn_end and not ends.intersection(tokenizer.convert_tokens_to_ids(list(pair.turn_end))):
        return warned(
            "end of turn",
            f"{known}, but the template ends it with {pair.turn_end[0]}: answers may run on.",
            f"Add the id of {pair.turn_end[0]} to eos_token_id in the model's generation_config.json.",
            facts,
        )
    return fine("end of turn", f"{known}.", facts)


def _short(text: str, longest: int = 60) -> str:
    """The text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"
