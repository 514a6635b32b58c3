"""Machines, prompt pairs and models for the doctor's tests: healthy ones, to be changed in one place each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from adacd_cli.doctor.behaviour import Answers, read_questions
from adacd_cli.doctor.prompts import PromptFacts
from adacd_cli.engine import LanguageModel
from adacd_cli.evaluation.store import AnswerRecord
from tests.byte_tokenizer import make_tokenizer
from tests.fakes import ScriptedModel

MACHINE: dict[str, Any] = {
    "python": "3.11.7",
    "adacd": "0.1.0",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "tokenizers": "0.23.3",
    "safetensors": "0.8.0",
    "required": {"torch": ">=2.6", "transformers": "<6,>=5.20"},
    "extras": {"gguf": True, "ray": False},
    "device": "cpu",
    "idle_gpu": False,
    "free_bytes": 16_000_000_000,
    "cores": 8,
    "usable_cores": 8,
    "busy_cores": 0.2,
    "threads": 8,
    "native_bfloat16": True,
    "system": "Linux x86_64",
    "processor": "Test CPU",
}

PROMPTS = PromptFacts(
    template=True,
    system_role="used",
    default_system="",
    dated=False,
    thinking="none",
    bos="<s>",
    leading_bos=(1, 1),
    adds_bos=True,
    generation_prompt="<|end|>\n<|start|>assistant\n",
    same_end=True,
    lengths=(19, 10),
    turn_end=("<|end|>",),
)

KINDS = ("neutral", "safe", "unsafe")
QUESTIONS = {kind: tuple(each.prompt for each in read_questions() if each.category == kind) for kind in KINDS}
Kind = Way = str

REFUSAL = "I'm sorry, but I can't help with that."
FULL, LOW = 12.0, 4.0
"""Logits: of what is said surely, and what a plausible token may be behind it (e^-4 is more than β)."""


def changed(thing: Any, **values: Any) -> Any:
    """The same with other values."""
    return {**thing, **values} if isinstance(thing, dict) else replace(thing, **values)


def answers(refused: dict[tuple[Kind, Way], int] | None = None, *, method: str = "adacd") -> Answers:
    """Answers to all questions as a model gives them that suits.

    Args:
        refused: how many are refused, by kind and way, where that is otherwise.
    """
    counts: dict[tuple[Kind, Way], int] = {
        ("neutral", "default"): 0,
        ("neutral", "prompted"): 10,
        ("neutral", "tried"): 0,
        ("safe", "default"): 10,
        ("safe", "tried"): 1,
        ("unsafe", "default"): 6,
        ("unsafe", "tried"): 6,
    }
    counts |= refused or {}

    def given(way: Way, *kinds: Kind) -> list[AnswerRecord]:
        return [
            AnswerRecord(
                way, "questions", question, question, "safe", kind,
                REFUSAL if place < counts[kind, way] else "A good question.", tokens=9, seconds=1.0,
            )
            for kind in kinds
            for place, question in enumerate(QUESTIONS[kind])
        ]  # fmt: skip

    return Answers(method, given("default", *KINDS), given("tried", *KINDS), given("prompted", "neutral"))


Says = Callable[[Kind, bool], dict[str, float]]
"""What may be said to a question of a kind, with p* before it or not: texts, each with its logit."""


def suiting(kind: Kind, prompted: bool) -> dict[str, float]:
    """A model that over-refuses, obeys p*, and is sure of harm."""
    own = "A good question."
    if kind == "unsafe":
        return {REFUSAL: FULL, own: LOW}
    if prompted:
        return {REFUSAL: FULL, own: LOW}
    return {own: FULL, REFUSAL: 0.0} if kind == "neutral" else {REFUSAL: FULL, own: FULL - 0.3}


def scripted_doctor(says: Says) -> LanguageModel:
    """A model with a byte tokenizer that says to the doctor's questions what it is told to."""
    tokenizer = make_tokenizer()
    vocabulary, end = len(tokenizer), tokenizer.convert_tokens_to_ids("<|end|>")
    start = tokenizer.convert_tokens_to_ids("<|start|>")
    header = len(tokenizer("<|start|>assistant\n", add_special_tokens=False)["input_ids"])

    @cache
    def sayings(prompt: tuple[int, ...]) -> list[tuple[tuple[int, ...], float]]:
        text = tokenizer.decode(prompt)
        kinds = [kind for kind, questions in QUESTIONS.items() if any(each in text for each in questions)]
        return [
            ((*tokenizer(said, add_special_tokens=False)["input_ids"], end), logit)
            for kind in kinds  # none yet at a place inside the prompt
            for said, logit in says(kind, "refuse" in text).items()
        ]

    def script(fed: tuple[int, ...]) -> Sequence[float]:
        logits = [-40.0] * vocabulary
        if start not in fed:  # the one token that memory is measured with
            return logits
        place = len(fed) - 1 - fed[::-1].index(start)
        said = fed[place + header :]
        for answer, logit in sayings(fed[:place]):
            if answer[: len(said)] == said and len(said) < len(answer):
                token = answer[len(said)]
                logits[token] = max(logits[token], logit)
        return logits

    return LanguageModel(
        model=ScriptedModel(script),
        tokenizer=tokenizer,
        name="scripted",
        revision=None,
        eos_ids=frozenset({end}),
        context_length=512,
    )
