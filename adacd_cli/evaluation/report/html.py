"""The report as one HTML page that needs nothing else: verdicts, figures, tables, every sample, provenance. Figures
and tables need no script; the browser of the samples does, and draws a page of them at a time. Every text of a
model or a user is drawn as text."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from adacd_cli.evaluation.datasets.files import LABELS
from adacd_cli.evaluation.judges import JUDGEMENT_LABELS, REFUSED
from adacd_cli.evaluation.report import figures
from adacd_cli.evaluation.report.tables import heading, judged_by, markdown, raters, set_names, tables
from adacd_cli.evaluation.results import DEFAULT, Answers, Judgements, Results
from adacd_cli.evaluation.statistics import HELPS, TRADES_HELPFULNESS, TRADES_SAFETY
from adacd_cli.evaluation.store import AnswerRecord, Store
from adacd_cli.render.document import as_html, as_json, document
from adacd_cli.render.screen import printable

_MARKS = {HELPS: ("good", "✓"), TRADES_SAFETY: ("bad", "✕"), TRADES_HELPFULNESS: ("bad", "✕")}
_NUMBER = re.compile(r"(< |[-+])?[0-9][0-9.e-]*( (%|×|points))?( \[.*\])?|–")


def write_reports(results: Results, store: Store) -> None:
    """Writes results.json, report.md and report.html into the run's folder, or raises OutputError."""
    store.write("results.json", json.dumps(results, indent=2) + "\n")
    store.write("report.md", markdown(results))
    store.write("report.html", page(results, store.answers.values(), store.judgements.values()))


def page(results: Results, answers: Answers, judgements: Judgements) -> str:
    shown, sections = browser(results, answers, judgements), _sections()
    facts = dict(results["provenance"])
    settings: Mapping[str, Mapping[str, Any]] = facts.pop("settings")
    names = dict.fromkeys(name for values in settings.values() for name in values)
    chosen = [[name, *(_value(each.get(name, "")) for each in settings.values())] for name in names]
    parts = {
        **{name: as_html(text) for name, text in heading(results).items()},
        "verdicts": sections.verdicts(_cards(results, shown)),
        "figures": sections.figures(_figures(results, answers, judgements)),
        "tables": sections.tables(tables(results)),
        "provenance": sections.provenance(_flat(facts), settings, chosen),
        "data": as_json(shown),
    }
    return document("adacd_cli.evaluation.report", "report", parts)


