"""The prompt pair's checks: whether the two streams are what AdaCD needs them to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adacd_cli.counting import counted
from adacd_cli.doctor.finding import Finding, failed, fine, raised, warned
from adacd_cli.doctor.pair import Pair, look
from adacd_cli.doctor.verdict import CANNOT
from adacd_cli.errors import AdacdError

if TYPE_CHECKING:
    from adacd_cli.config import Settings


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
