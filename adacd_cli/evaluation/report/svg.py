"""Charts of points with intervals, and the front of a tuning, as SVG documents."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adacd_cli.evaluation.report.figures import Chart
from adacd_cli.render.plot import COLORS, MARKERS, drawn, label, save

if TYPE_CHECKING:
    pass

_WIDTH, _SLOT = 6.4, 0.16  # inches
_LONGEST = 32  # characters of a name


def svg(chart: Chart) -> str:
    """The chart: a band for each row, and in it a point with its interval for each method."""
    methods = [method for method in chart.methods if any(method in row.points for row in chart.rows)]
    legend = chart.legend and len(methods) > 1
    slots = len(methods) if chart.legend else 1
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
            shift = ((place + 0.5) / slots - 0.5) * 0.8 if chart.legend else 0.0
            color = COLORS[own % len(COLORS)]
            axes.errorbar(
                [point.value for point in points],
                [y + shift for _, y in at],
                xerr=[
                    [each.value - each.low for each in points],
                    [each.high - each.value for each in points],
                ],
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
        if (
            chart.reference is not None and high > 10 * chart.reference
        ):  # one value must not flatten the others
            axes.set_xscale("log")
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
    widest = 2.0 if chart.low is None or chart.high is None else chart.high - chart.low
    # values that are all alike must not fill the chart with their rounding
    margin = max(0.05 * (high - low), (widest / 20 - (high - low)) / 2)
    return (
        low - margin if chart.low is None else max(low - margin, chart.low),
        high + margin if chart.high is None else min(high + margin, chart.high),
    )


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
