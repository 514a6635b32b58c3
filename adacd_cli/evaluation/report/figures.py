"""The paper's three figures: refusal ratios on both sides, usability in five aspects, time per token. Each is a
chart as a value, which `svg` draws, or a sentence that says why there is nothing to draw. Ratios are those of
results.json; the intervals of scores and times are computed here, from the answers behind them. `adacd fit` has a
figure of its own, `draw_trade_off`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import exp, inf, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from adacd_cli.evaluation.report.tables import set_names, set_size
from adacd_cli.evaluation.results import DEFAULT, Answers, Judgements, Pair, Results, by_batch, time_ratio
from adacd_cli.evaluation.store import AnswerRecord
from adacd_cli.render.document import COLORS, MARKERS, drawn, label, save

_Z = 1.959964  # of a 95 % interval, where the distribution is close to normal
_WIDTH, _SLOT = 6.4, 0.16  # inches
_LONGEST = 32  # characters of a name


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
    """What is drawn."""

    name: str  # unique on the page; letters and hyphens
    title: str
    axis: str  # the label of the x axis, with its unit
    rows: Sequence[Row]  # from top to bottom, at least one
    methods: Sequence[str]  # of the run in its order, so that each has one colour in all charts
    low: float  # bounds of all values; None for no bound
    high: float | None
    anchor: float  # a value that is always in view
    reference: float | None = None  # where a vertical line stands, in a chart whose rows are the methods

    def words(self) -> str:
        """The chart in words, for who cannot see it."""
        rows = []
        for row in self.rows:
            named = {"" if name == row.name else f"{name} ": one.words() for name, one in row.points.items()}
            rows.append(f"{row.name}: {', '.join(f'{name}{words}' for name, words in named.items())}.")
        return f"{self.title}. {self.axis}, with 95 % intervals in brackets. {' '.join(rows)}"


def ratios(results: Results, label: str) -> Chart | str:
    """The refusal ratio of each set and method, with Wilson's intervals."""
    rows = []
    for name in set_names(results, label):
        own = {method: cells[name] for method, cells in results["results"].items() if name in cells}
        ends = {each: (one["ratio"], one["ci_low"], one["ci_high"]) for each, one in own.items()}
        points = {each: Point(*(100 * end for end in of)) for each, of in ends.items() if None not in of}
        rows += [Row(name, f"n = {set_size(results, name)}", points)] if points else []
    if not rows:
        return f"No answers to {label} prompts were judged, so there are no refusals of them to draw."
    title, anchor = "Over-refusal: safe prompts that are refused, lower is better", 0
    if label == "unsafe":
        title, anchor = "Malicious: unsafe prompts that are refused, higher is better", 100
    methods = list(results["results"])
    return Chart(f"ratios-{label}", title, "refused answers (%)", rows, methods, 0, 100, anchor)


def usability(results: Results, answers: Answers, judgements: Judgements) -> Chart | str:
    """The mean of each aspect over the safe prompts, with normal intervals."""
    safe = {record.key for record in answers if record.label == "safe" and not record.error}
    rated = {record.key[:3]: record.detail.get("aspects") or {} for record in judgements}
    scores: dict[str, dict[str, list[float]]] = {}
    given = ((key[0], each) for key, own in rated.items() if key in safe for each in own.items())
    for method, (name, value) in given:
        if value is not None:
            scores.setdefault(name, {}).setdefault(method, []).append(float(value))
    methods = list(results["results"])
    found = {name: {each: _mean(of[each]) for each in methods if each in of} for name, of in scores.items()}
    rows = [Row(name, "", points) for name, points in found.items() if points]
    if not rows:
        if any(facts.get("aspects") for facts in results["provenance"].get("judging", {}).values()):
            return "Usability is not drawn: no rating of the five aspects could be read."
        why = "no judge rated the five aspects of answers to safe prompts. Judge openai does with --aspects"
        return f"Usability is not drawn: {why}."
    title = "Usability: answers to safe prompts, higher is better"
    return Chart("usability", title, "mean score (1 to 5)", rows, methods, 1, 5, 5)


def times(results: Results, answers: Answers, judgements: Judgements) -> Chart | str:
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
        own, clock = timed.get(method, {}), averages.get("clock", "seconds")
        pairs = [(own[key], before[key]) for key in own if key in before]
        # a batch during which the machine stood still says nothing of the prompts
        steady = [each for each in by_batch(pairs) if value / 3 < (time_ratio(each, clock) or 0) < 3 * value]
        spread = 1.0 if method == DEFAULT else _spread([*chain(*steady)], clock)
        rows.append(Row(method, "", {method: Point(value, value / spread, value * spread)}))
    if all(row.name == DEFAULT for row in rows):
        return "Times are compared with Default's on the same prompts, and there are none to compare."
    title, axis = "Time per token against Default (ATGR), lower is better", "time of a token ÷ Default's (×)"
    methods = list(results["results"])
    return Chart("times", title, axis, rows, methods, 0, None, 1, reference=1)


