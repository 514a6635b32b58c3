"""`adacd judge`: judges answers made elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from adacd_cli.cli.measuring import ASPECTS, JUDGE_CACHE, JUDGE_MODEL, JUDGE_URL, Tally, make_judges
from adacd_cli.cli.options import DEBUG, OUTPUT, PROMPT_COLUMN, option, switch
from adacd_cli.cli.running import note, warn
from adacd_cli.cli.streams import open_output, read_file
from adacd_cli.config import Settings, change
from adacd_cli.counting import counted
from adacd_cli.errors import UsageError
from adacd_cli.evaluation.datasets.files import PROMPT_COLUMNS, need_column, prompt_in, read_table
from adacd_cli.evaluation.judges import Exchange
from adacd_cli.render.text import json_line

_FILE = "JSON or CSV with prompts and answers; - is stdin."
_STDIN = "Standard input"
_ANSWERS = ("completion", "response", "output", "answer", "generation", "text")
"""Names of the column that holds the answers, the first that is there; `text` is that of `adacd eval`."""


def judge(
    file: Annotated[str, typer.Argument(metavar="FILE", help=_FILE)],
    prompt_column: str | None = PROMPT_COLUMN,
    answer_column: str | None = option("NAME", "Column of the answers."),
    judge: str = option("NAME", "keyword, wildguard, minos or openai; NAME=MODEL.", default="keyword"),
    judge_url: str | None = JUDGE_URL,
    judge_model: str | None = JUDGE_MODEL,
    judge_cache: str | None = JUDGE_CACHE,
    aspects: bool = ASPECTS,
    device: str = option("NAME", "Where a judge that is a model runs.", default="auto"),
    output: str | None = OUTPUT,
    quiet: bool = switch("Show nothing but the lines and errors.", "--quiet", "-q"),
    debug: bool = DEBUG,
) -> None:
    """Judge answers made elsewhere: the same records come back, each with a judgement."""
    records = list(_read(file, prompt_column, answer_column))
    if not records:
        hint = "Write one record a line."
        raise UsageError(f"{_STDIN if file == '-' else file} has no answer in it.", hint)
    settings = change(Settings(quiet=quiet), "device", device, "--device")
    of_openai: dict[str, Any] = {"url": judge_url, "model": judge_model, "aspects": aspects}
    (chosen,) = make_judges([judge], settings, cache=judge_cache, **of_openai)
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
    total = ", ".join(f"{count} {label}" for label, count in counts.most_common())
    note(f"{counted(len(records), 'answer')}, judge {judge}: {total}.", settings)


def _read(file: str, *columns: str | None) -> Iterator[tuple[dict[str, Any], Exchange]]:
    """Each record of a file, and what of it is judged; UsageError where one has no prompt or answer."""
    prompts, answers = (
        (named,) if named else usual for named, usual in zip(columns, (PROMPT_COLUMNS, _ANSWERS), strict=True)
    )
    name, ending = (_STDIN, "") if file == "-" else (file, Path(file).suffix.lower())
    for place, cells in read_table(read_file(file), name, ending):
        where = f"{name}, {place}"
        prompt = need_column(cells, prompts, "prompt", where)
        answer = need_column(cells, answers, "answer", where, taken=prompt)
        for column in (prompt, answer):
            if not isinstance(cells[column], str):
                what = f"{where} has something other than text as its `{column}`."
                raise UsageError(what, "Put quotes around text.")
        yield cells, Exchange(prompt_in(cells, prompt, where)[0], cells[answer])
