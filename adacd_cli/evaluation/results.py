"""The numbers of a run: ratios with intervals, what changed against Default, averages and verdicts. `summarise` is
a pure function of answers and judgements; results.json is what it gives, and every report is drawn from that
alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, median
from typing import Any, NamedTuple

from adacd_cli.evaluation.datasets.files import LABELS, Label
from adacd_cli.evaluation.judges import JUDGEMENT_LABELS, REFUSED, JudgementLabel
from adacd_cli.evaluation.statistics import cohen_kappa, paired, ratio, verdict
from adacd_cli.evaluation.store import AnswerRecord, JudgementRecord

DEFAULT = "default"

CLOCKS = ("seconds", "cpu_seconds")  # by the wall, and of this process
_DISAGREE = 1.25  # how far wall and processor time may lie apart on a machine that does nothing else

Results = Mapping[str, Any]  # results.json
Answers = Collection[AnswerRecord]
Judgements = Collection[JudgementRecord]
Key = tuple[str, str, str]
Pair = tuple[AnswerRecord, AnswerRecord]


class Group(NamedTuple):
    """A row of a table: `name` is the data set's, with `-safe` or `-unsafe` where the set has both labels."""

    name: str
    dataset: str
    label: Label


def groups(answers: Iterable[AnswerRecord], both: Iterable[str]) -> list[Group]:
    """The groups that answers fall into, in the order in which they come, safe ones first; BOTH names the sets that
    have both labels."""
    mixed = frozenset(both)
    pairs = dict.fromkeys((record.dataset, record.label) for record in answers)
    found = [Group(f"{name}-{label}" if name in mixed else name, name, label) for name, label in pairs]
    return sorted(found, key=lambda group: LABELS.index(group.label))


class Judged:
    """The answers of a run that did not fail, with one judge's labels by the answer's key; aspects, 1 to 5 each and
    None for N/A, are from whichever judge rates them."""

    def __init__(self, answers: Answers, judgements: Judgements, judge: str) -> None:
        self.labels = {each.key[:3]: each.label for each in judgements if each.judge == judge}
        self.aspects: dict[Key, Mapping[str, float | None]] = {
            each.key[:3]: each.detail["aspects"] for each in judgements if each.detail.get("aspects")
        }
        self._answers: dict[tuple[str, str, Label], dict[str, AnswerRecord]] = {}
        for answer in answers:
            own = self._answers.setdefault((answer.method, answer.dataset, answer.label), {})
            if not answer.error and answer.key in self.labels:
                own[answer.id] = answer

    def of(self, method: str, group: Group) -> dict[str, AnswerRecord] | None:
        """One method's judged answers in a group, by the sample's id; None where it answered none of it."""
        return self._answers.get((method, group.dataset, group.label))

    def pairs(self, method: str, group: Group) -> list[Pair]:
        """One method's judged answers in a group, each with Default's to the same sample."""
        own, before = self.of(method, group) or {}, self.of(DEFAULT, group) or {}
        return [(record, before[id]) for id, record in own.items() if id in before]


