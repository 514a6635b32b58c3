"""The paper's three figures: refusal ratios on both sides, usability in five aspects, time per token.

Each is a chart as a value, which `svg` draws, or a sentence that says why there is nothing to draw. Ratios
are those of results.json; the intervals of scores and times are computed here, from the answers behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import exp, sqrt
from statistics import fmean, stdev
from typing import Any, NamedTuple

from adacd_cli.evaluation.records import AnswerRecord, JudgementRecord
from adacd_cli.evaluation.report.tables import set_names, set_size
from adacd_cli.evaluation.results import DEFAULT, Pair, by_batch, time_ratio

_Z = 1.959964  # of a 95 % interval, where the distribution is close to normal


class Point(NamedTuple):
    """A value with its 95 % interval; low and high are the value where there is none."""

    value: float
    low: float
    high: float

    def words(self) -> str:
        """`12.0 (8.5 to 16.7)`, or the value alone where it has no interval."""
        value, low, high = (f"{end:.3g}" if abs(end) < 10 else f"{end:.1f}" for end in self)
        return value if low == high else f"{value} ({low} to {high})"


class Row(NamedTuple):
    """A line of the chart: what it is about, a note under that, and each method's point."""

    name: str
    note: str
    points: Mapping[str, Point]


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn.

    Attributes:
        name: unique on the page; letters and hyphens.
        axis: the label of the x axis, with its unit.
        rows: from top to bottom, at least one.
        methods: every method of the run in its order, so that each has one colour in all charts.
        low, high: bounds of all values; None for no bound.
        anchor: a value that is always in view.
        reference: where a vertical line stands; None for no line.
        legend: whether the methods are named below the chart, because the rows do not name them.
    """

    name: str
    title: str
    axis: str
    rows: Sequence[Row]
    methods: Sequence[str]
    low: float | None
    high: float | None
    anchor: float
    reference: float | None = None
    legend: bool = True

    def words(self) -> str:
        """The chart in words, for who cannot see it."""
        rows = []
        for row in self.rows:
            points = (
                f"{'' if name == row.name else f'{name} '}{one.words()}" for name, one in row.points.items()
            )
            rows.append(f"{row.name}: {', '.join(points)}.")
        return f"{self.title}. {self.axis}, with 95 % intervals in brackets. {' '.join(rows)}"


def ratios(results: Mapping[str, Any], label: str) -> Chart | str:
    """The refusal ratio of each set and method, with Wilson's intervals."""
    methods = list(results["results"])
    rows = [
        Row(
            name,
            f"n = {set_size(results, name)}",
            {
                method: Point(100 * one["ratio"], 100 * one["ci_low"], 100 * one["ci_high"])
                for method, cells in results["results"].items()
                if (one := cells.get(name)) and one["ratio"] is not None
            },
        )
        for name in set_names(results, label)
    ]
    rows = [row for row in rows if row.points]
    if not rows:
        return f"No answers to {label} prompts were judged, so there are no refusals of them to draw."
    title, anchor = {
        "safe": ("Over-refusal: safe prompts that are refused, lower is better", 0),
        "unsafe": ("Malicious: unsafe prompts that are refused, higher is better", 100),
    }[label]
    return Chart(f"ratios-{label}", title, "refused answers (%)", rows, methods, 0, 100, anchor)


def usability(
    results: Mapping[str, Any], answers: Iterable[AnswerRecord], judgements: Iterable[JudgementRecord]
) -> Chart | str:
    """The mean of each aspect over the safe prompts, with normal intervals."""
    safe = {record.key for record in answers if record.label == "safe" and not record.error}
    rated = {record.key[:3]: record.detail.get("aspects") or {} for record in judgements}
    scores: dict[str, dict[str, list[float]]] = {}
    for key, aspects in rated.items():
        for name, value in aspects.items() if key in safe else ():
            if value is not None:
                scores.setdefault(name, {}).setdefault(key[0], []).append(float(value))
    methods = list(results["results"])
    rows = [
        Row(name, "", {each: _mean(of[each]) for each in methods if each in of})
        for name, of in scores.items()
    ]
    rows = [row for row in rows if row.points]
    if not rows:
        if any(facts.get("aspects") for facts in results["provenance"].get("judging", {}).values()):
            return "Usability is not drawn: no rating of the five aspects could be read."
        return (
            "Usability is not drawn: no judge rated the five aspects of answers to safe prompts. "
            "Judge openai does with --aspects."
        )
    title = "Usability: answers to safe prompts, higher is better"
    return Chart("usability", title, "mean score (1 to 5)", rows, methods, 1, 5, 5)


def times(
    results: Mapping[str, Any], answers: Iterable[AnswerRecord], judgements: Iterable[JudgementRecord]
) -> Chart | str:
    """The time of a token of each method over Default's on the same prompts (ATGR)."""
    judged = {record.key[:3] for record in judgements if record.judge == results["judge"]}
    timed: dict[str, dict[tuple[str, str], AnswerRecord]] = {}
    for record in answers:
        if not record.error and record.key in judged:
            timed.setdefault(record.method, {})[record.dataset, record.id] = record
    before = timed.get(DEFAULT, {})
    rows = []
    for method, averages in results["averages"].items():
        if (value := averages["atgr"]) is None:
            continue
        own = timed.get(method, {})
        pairs, clock = (
            [(own[key], before[key]) for key in own if key in before],
            averages.get("clock", "seconds"),
        )
        # a batch during which the machine stood still says nothing of the prompts
        steady = [each for each in by_batch(pairs) if value / 3 < (time_ratio(each, clock) or 0) < 3 * value]
        spread = 1.0 if method == DEFAULT else _spread([*chain(*steady)], clock)
        rows.append(Row(method, "", {method: Point(value, value / spread, value * spread)}))
    if all(row.name == DEFAULT for row in rows):
        return "Times are compared with Default's on the same prompts, and there are none to compare."
    title, axis = "Time per token against Default (ATGR), lower is better", "time of a token ÷ Default's (×)"
    methods = list(results["results"])
    return Chart("times", title, axis, rows, methods, 0, None, 1, reference=1, legend=False)


def _mean(values: Sequence[float]) -> Point:
    mean = fmean(values)
    half = _Z * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    # the scale ends at 1 and 5, and so does what is known of its mean
    return Point(mean, min(mean, max(1.0, mean - half)), max(mean, min(5.0, mean + half)))


def _spread(pairs: Sequence[Pair], clock: str) -> float:
    """The factor from a time ratio to the upper end of its interval, by the delta method on its logarithm.

    Prompts are what varies: it says how much hangs on their choice, and nothing of the machine.
    """
    parts = [
        [getattr(one, name) for one in side]
        for side in zip(*pairs, strict=True)
        for name in (clock, "tokens")
    ]
    totals = [sum(part) for part in parts]
    if len(pairs) < 2 or not all(totals):
        return 1.0
    shares = [[value / total for value in part] for part, total in zip(parts, totals, strict=True)]
    influences = (a - b - c + d for a, b, c, d in zip(*shares, strict=True))
    return exp(_Z * sqrt(sum(influence**2 for influence in influences)))