def _mean(values: Sequence[float]) -> Point:
    mean = fmean(values)
    half = _Z * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    # the scale ends at 1 and 5, and so does what is known of its mean
    return Point(mean, min(mean, max(1.0, mean - half)), max(mean, min(5.0, mean + half)))


def _spread(pairs: Sequence[Pair], clock: str) -> float:
    """The factor from a time ratio to the upper end of its interval, by the delta method on its logarithm. Prompts
    are what varies: it says how much hangs on their choice, and nothing of the machine."""
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


def svg(chart: Chart) -> str:
    """The chart: a band for each row, and in it a point with its interval for each method."""
    methods = [method for method in chart.methods if any(method in row.points for row in chart.rows)]
    several = chart.reference is None  # the rows do not name the methods
    legend, slots = several and len(methods) > 1, len(methods) if several else 1
    columns = max(1, min(len(methods), int(100 / (6 + max(len(label(each, _LONGEST)) for each in methods)))))
    height = 0.9 + len(chart.rows) * max(0.36, slots * _SLOT + 0.15) + 0.2 * legend * -(-slots // columns)
    out = io.StringIO()
    with drawn(_WIDTH, height) as figure:
        axes = figure.add_subplot()
        for number in range(0, len(chart.rows), 2):
            axes.axhspan(number - 0.5, number + 0.5, color="#f3f1ec", linewidth=0, zorder=0)
        for place, method in enumerate(methods):
            own = chart.methods.index(method)
            at = [(row.points[method], y) for y, row in enumerate(chart.rows) if method in row.points]
            points = [point for point, _ in at]
            shift = ((place + 0.5) / slots - 0.5) * 0.8 if several else 0.0
            color = COLORS[own % len(COLORS)]
            below, above = ([abs(each.value - each[end]) for each in points] for end in (1, 2))
            axes.errorbar(
                [point.value for point in points],
                [y + shift for _, y in at],
                xerr=[below, above],
                fmt=MARKERS[own % len(MARKERS)],
                color=color,
                # the first one, which is Default in a comparison, is hollow
                markerfacecolor="white" if own == 0 else color,
                clip_on=False,
                label=label(method, _LONGEST),
            )
        names = [label(row.name, _LONGEST) + (f"\n{row.note}" if row.note else "") for row in chart.rows]
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        low, high = _limits(chart)
        if chart.reference is not None and high > 10 * chart.reference:
            axes.set_xscale("log")  # one value must not flatten the others
            axes.xaxis.set_major_formatter("{x:g}")
            low = min(point.low for row in chart.rows for point in row.points.values()) / 1.5
        axes.set_xlim(low, high)
        axes.set_xlabel(chart.axis)
        axes.grid(axis="x", linewidth=0.6)
        axes.set_axisbelow(True)
        if chart.reference is not None:
            axes.axvline(chart.reference, color="#888888", linewidth=1, linestyle="--", zorder=1)
        if legend:
            figure.legend(loc="outside lower center", ncols=columns, frameon=False)
        save(figure, out)
    return out.getvalue()


def _limits(chart: Chart) -> tuple[float, float]:
    ends = [end for row in chart.rows for one in row.points.values() for end in (one.low, one.high)]
    low, high = min([*ends, chart.anchor]), max([*ends, chart.anchor])
    widest = 2.0 if chart.high is None else chart.high - chart.low
    # values that are all alike must not fill the chart with their rounding
    margin = max(0.05 * (high - low), (widest / 20 - (high - low)) / 2)
    return max(low - margin, chart.low), min(high + margin, inf if chart.high is None else chart.high)


def draw_trade_off(curve: Sequence[tuple[float, float]], chosen: tuple[float, float], model: str) -> str:
    """What each threshold of a switch would give: shares refused of harmless and of harmful prompts, in [0, 1]; the
    first point is Default."""
    out = io.StringIO()
    with drawn(6.4, 4.4) as figure:
        axes = figure.add_subplot()
        x, y = ([100 * point[side] for point in curve] for side in (0, 1))
        axes.plot(x, y, "-", color=COLORS[1], label="thresholds of the switch")
        axes.plot(x[:1], y[:1], "o", color="#999999", label="Default")
        axes.plot([100 * chosen[0]], [100 * chosen[1]], "o", color=COLORS[0], label="chosen")
        axes.set_xlabel("harmless prompts refused, % (lower is better)")
        axes.set_ylabel("harmful prompts refused, % (higher is better)")
        axes.set_title(f"The learned switch on {model}, cross-validated")
        axes.legend()
        save(figure, out)
    return out.getvalue()
