"""`python -m tools.demo.measure` measures the demo model on prompts kept out of its corpus.

Every prompt of heldout/ is answered greedily by Default and by AdaCD with the engine and the settings
that users have; judge.py judges the whole answers. The model card carries the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adacd_cli.answers import decode
from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.demo import model_folder
from adacd_cli.engine import LanguageModel, Request
from adacd_cli.events import Finished, FinishReason
from adacd_cli.loading import load
from adacd_cli.prompts import prompts_for
from tools.demo.judge import Judgement, judge
from tools.demo.prompts import HELDOUT, KINDS, Prompt, read_prompts

METHODS = ("default", "adacd")
_BATCH = 32
_DESCRIPTION = "Measure the demo model on its held-out prompts."


@dataclass(frozen=True, slots=True)
class Answer:
    """What a method answered to a prompt, and the judgement."""

    prompt: Prompt
    method: str
    text: str
    judgement: Judgement


def answers(model: LanguageModel, prompts: Sequence[Prompt], settings: Settings) -> Iterator[Answer]:
    """Answers all prompts with the settings' method."""
    for start in range(0, len(prompts), _BATCH):
        batch = prompts[start : start + _BATCH]
        requests = [
            Request(prompts_for(model.tokenizer, Conversation.ask(each.prompt), settings), settings)
            for each in batch
        ]
        for event in decode(model, requests, batch_size=_BATCH):
            if isinstance(event, Finished):
                prompt = batch[event.request]
                ended = event.finish_reason is FinishReason.STOP
                judgement = judge(prompt.prompt, event.text, ended=ended)
                yield Answer(prompt, settings.method, event.text, judgement)


@dataclass(frozen=True, slots=True)
class Row:
    """Counts of one method on the prompts of one kind."""

    kind: str
    method: str
    prompts: int
    refused: int
    sensible: int


def count(given: Iterable[Answer]) -> list[Row]:
    """One row for each kind and method."""
    given = list(given)
    rows = []
    for kind in KINDS:
        for method in METHODS:
            own = [each.judgement for each in given if each.prompt.kind == kind and each.method == method]
            if own:
                refused = sum(each.refused for each in own)
                rows.append(Row(kind, method, len(own), refused, sum(each.sensible for each in own)))
    return rows


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| prompts | method | n | refused | sentences about what was asked |", "|---|---|---|---|---|"]
    for row in rows:
        refused, sensible = (f"{part} ({part / row.prompts:.1%})" for part in (row.refused, row.sensible))
        lines.append(f"| {row.kind} | {row.method} | {row.prompts} | {refused} | {sensible} |")
    return "\n".join(lines)


def measure(
    model: Path, dtype: str, prompts: Sequence[Prompt], *, threads: int | None = None
) -> list[Answer]:
    """Default's and AdaCD's answers to all prompts, with the package's default settings."""
    given: dict[str, Any] = {"model": str(model), "dtype": dtype, "device": "cpu", "threads": threads}
    settings = Settings(**given, max_new_tokens=64)
    loaded = load(settings)
    return [
        answer
        for method in METHODS
        for answer in answers(loaded, prompts, settings.model_copy(update={"method": method}))
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, or with --json one line for each answer and each row."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo.measure", description=_DESCRIPTION)
    parser.add_argument("--model", type=Path, default=model_folder(), help="folder (default: the package's)")
    parser.add_argument("--prompts", type=Path, default=HELDOUT, help="folder of prompts")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16 (default: auto)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the free cores)")
    parser.add_argument("--json", action="store_true", help="JSON Lines: every answer, then the counts")
    parser.add_argument("--answers", action="store_true", help="print every answer before the table")
    options = parser.parse_args(arguments)
    given = measure(options.model, options.dtype, read_prompts(options.prompts), threads=options.threads)
    rows = count(given)
    if options.json:
        records = [asdict(answer) for answer in given] + [asdict(row) for row in rows]
        for record in records:
            print(json.dumps(record, ensure_ascii=False))
        return
    if options.answers:
        for answer in given:
            print(f"{answer.prompt.id}  {answer.method}  {answer.prompt.prompt}\n    {answer.text}")
    print(table(rows))
    print(f"Greedy, at most 64 tokens, dtype {options.dtype}, judge tools.demo.judge.", file=sys.stderr)


if __name__ == "__main__":
    main()
