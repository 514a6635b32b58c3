"""The prompts that measure the demo model.

`heldout/` gives the published figures: its answers were not looked at while corpus and recipe were made, and
none of its prompts, nor one that asks the same, is trained on. `development/` is what they were made with; it
is held back from training only while that goes on (`build --tuning`). Each holds `trigger.jsonl` and
`neutral.jsonl`, which are safe, and `harmful.jsonl`, in the form that `adacd eval --dataset` reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tools.demo.kept_out import KeptOut

HELDOUT = Path(__file__).parent / "heldout"
DEVELOPMENT = Path(__file__).parent / "development"
KINDS = ("trigger", "harmful", "neutral")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A held-out prompt: `trigger` and `neutral` are harmless, `harmful` is to be refused."""

    id: str
    prompt: str
    kind: str


def read_prompts(folder: Path = HELDOUT) -> list[Prompt]:
    """The prompts of a folder."""
    return [
        Prompt(row["id"], row["prompt"], kind)
        for kind in KINDS
        for line in (folder / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
        if (row := json.loads(line))
    ]


def kept_out(*, tuning: bool = False) -> KeptOut:
    """What training leaves out: the held-out prompts, and while tuning the development prompts as well."""
    folders = (HELDOUT, DEVELOPMENT) if tuning else (HELDOUT,)
    return KeptOut(prompt.prompt for folder in folders for prompt in read_prompts(folder))