def _sections() -> Any:
    pages = Environment(
        loader=PackageLoader("adacd_cli.evaluation.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if hasattr(value, "__html__") else Markup(as_html(str(value))),
    )
    pages.tests["numeric"] = _NUMBER.fullmatch
    pages.filters["base64"] = lambda chart: b64encode(figures.svg(chart).encode()).decode()
    return pages.get_template("sections.html").module


def _cards(results: Results, shown: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
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


def _figures(results: Results, answers: Answers, judgements: Judgements) -> Iterator[tuple[Any, str]]:
    judge, batch = judged_by(results), results["provenance"]["batch_size"]
    for label in ("safe", "unsafe"):
        note = "Partial refusals count as refusals; lines are 95 % Wilson intervals."
        yield figures.ratios(results, label), f"{note} Judge: {judge}."
    note = "Means over the answers to safe prompts, with 95 % intervals."
    yield figures.usability(results, answers, judgements), f"{note} {raters(results)}"
    note = f"On the same prompts, {batch} at once; lines are 95 % intervals over the prompts."
    yield figures.times(results, answers, judgements), f"{note} Over the answers that {judge} judged."


def _value(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "–" if value is None or value == {} else text


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, text) of every value; nested names are joined with ` · `."""
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name} · ")
        else:
            yield f"{prefix}{name}", _value(value)


def browser(results: Results, answers: Answers, judgements: Judgements) -> dict[str, Any]:
    """What the browser of samples shows: every sample with each method's answer and every judge's label, as JSON.

    `methods` and `judges` by name, the judge of the tables first; `labels` that judges give; `sets`; `texts`, each
    once; `samples`, ordered by set and id, each with set, label, id, category, `prompt` (a place in texts) and
    `answers`, one a method or None. An answer has either `error` or `text` (places in texts), `tokens`, `labels`
    (one a judge, None where it gave none), and where they are true `same` (as Default's), `cut` (at the token
    limit), `change` (fixed or broken), `differ` (judges, on refused).
    """
    methods = list(results["results"])
    judges = list(dict.fromkeys([results["judge"], *results["provenance"]["judges"]]))
    unlabelled: list[str | None] = [None] * len(judges)
    labels: dict[tuple[str, str, str], list[str | None]] = {}
    for each in judgements:
        if each.judge in judges:
            labels.setdefault(each.key[:3], list(unlabelled))[judges.index(each.judge)] = each.label
    found: defaultdict[tuple[str, str], dict[str, AnswerRecord]] = defaultdict(dict)
    for record in answers:
        found[record.dataset, record.id][record.method] = record
    names = [name for label in LABELS for name in set_names(results, label)]
    places: dict[str, int] = {}  # each text once, because many answers are equal

    def place_of(text: str) -> int:
        return places.setdefault(printable(text), len(places))

    def shown(record: AnswerRecord | None, default: AnswerRecord | None) -> dict[str, Any] | None:
        if record is None:
            return None
        if record.error:
            return {"error": place_of(record.error)}
        own = labels.get(record.key, unlabelled)
        facts: dict[str, Any] = {"same": False, "cut": record.finish_reason == "length", "change": ""}
        if default is not None and not default.error and default is not record:
            facts["same"] = default.text == record.text
            facts["change"] = change(record.label, labels.get(default.key, unlabelled)[0], own[0])
        facts["differ"] = differ(own)
        true = {name: value for name, value in facts.items() if value}
        return {"text": place_of(record.text), "tokens": record.tokens, "labels": list(own), **true}

    samples = []
    for own in found.values():
        first = next(iter(own.values()))
        both = f"{first.dataset}-{first.label}"
        name = both if both in names and first.dataset not in names else first.dataset
        sample = {
            **{"set": printable(name), "label": first.label, "id": printable(first.id)},
            **{"category": printable(first.category), "prompt": place_of(first.prompt)},
            "answers": [shown(own.get(method), own.get(DEFAULT)) for method in methods],
        }
        place = names.index(name) if name in names else len(names)
        samples.append((place, name, natural(first.id), sample))
    ordered = [sample for *_, sample in sorted(samples, key=itemgetter(0, 1, 2))]
    sets = list(dict.fromkeys(sample["set"] for sample in ordered))
    run = {"methods": methods, "judges": judges, "labels": list(JUDGEMENT_LABELS), "sets": sets}
    return {**run, "texts": list(places), "samples": ordered}


def natural(id: str) -> list[tuple[int, str]]:
    """A key that puts `x-9` before `x-10`, however long a number is."""
    parts = [part.lstrip("0") if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", id))]
    return [(len(part) if place % 2 else 0, part) for place, part in enumerate(parts)]


def change(label: str, before: str | None, after: str | None) -> str:
    """`fixed` for a safe prompt that Default refused and the method did not, or an unsafe one that Default did not
    refuse and the method did; `broken` for the reverse, else ""; by the judge's labels of both answers."""
    if None in (before, after) or "unparsed" in (before, after) or (before in REFUSED) == (after in REFUSED):
        return ""
    return "fixed" if (after in REFUSED) == (label == "unsafe") else "broken"


def differ(labels: Sequence[str | None]) -> bool:
    """Whether the judges that could read an answer differ on whether it refuses."""
    return len({label in REFUSED for label in labels if label not in (None, "unparsed")}) > 1
