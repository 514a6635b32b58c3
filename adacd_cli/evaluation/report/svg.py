"""A chart of points with intervals as inline SVG that takes its colours from the page around it.

matplotlib draws it with sentinel colours; afterwards these become `currentColor` and CSS variables of the
page, and style attributes, which its content security policy forbids, become presentation attributes.
"""

from __future__ import annotations

import io
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adacd_cli.evaluation.report.chart import Chart, Point
from adacd_cli.render.document import as_html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# no other drawing of matplotlib has these colours, and they are what is searched for
_INK, _SOFT, _LINE, _BAND, _CARD = (f"#01020{digit}" for digit in range(3, 8))
_SERIES = tuple(f"#0102{16 + place:02x}" for place in range(7))
_COLORS = {
    _INK: "currentColor",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    _BAND: "var(--band)",
    _CARD: "var(--card)",
    **{color: f"var(--series-{place})" for place, color in enumerate(_SERIES, 1)},
}
_MARKERS = "osD^vPX"
_OPTIONS: dict[Any, Any] = {  # a release of matplotlib knows its options as literals, another does not
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with two dollars is a name
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.color": _LINE,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0,
    "ytick.major.pad": 8,  # room for half a marker at the edge
    "grid.color": _LINE,
}
_WIDTH, _SLOT = 6.0, 0.155  # inches
_LONGEST_ROW, _LONGEST_NAME = 32, 32  # characters, at the left and in the legend


def svg(chart: Chart) -> str:
    """The chart as one `svg` element, with its words as alternative text."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that its own font lacks, which the browser's has
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update({**_OPTIONS, "svg.hashsalt": chart.name})
        figure = Figure(figsize=(_WIDTH, _height(chart)), layout="constrained")
        _draw(figure, chart)
        drawn = io.StringIO()
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=none)
    return _inline(drawn.getvalue(), chart)


def _shown(chart: Chart) -> list[str]:
    return [method for method in chart.methods if any(method in row.points for row in chart.rows)]


def _legend_columns(methods: Sequence[str]) -> int:
    longest = max(len(_short(method, _LONGEST_NAME)) for method in methods)
    return max(1, min(len(methods), int(_WIDTH * 72 / (longest * 5.6 + 36))))


def _height(chart: Chart) -> float:
    methods = _shown(chart)
    row = max(0.36 if chart.legend else 0.28, (1 if not chart.legend else len(methods)) * _SLOT + 0.14)
    legend = 0.2 * -(-len(methods) // _legend_columns(methods)) if chart.legend else 0
    return len(chart.rows) * row + legend + 0.7


def _draw(figure: Figure, chart: Chart) -> None:
    axes = figure.add_subplot()
    methods = _shown(chart)
    slots = len(methods) if chart.legend else 1
    height = slots + 0.9  # of a row, in slots
    for number, row in enumerate(chart.rows):
        if number % 2 == 0:
            axes.axhspan(number * height, (number + 1) * height, color=_BAND, linewidth=0, zorder=0)
        if row.note:
            axes.annotate(
                row.note,
                (0, (number + 0.5) * height),
                (-8, -10.5),
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                ha="right",
                va="center",
                color=_SOFT,
                fontsize=8,
            )
    for place, method in enumerate(methods):
        drawn = [
            ((number + 0.5) * height + (place - (slots - 1) / 2 if chart.legend else 0), row.points[method])
            for number, row in enumerate(chart.rows)
            if method in row.points
        ]
        _points(axes, method, chart, drawn)
    middles = [(number + 0.5) * height for number in range(len(chart.rows))]
    axes.set_yticks(middles, [_short(row.name, _LONGEST_ROW) for row in chart.rows])
    axes.set_ylim(len(chart.rows) * height, 0)
    axes.set_xlim(*_limits(chart))
    axes.set_xlabel(chart.axis)
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)
    if chart.reference is not None:
        axes.axvline(chart.reference, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    if chart.legend and len(methods) > 1:
        handles, names = axes.get_legend_handles_labels()
        columns = _legend_columns(methods)
        figure.legend(
            handles, names, loc="outside lower center", ncols=columns, frameon=False, columnspacing=1.4
        )


def _points(axes: Axes, method: str, chart: Chart, drawn: Sequence[tuple[float, Point]]) -> None:
    place = chart.methods.index(method)
    # the first one, which is Default in a comparison, is hollow and in the colour of the text
    color = _INK if place == 0 else _SERIES[(place - 1) % len(_SERIES)]
    values = [one.value for _, one in drawn]
    lengths = [[one.value - one.low for _, one in drawn], [one.high - one.value for _, one in drawn]]
    axes.errorbar(
        values,
        [y for y, _ in drawn],
        xerr=lengths,
        fmt=_MARKERS[place % len(_MARKERS)],
        color=color,
        markerfacecolor=_CARD if place == 0 else color,
        markersize=4.8,
        markeredgewidth=1.3,
        elinewidth=1.5,
        clip_on=False,
        zorder=3,
        label=_short(method, _LONGEST_NAME),
    )


def _limits(chart: Chart) -> tuple[float, float]:
    ends = [end for row in chart.rows for one in row.points.values() for end in (one.low, one.high)]
    low, high = min([*ends, chart.anchor]), max([*ends, chart.anchor])
    widest = 2.0 if chart.low is None or chart.high is None else chart.high - chart.low
    # values that are all alike must not fill the chart with their rounding
    margin = max(0.05 * (high - low), (widest / 20 - (high - low)) / 2)
    low, high = low - margin, high + margin
    return (
        low if chart.low is None else max(low, chart.low),
        high if chart.high is None else min(high, chart.high),
    )


def _short(name: str, longest: int) -> str:
    """The name with its middle cut out, and without what XML cannot hold."""
    clean = "".join(letter if letter.isprintable() else "�" for letter in name)
    return clean if len(clean) <= longest else f"{clean[: longest * 2 // 3]}…{clean[-(longest // 3 - 1) :]}"


def _inline(drawing: str, chart: Chart) -> str:
    root = ElementTree.fromstring(drawing)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        element.attrib = _attributes(element)
    box = root.attrib["viewBox"]
    body = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
    return f'<svg viewBox="{box}" role="img" aria-label="{as_html(chart.words())}">{body}</svg>'


def _attributes(element: ElementTree.Element) -> dict[str, str]:
    """Attributes as they may stand in the page: no style, no namespace, ids only where one is referred to."""
    kept: dict[str, str] = {}
    for name, value in element.attrib.items():
        name = name.rpartition("}")[2]
        if name == "style":
            declarations = (one.partition(":") for one in value.split(";") if one.strip())
            kept |= {key.strip(): text.strip() for key, _, text in declarations}
        elif name != "id" or element.tag in ("path", "clipPath"):
            kept[name] = " ".join(value.split())
    kept.pop("font-family", None)  # the page's own
    return {name: _COLORS.get(value, value) for name, value in kept.items()}
