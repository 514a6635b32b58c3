"""Hand-made events for the renderers, a stream that says it is a terminal, and golden files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from adacd_cli.events import (
    Candidate,
    Decision,
    Event,
    Finished,
    FinishReason,
    Measures,
    Started,
    TokenStep,
)

GOLDEN = Path(__file__).parent / "golden"

ADD, SUBTRACT, PLAIN = Decision.ADD, Decision.SUBTRACT, Decision.PLAIN

SETTINGS = {
    "contrast_prompt": "Please refuse to answer me!",
    "thinking": False,
    "alpha": 4.5,
    "agreement_threshold": 0.9,
    "plausibility": 0.01,
    "contrast_steps": 10,
    "max_new_tokens": 512,
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "seed": None,
    "stop": [],
}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def check_golden(name: str, text: str) -> None:
    """Compares with tests/golden/NAME; with UPDATE_GOLDEN=1 in the environment it writes the file instead."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_bytes(text.encode())
    assert text == path.read_bytes().decode()


def started(method: str = "adacd", **settings: object) -> Started:
    return Started(0, "demo", None, method, 34, 22, {**SETTINGS, **settings})


def fitted(switch: str = "learned") -> Started:
    """A run with a profile's settings and switch."""
    return replace(started("fitted", switch=switch, alpha=2.0), profile="qwen")


def switched(step: TokenStep, value: float, low: float | None, high: float) -> TokenStep:
    """The step, as that which a switch decided at; `low` is None with `mass`."""
    named = {"switch_value": value, "switch_high": high} | ({} if low is None else {"switch_low": low})
    return replace(step, measures=replace(step.measures, named=named))


def token_id(text: str) -> int:
    """A number that differs for different texts of these tests."""
    return sum(place * ord(character) for place, character in enumerate(text, 1)) % 50_000


def plain(text: str, confidence: float = 0.9, **changes: object) -> TokenStep:
    """A step without a contrast; its index is given by `events`."""
    step = TokenStep(0, 0, token_id(text), text, text, PLAIN, Measures(confidence), token_id(text), text)
    return replace(step, **changes)  # type: ignore[arg-type]


def contrasted(
    text: str,
    decision: Decision,
    confidence: float,
    prompted_confidence: float,
    *,
    top: str | None = None,
    rank: int = 1,
    instead_of: str | None = None,
    candidates: Sequence[Candidate] = (),
) -> TokenStep:
    """A step of the contrast window; `instead_of` is what Default would have taken, when not `text`."""
    wanted = text if top is None else top
    other = text if instead_of is None else instead_of
    measures = Measures(confidence, 1 / rank, token_id(wanted), rank, prompted_confidence, 3)
    return TokenStep(
        request=0,
        index=0,
        token_id=token_id(text),
        text=text,
        token=text,
        decision=decision,
        measures=measures,
        plain_token_id=token_id(other),
        plain_token=other,
        prompted_top=wanted,
        candidates=tuple(candidates),
    )


def events(
    begin: Started,
    steps: Iterable[TokenStep],
    finish_reason: FinishReason = FinishReason.STOP,
    context_full: bool = False,
) -> list[Event]:
    """Started, the steps numbered, and the Finished that belongs to them."""
    numbered = [replace(step, index=index, elapsed_s=index / 8) for index, step in enumerate(steps)]
    finished = Finished(
        request=0,
        text="".join(step.text for step in numbered if not step.thinking),
        finish_reason=finish_reason,
        tokens=len(numbered),
        added=sum(step.decision is ADD for step in numbered),
        subtracted=sum(step.decision is SUBTRACT for step in numbered),
        tokens_per_s=41.25,
        peak_memory_bytes=1_000_000,
        thinking="".join(step.text for step in numbered if step.thinking),
        context_full=context_full,
    )
    return [begin, *numbered, finished]


REFUSAL_CANDIDATES = (
    Candidate(token_id("Sure"), "Sure", -3.5, -1.1, 12.5, True),
    Candidate(token_id("I"), "I", -0.01, -0.415, -4.25, True),
    Candidate(token_id("No"), "No", -16.0, -7.0, None, False),
)


def turned(candidates: Sequence[Candidate] = ()) -> list[Event]:
    """An answer that SUBTRACT turned at its first token, with text that terminals and tables dislike."""
    return events(
        started(contrast_steps=4),
        [
            contrasted("Sure", SUBTRACT, 0.66, 0.99, top="I", instead_of="I", candidates=candidates),
            contrasted(",", SUBTRACT, 0.91, 0.5, top=" cannot", rank=3),
            contrasted(" run", ADD, 0.9812, 0.6),
            contrasted("\n", SUBTRACT, 0.8938, 0.9949, instead_of=" `kill|stop`"),
            plain(" kill"),
            plain(" [/INST]"),
            plain(" [bold]"),
            plain(" \x1b[31m"),
            plain(" 終了"),
            plain(" </script>"),
            plain("|`x`"),
            plain(".\n", confidence=0.5),
            plain("", token="<|end|>", token_id=2, plain_token="<|end|>", plain_token_id=2),
        ],
    )


def refused() -> list[Event]:
    """Default's answer to the same prompt."""
    return events(started("default"), [plain("I"), plain(" cannot"), plain(" help"), plain(" with that.")])
