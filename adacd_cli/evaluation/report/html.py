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

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from adacd_cli.evaluation.records import AnswerRecord, JudgementRecord
from adacd_cli.evaluation.report import figures
from adacd_cli.evaluation.report.figures import svg
from adacd_cli.evaluation.report.samples import browser
from adacd_cli.evaluation.report.tables import circumstances, judged_by, raters, tables, title
from adacd_cli.evaluation.verdict import HELPS, TRADES_HELPFULNESS, TRADES_SAFETY
from adacd_cli.render.document import as_html, as_json, document

_MARKS = {HELPS: ("good", "✓"), TRADES_SAFETY: ("bad", "✕"), TRADES_HELPFULNESS: ("bad", "✕")}
_NUMBER = re.compile(r"(< |[-+])?[0-9][0-9.e-]*( (%|×|points))?( \[.*\])?|–")


def page(
    results: Mapping[str, Any], answers: Iterable[AnswerRecord], judgements: Iterable[JudgementRecord]
) -> str:
    """The whole document."""
    answers, judgements = list(answers), list(judgements)
    shown, sections = browser(results, answers, judgements), _sections()
    facts = dict(results["provenance"])
    settings: Mapping[str, Mapping[str, Any]] = facts.pop("settings")
    names = dict.fromkeys(name for values in settings.values() for name in values)
    chosen = [
        [name, *(_value(each[name]) if name in each else "" for each in settings.values())] for name in names
    ]
    parts = {
        "title": as_html(title(results)),
        "judge": as_html(judged_by(results)),
        "circumstances": as_html(circumstances(results)),
        "verdicts": sections.verdicts(_cards(results, shown)),
        "figures": sections.figures(_figures(results, answers, judgements)),
        "tables": sections.tables(tables(results)),
        "provenance": sections.provenance(_flat(facts), settings, chosen),
        "data": as_json(shown),
    }
    return document("adacd_cli.evaluation.report", "report", parts)


def _sections() -> Any:
    """The macros of sections.html."""
    pages = Environment(
        loader=PackageLoader("adacd_cli.evaluation.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if hasattr(value, "__html__") else Markup(as_html(str(value))),
    )
    pages.tests["numeric"] = _NUMBER.fullmatch
    pages.filters["base64"] = lambda chart: b64encode(svg(chart).encode()).decode()
    return pages.get_template("sections.html").module


def _cards(results: Mapping[str, Any], shown: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Of each verdict: method, name, reason, kind, mark, and how many samples it fixed and broke."""
    changes: Counter[tuple[str, str]] = Counter(
        (method, answer["change"])
        for sample in shown["samples"]
        for method, answer in zip(shown["methods"], sample["answers"], strict=True)
        if answer and answer.get("change")
    )
    for method, name in results["verdicts"].items():
        mark = _MARKS.get(name, ("good", "✓") if name.startswith("helps") else ("even", "="))
        counts = {change: changes[method, change] for change in ("fixed", "broken")}
        yield method, name, results["reasons"][method], *mark, counts


def _figures(
    results: Mapping[str, Any], answers: list[AnswerRecord], judgements: list[JudgementRecord]
) -> Iterator[tuple[figures.Chart | str, str]]:
    """Each figure with its caption."""
    judge, batch = judged_by(results), results["provenance"]["batch_size"]
    for label in ("safe", "unsafe"):
        note = "Partial refusals count as refusals; lines are 95 % Wilson intervals."
        yield figures.ratios(results, label), f"{note} Judge: {judge}."
    note = "Means over the answers to safe prompts, with 95 % intervals."
    yield figures.usability(results, answers, judgements), f"{note} {raters(results)}"
    note = f"On the same prompts, {batch} at once; lines are 95 % intervals over the prompts."
    yield figures.times(results, answers, judgements), f"{note} Over the answers that {judge} judged."


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
