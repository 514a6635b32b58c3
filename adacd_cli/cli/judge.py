"""`adacd judge`: judges answers made elsewhere; JSON Lines in, the same lines with a judgement out."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from adacd_cli.cli import measuring
from adacd_cli.cli.options import DebugOption, OutputOption, option
from adacd_cli.cli.progress import Tally
from adacd_cli.cli.running import warn
from adacd_cli.cli.streams import open_output, read_lines
from adacd_cli.config import Settings, change
from adacd_cli.counting import counted
from adacd_cli.errors import UsageError
from adacd_cli.render.jsonl import json_line
from adacd_cli.render.screen import DIM, Screen


def command(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON Lines with prompt and completion; - is stdin.")
    ],
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
    """Judge answers made elsewhere: the same lines come back, each with a judgement."""
    from adacd_cli.evaluation.judges.base import Exchange

    lines = list(_read(file))
    settings = change(Settings(quiet=quiet), "device", device, "--device")
    chosen = measuring.make_judges(
        [judge], settings, url=judge_url, model=judge_model, cache=judge_cache, aspects=aspects
    )[0]
    counts: Counter[str] = Counter()
    exchanges = [Exchange(line["prompt"], line["completion"]) for line in lines]
    with open_output(output) as out, Tally("Judging", len(lines), "answers", settings) as tally:
        for line, judgement in zip(lines, chosen.judge(exchanges), strict=True):
            written: dict[str, Any] = {"judge": judgement.judge, "label": judgement.label}
            if judgement.detail:
                written["detail"] = dict(judgement.detail)
            out.write(json_line({**line, "judgement": written}, out) + "\n")
            counts[judgement.label] += 1
            tally.add()
    warn(getattr(chosen, "notices", ()), settings)
    if not quiet:
        total = ", ".join(f"{count} {label}" for label, count in counts.most_common())
        Screen(sys.stderr).put_line((f"{counted(len(lines), 'answer')}, judge {judge}: {total}.", DIM))


def _read(file: str) -> Iterator[dict[str, Any]]:
    """The lines of a file; UsageError where one is no JSON object, or lacks prompt or completion."""
    name = "standard input" if file == "-" else file
    hint = 'Each line is one JSON object, e.g. {"prompt": "…", "completion": "…"}.'
    found = False
    for number, text in enumerate(read_lines(file), 1):
        if not text.strip():
            continue
        found = True
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name}, line {number} is not valid JSON: {error}.", hint) from error
        if not isinstance(values, dict):
            raise UsageError(f"{name}, line {number} is not a JSON object.", hint)
        for key in ("prompt", "completion"):
            if not isinstance(values.get(key), str):
                what = "has no" if key not in values else "has something other than text as its"
                raise UsageError(f"{name}, line {number} {what} `{key}`.", hint)
        yield values
    if not found:
        raise UsageError(f"{name} has no answer in it.", hint)
