"""A chart of points with intervals, as values: what is drawn, and the same in words. `svg` draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """A value with its 95 % interval; low and high are the value where there is none."""

    value: float
    low: float
    high: float

    def words(self) -> str:
        """`12.0 (8.5 to 16.7)`, or the value alone where it has no interval."""
        value, low, high = map(_number, (self.value, self.low, self.high))
        return value if low == high else f"{value} ({low} to {high})"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the chart: what it is about, a note under that, and a point a method."""

    name: str
    note: str
    points: Mapping[str, Point]


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn.

    Attributes:
        name: unique on the page; letters and hyphens.
        title: of the chart; the page prints it above, where it can break into lines.
        axis: the label of the x axis, with its unit.
        rows: from top to bottom, at least one.
        methods: every method of the run in its order, so that each has one colour in all charts.
        low: no value is below; None for no bound.
        high: no value is above; None for no bound.
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
                one.words() if method == row.name else f"{method} {one.words()}"
                for method, one in row.points.items()
            )
            rows.append(f"{row.name}: {', '.join(points)}.")
        return f"{self.title}. {self.axis}, with 95 % intervals in brackets. {' '.join(rows)}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
