"""The report as Markdown, for a terminal and a pull request. Every table names its judge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adacd_cli.evaluation.report.tables import circumstances, judged_by, tables, title
from adacd_cli.render.safe import printable


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report of what `results.summarise` gave."""
    parts = [
        f"# {_literal(title(results))}",
        f"Judge: **{_literal(judged_by(results))}**. {_literal(circumstances(results))}",
    ]
    if results["verdicts"]:
        parts.append("## Verdicts against default")
        reasons = results["reasons"]
        verdicts = [
            f"- **{method}: {name}.** {reasons[method]}" for method, name in results["verdicts"].items()
        ]
        parts.append("\n".join(verdicts))
    for one in tables(results):
        parts += [f"## {one.title}", table(one.header, one.rows), *([one.note] if one.note else [])]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of literal texts."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _literal(text: str) -> str:
    """Text on one line that begins no HTML; a lone surrogate, which UTF-8 cannot carry, becomes `?`."""
    line = " ".join(text.encode("utf-8", "replace").decode("utf-8").splitlines())
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", printable(line))


def _cell(text: str) -> str:
    return _literal(text).replace("|", "\\|")