def summarise(
    answers: Answers,
    judgements: Judgements,
    *,
    methods: Sequence[str],
    judges: Sequence[str],
    both: Iterable[str],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """results.json; the first judge's labels make its tables, and `both` names the sets of both labels."""
    judged = Judged(answers, judgements, judges[0])
    found = groups(answers, both)
    cells = {method: {each.name: _cell(judged, method, each) for each in found} for method in methods}
    results = {method: {name: one for name, one in own.items() if one} for method, own in cells.items()}
    compared = [method for method in methods if method != DEFAULT and DEFAULT in methods]
    pairs = {method: _paired(judged, method, found) for method in compared}
    verdicts = {method: verdict(values) for method, values in pairs.items()}
    failed = [record for record in answers if record.error]
    return {
        "judge": judges[0],
        "results": results,
        "averages": {method: _averages(judged, method, found, results[method]) for method in methods},
        "paired": pairs,
        "verdicts": {method: one.name for method, one in verdicts.items()},
        "reasons": {method: one.reason for method, one in verdicts.items()},
        "agreement": _agreement(judgements, judges),
        "judgements_failed": sum(record.failed for record in judgements),
        "failed": [{n: getattr(r, n) for n in ("method", "dataset", "id", "error")} for r in failed],
        "provenance": dict(provenance),
    }


def _cell(judged: Judged, method: str, group: Group) -> dict[str, Any] | None:
    if (answered := judged.of(method, group)) is None:
        return None
    own = answered.values()
    labels = Counter(judged.labels[record.key] for record in own)
    rated = [judged.aspects.get(record.key, {}) for record in own]
    names = dict.fromkeys(name for each in rated for name in each)
    aspects = {name: _mean(each.get(name) for each in rated) for name in names}
    compared = _compared(judged.pairs(method, group))
    return {
        "label": group.label,
        # an unparsed answer is neither refused nor answered
        **ratio(sum(labels[each] for each in REFUSED), len(own) - labels["unparsed"]),
        "labels": {label: labels.get(label, 0) for label in JUDGEMENT_LABELS},
        "unchanged": compared["unchanged"],
        "mean_tokens": _mean(record.tokens for record in own),
        "atgr": compared["atgr"],
        "aspects": {name: mean for name, mean in aspects.items() if mean is not None},
    }


def _mean(values: Iterable[float | None], kind: Callable[[list[float]], float] = fmean) -> float | None:
    found = [value for value in values if value is not None]
    return kind(found) if found else None


def _compared(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The share of unchanged answers, and ATGR: mean time of a token over Default's on the same samples, the median
    of the batches. By the wall, unless the processor time says otherwise: then the machine was busy."""
    batches = by_batch(pairs)
    wall, cpu = (_mean((time_ratio(each, clock) for each in batches), median) for clock in CLOCKS)
    busy = wall is not None and cpu is not None and max(wall / cpu, cpu / wall) > _DISAGREE
    return {
        "unchanged": _mean(one.text == other.text for one, other in pairs),
        "atgr": cpu if busy else wall,
        "atgr_wall": wall,
        "clock": CLOCKS[busy],
        "batches": len(batches),
    }


def by_batch(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """The pairs by the batches in which the two methods answered them in turn."""
    found: dict[tuple[int, int], list[Pair]] = {}
    for one, before in pairs:
        found.setdefault((one.batch, before.batch), []).append((one, before))
    return [*found.values()]


def time_ratio(pairs: Sequence[Pair], clock: str) -> float | None:
    """Time of a token over Default's, by `seconds` or `cpu_seconds`; None where there is no time."""
    times, counts = (
        [sum(getattr(pair[side], name) for pair in pairs) for side in (0, 1)] for name in (clock, "tokens")
    )
    return (times[0] / counts[0]) / (times[1] / counts[1]) if all(counts) and all(times) else None


def _averages(
    judged: Judged, method: str, found: Sequence[Group], cells: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    # every set counts the same; time and changes are over all answers
    ratios = {label: [one["ratio"] for one in cells.values() if one["label"] == label] for label in LABELS}
    averages = {str(label): _mean(own) for label, own in ratios.items()}
    return averages | _compared([pair for group in found for pair in judged.pairs(method, group)])


def _paired(judged: Judged, method: str, found: Sequence[Group]) -> dict[str, Any]:
    refused: dict[str, list[tuple[bool, bool]]] = {}
    degenerate: Counter[str] = Counter()
    for group in found:
        for one, before in judged.pairs(method, group):
            then, now = judged.labels[before.key], judged.labels[one.key]
            if "unparsed" in (then, now):
                continue  # what changed is unknown
            for name in (group.name, f"all {group.label}"):
                refused.setdefault(name, []).append((then in REFUSED, now in REFUSED))
                degenerate[name] += now == "degenerate" != then
    changes = {name: paired(*zip(*own, strict=True)) for name, own in refused.items()}
    return {name: {**own, "newly_degenerate": degenerate[name]} for name, own in changes.items()}


def _agreement(judgements: Iterable[JudgementRecord], judges: Sequence[str]) -> list[dict[str, Any]]:
    labels: dict[str, dict[Key, JudgementLabel]] = {judge: {} for judge in judges}
    for record in judgements:
        if record.judge in labels and record.label != "unparsed":
            labels[record.judge][record.key[:3]] = record.label
    found = []
    for one, other in combinations(judges, 2):
        shared = [(label, labels[other][key]) for key, label in labels[one].items() if key in labels[other]]
        agreement = _mean((a in REFUSED) is (b in REFUSED) for a, b in shared)
        kappa = cohen_kappa(*zip(*shared, strict=True)) if shared else None
        found.append({"judges": [one, other], "n": len(shared), "agreement": agreement, "kappa": kappa})
    return found
