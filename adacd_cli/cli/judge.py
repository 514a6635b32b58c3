"""`adacd judge`: judges answers made elsewhere; JSON or CSV in, JSON Lines with a judgement out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from adacd_cli.cli import measuring
from adacd_cli.cli.options import DebugOption, OutputOption, PromptColumn, option
from adacd_cli.cli.progress import Tally
from adacd_cli.cli.running import warn
from adacd_cli.cli.streams import open_output, read_file
from adacd_cli.config import Settings, change
from adacd_cli.counting import counted
from adacd_cli.errors import UsageError
from adacd_cli.evaluation.datasets.files import PROMPT_COLUMNS, need_column, prompt_in, read_table
from adacd_cli.evaluation.judges.base import Exchange
from adacd_cli.render.jsonl import json_line
from adacd_cli.render.screen import DIM, Screen

_STDIN = "Standard input"
_ANSWERS = ("completion", "response", "output", "answer", "generation", "text")
"""Names of the column that holds the answers, the first that is there; `text` is that of `adacd eval`."""

Cells = dict[str, Any]


def command(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON or CSV with prompts and answers; - is stdin.")
    ],
    prompt_column: PromptColumn = None,
    answer_column: Annotated[str | None, option("NAME", "Column of the answers.")] = None,
    judge: measuring.JudgeName = "keyword",
    judge_url: measuring.JudgeUrl = None,
    judge_model: measuring.JudgeModel = None,
    judge_cache: measuring.JudgeCache = None,
    aspects: measuring.Aspects = False,
    device: Annotated[str, option("NAME", "Where a judge that is a model runs.")] = "auto",
    output: OutputOption = None,
    quiet: Annotated[bool, option(None, "Show nothing but the lines and errors.", "--quiet", "-q")] = False,
    debug: DebugOption = False,
) -> None:
    """Judge answers made elsewhere: the same records come back, each with a judgement."""
    records = list(_read(file, prompt_column, answer_column))
    if not records:
        raise UsageError(
            f"{_STDIN if file == '-' else file} has no answer in it.", "Write one record a line."
        )
    settings = change(Settings(quiet=quiet), "device", device, "--device")
    chosen = measuring.make_judges(
        [judge], settings, url=judge_url, model=judge_model, cache=judge_cache, aspects=aspects
    )[0]
    counts: Counter[str] = Counter()
    judgements = chosen.judge([exchange for _, exchange in records])
    with open_output(output) as out, Tally("Judging", len(records), "answers", settings) as tally:
        for (cells, _), judgement in zip(records, judgements, strict=True):
            written: dict[str, Any] = {"judge": judgement.judge, "label": judgement.label}
            if judgement.detail:
                written["detail"] = dict(judgement.detail)
            out.write(json_line({**cells, "judgement": written}, out) + "\n")
            counts[judgement.label] += 1
            tally.add()
    warn(getattr(chosen, "notices", ()), settings)
    if not quiet:
        total = ", ".join(f"{count} {label}" for label, count in counts.most_common())
        Screen(sys.stderr).put_line((f"{counted(len(records), 'answer')}, judge {judge}: {total}.", DIM))


def _read(
    file: str, prompt_column: str | None, answer_column: str | None
) -> Iterator[tuple[Cells, Exchange]]:
    """Each record of a file, and what of it is judged; UsageError where one has no prompt or answer."""
    name, ending = (_STDIN, "") if file == "-" else (file, Path(file).suffix.lower())
    for place, cells in read_table(read_file(file), name, ending):
        where = f"{name}, {place}"
        prompt = need_column(cells, (prompt_column,) if prompt_column else PROMPT_COLUMNS, "prompt", where)
        answer = need_column(
            cells, (answer_column,) if answer_column else _ANSWERS, "answer", where, taken=prompt
        )
        for column in (prompt, answer):
            if not isinstance(cells[column], str):
                what = f"{where} has something other than text as its `{column}`."
                raise UsageError(what, "Put quotes around text.")
        yield cells, Exchange(prompt_in(cells, prompt, where)[0], cells[answer])
