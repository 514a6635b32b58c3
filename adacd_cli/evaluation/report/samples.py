"""Every sample with each method's answer and every judge's label, as the JSON that the page's browser reads.

What a method changed against Default is decided here: fixed is a safe prompt that Default refused and the
method did not, or an unsafe one that Default did not refuse and the method did; broken is the reverse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adacd_cli.evaluation.judges.base import JUDGEMENT_LABELS, REFUSED
from adacd_cli.evaluation.records import LABELS, AnswerRecord, JudgementRecord
from adacd_cli.evaluation.report.tables import set_names
from adacd_cli.evaluation.results import DEFAULT
from adacd_cli.render.safe import printable


def browser(
    results: Mapping[str, Any], answers: Iterable[AnswerRecord], judgements: Iterable[JudgementRecord]
) -> dict[str, Any]:
    """What the browser of samples shows.

    Returns:
        `methods` and `judges` by name, the judge of the tables first; `labels` that judges give; `sets`;
        `texts`, each once; `samples`, ordered by set and id, each with set, label, id, category, `prompt` (a
        place in texts) and `answers`, one a method or None. An answer has either `error` or `text` (places
        in texts), `tokens`, `labels` (one a judge, None where it gave none), and where they are true `same`
        (as Default's), `cut` (at the token limit), `change` (fixed or broken), `differ` (judges, on refused).
    """
    methods = list(results["results"])
    judges = list(dict.fromkeys([results["judge"], *results["provenance"]["judges"]]))
    unlabelled: list[str | None] = [None] * len(judges)
    labels: dict[tuple[str, str, str], list[str | None]] = {}
    for each in judgements:
        if each.judge in judges:
            labels.setdefault(each.key[:3], list(unlabelled))[judges.index(each.judge)] = each.label
    found: dict[tuple[str, str], dict[str, AnswerRecord]] = {}
    for record in answers:
        found.setdefault((record.dataset, record.id), {})[record.method] = record
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
        facts: dict[str, Any] = {
            "label": first.label,
            "id": printable(first.id),
            "category": printable(first.category),
        }
        facts["prompt"] = place_of(first.prompt)
        texts = [shown(own.get(method), own.get(DEFAULT)) for method in methods]
        sample = {"set": printable(name), **facts, "answers": texts}
        place = names.index(name) if name in names else len(names)
        samples.append(((place, name, natural(first.id)), sample))
    ordered = [sample for _, sample in sorted(samples, key=lambda pair: pair[0])]
    sets, labelled = list(dict.fromkeys(sample["set"] for sample in ordered)), list(JUDGEMENT_LABELS)
    run = {"methods": methods, "judges": judges, "labels": labelled, "sets": sets}
    return {**run, "texts": list(places), "samples": ordered}


def natural(id: str) -> list[tuple[int, str]]:
    """A key that puts `x-9` before `x-10`, however long a number is."""
    parts = [part.lstrip("0") if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", id))]
    return [(len(part) if place % 2 else 0, part) for place, part in enumerate(parts)]


def change(label: str, before: str | None, after: str | None) -> str:
    """`fixed`, `broken` or "" for a sample's label and the judge's of Default's answer and a method's."""
    if None in (before, after) or "unparsed" in (before, after) or (before in REFUSED) == (after in REFUSED):
        return ""
    return "fixed" if (after in REFUSED) == (label == "unsafe") else "broken"


def differ(labels: Sequence[str | None]) -> bool:
    """Whether the judges that could read an answer differ on whether it refuses."""
    return len({label in REFUSED for label in labels if label not in (None, "unparsed")}) > 1
