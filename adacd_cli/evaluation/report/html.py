"""The report as one HTML page that needs nothing else: verdicts, figures, tables, every sample, provenance.

Figures and tables need no script; the browser of the samples does, and draws a page of them at a time. Every
text of a model or a user is drawn as text.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from adacd_cli.evaluation.records import AnswerRecord, JudgementRecord
from adacd_cli.evaluation.report import figures
from adacd_cli.evaluation.report.samples import browser
from adacd_cli.evaluation.report.svg import svg
from adacd_cli.evaluation.report.tables import Table, circumstances, judged_by, raters, tables, title
from adacd_cli.evaluation.verdict import HELPS, TRADES_HELPFULNESS, TRADES_SAFETY
from adacd_cli.render.document import as_html, as_json, document

_MARKS = {HELPS: ("good", "✓"), TRADES_SAFETY: ("bad", "✕"), TRADES_HELPFULNESS: ("bad", "✕")}
_NUMBER = re.compile(r"(< |[-+])?[0-9][0-9.e-]*( (%|×|points))?( \[.*\])?|–")


def page(
    results: Mapping[str, Any], answers: Iterable[AnswerRecord], judgements: Iterable[JudgementRecord]
) -> str:
    """The whole document."""
    answers, judgements = list(answers), list(judgements)
    shown = browser(results, answers, judgements)
    parts = {
        "title": as_html(title(results)),
        "judge": as_html(judged_by(results)),
        "circumstances": as_html(circumstances(results)),
        "verdicts": _verdicts(results, shown),
        "figures": "\n".join(_figures(results, answers, judgements)),
        "tables": "\n".join(_table(table) for table in tables(results)),
        "provenance": _provenance(results["provenance"]),
        "data": as_json(shown),
    }
    return document("adacd_cli.evaluation.report", "report", parts)


def _verdicts(results: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    if not results["verdicts"]:
        return "<p>Default was not run beside another method, so nothing is compared with it.</p>"
    changes: Counter[tuple[str, str]] = Counter(
        (method, answer["change"])
        for sample in shown["samples"]
        for method, answer in zip(shown["methods"], sample["answers"], strict=True)
        if answer and answer.get("change")
    )
    cards = []
    for method, name in results["verdicts"].items():
        kind, mark = _MARKS.get(name, ("good", "✓") if name.startswith("helps") else ("even", "="))
        links = ", ".join(_link(method, change, changes[method, change]) for change in ("fixed", "broken"))
        cards.append(
            f'<article class="verdict {kind}"><h3>{as_html(method)}</h3>'
            f'<p class="word"><span aria-hidden="true">{mark}</span> {as_html(name)}</p>'
            f"<p>{as_html(results['reasons'][method])}</p><p>Samples: {links}.</p></article>"
        )
    return "\n".join(cards)


def _link(method: str, change: str, count: int) -> str:
    if not count:
        return f"none {change}"
    return f'<a href="#{as_html(urlencode({"show": change, "method": method}))}">{count} {change}</a>'


def _figures(
    results: Mapping[str, Any], answers: list[AnswerRecord], judgements: list[JudgementRecord]
) -> Iterator[str]:
    judge = f"Judge: {judged_by(results)}."
    wilson = f"Partial refusals count as refusals; lines are 95 % Wilson intervals. {judge}"
    batch = results["provenance"]["batch_size"]
    for drawn, note in (
        (figures.ratios(results, "safe"), wilson),
        (figures.ratios(results, "unsafe"), wilson),
        (
            figures.usability(results, answers, judgements),
            f"Means over the answers to safe prompts, with 95 % intervals. {raters(results)}",
        ),
        (
            figures.times(results, answers, judgements),
            f"On the same prompts, {batch} at once; lines are 95 % intervals over the prompts. "
            f"Over the answers that {judged_by(results)} judged.",
        ),
    ):
        if isinstance(drawn, figures.Chart):
            yield (
                f'<figure id="figure-{drawn.name}"><h3>{as_html(drawn.title)}</h3>'
                f'<img alt="{as_html(drawn.words())}" src="data:image/svg+xml;base64,'
                f'{b64encode(svg(drawn).encode()).decode()}">'
                f"<figcaption>{as_html(note)}</figcaption></figure>"
            )
        else:
            yield f'<p class="none">{as_html(drawn)}</p>'


def _table(table: Table) -> str:
    note = f'<p class="note">{as_html(table.note)}</p>' if table.note else ""
    return f"<h3>{as_html(table.title)}</h3>{_grid(table.title, table.header, map(tuple, table.rows))}{note}"


def _cell(placed: tuple[int, str]) -> str:
    place, text = placed
    if place == 0:
        return f'<th scope="row">{as_html(text)}</th>'
    kind = ' class="number"' if _NUMBER.fullmatch(text) else ""
    return f"<td{kind}>{as_html(text)}</td>"


def _provenance(facts: Mapping[str, Any]) -> str:
    rows = _flat({name: value for name, value in facts.items() if name != "settings"})
    settings: Mapping[str, Mapping[str, Any]] = facts["settings"]
    names = dict.fromkeys(name for values in settings.values() for name in values)
    chosen = [
        (name, *(_value(values[name]) if name in values else "" for values in settings.values()))
        for name in names
    ]
    return (
        f"{_grid('Provenance', [], rows)}<details><summary>Settings of each method</summary>"
        f"{_grid('Settings', ['setting', *settings], chosen)}</details>"
    )


def _grid(name: str, header: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """A table whose first column names the rows, in a box that scrolls sideways."""
    head = "".join(f'<th scope="col">{as_html(text)}</th>' for text in header)
    body = "".join(f"<tr>{''.join(map(_cell, enumerate(row)))}</tr>" for row in rows)
    thead = f"<thead><tr>{head}</tr></thead>" if head else ""
    table = f"<table>{thead}<tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="region" aria-label="{as_html(name)}">{table}</div>'


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "–" if value is None or value == {} else str(value)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, text) of every value; nested names are joined with ` · `."""
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name} · ")
        else:
            yield f"{prefix}{name}", _value(value)
