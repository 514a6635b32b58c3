"""The picture of a measurement: time per token of each method, and throughput over batch size."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = (".svg", ".png")
_OPTIONS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "adacd", "text.parse_math": False}
_COLORS = ("#666666", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c564b")
_MARKERS = "os^Dv<>Pp"

Rows = Sequence[Mapping[str, Any]]


def check_picture(file: str) -> Path:
    """Finds out before anything is measured whether the picture can be written.

    Raises:
        UsageError: the name ends in neither .svg nor .png.
        OutputError: its folder is not there or cannot be written, or it is itself a folder.
    """
    path = Path(file).expanduser()
    if path.suffix.lower() not in _KINDS:
        raise UsageError(
            f"--picture writes SVG or PNG; got {file!r}.", "Name a file that ends in .svg or .png."
        )
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise OutputError(
            f"The picture {file!r} could not be written: {error.strerror or error}.",
            "Name a file in a folder that exists and that you may write to.",
        ) from error
    if path.stat().st_size == 0:
        path.unlink()
    return path


def draw(machine: Mapping[str, Any], rows: Rows, path: Path) -> None:
    """Writes the picture.

    Args:
        machine: `machine` of the JSON.
        rows: `rows` of the JSON, at least one.
        path: what `check_picture` found good.

    Raises:
        OutputError: it cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that its own font lacks
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(
            {"svg.fonttype": "none", "svg.hashsalt": "adacd", "text.parse_math": False}
        )
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        methods = list(dict.fromkeys(row["method"] for row in rows))
        sizes = list(dict.fromkeys(row["batch_size"] for row in rows))
        _draw_times(left, rows, methods, sizes)
        _draw_throughput(right, rows, methods, sizes)
        figure.suptitle(
            f"{_clean(machine['model'])}, {machine['dtype']}, {machine.get('gpu') or machine['processor']}, "
            f"{rows[0]['prompt_tokens']} + {rows[0]['generation_tokens']} tokens",
            fontsize=10,
        )
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(methods)), frameon=False)
        kind = path.suffix.lower()[1:]
        try:
            figure.savefig(path, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        except OSError as error:
            raise OutputError(
                f"The picture {str(path)!r} could not be written: {error.strerror or error}.",
                "The table is above; `--json` has its numbers.",
            ) from error


def _clean(name: str) -> str:
    """The name without what XML cannot hold."""
    return "".join(letter if letter.isprintable() else "�" for letter in name)


def _style(methods: Sequence[str], method: str) -> dict[str, Any]:
    place = methods.index(method)
    return {"color": _COLORS[place % len(_COLORS)], "label": _clean(method)}


def _draw_times(axes: Axes, rows: Rows, methods: Sequence[str], sizes: Sequence[int]) -> None:
    """Bars of milliseconds a token, from the fastest to the slowest trial, a group a batch size."""
    width = 0.8 / len(methods)
    for place, method in enumerate(methods):
        drawn = [row for row in rows if row["method"] == method and row["ms_per_token"] is not None]
        values = [row["ms_per_token"] for row in drawn]
        lengths = [
            [row["ms_per_token"] - row["ms_per_token_range"][0] for row in drawn],
            [row["ms_per_token_range"][1] - row["ms_per_token"] for row in drawn],
        ]
        spots = [sizes.index(row["batch_size"]) + (place - (len(methods) - 1) / 2) * width for row in drawn]
        axes.bar(spots, values, width * 0.92, yerr=lengths, capsize=3, **_style(methods, method))
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlabel("batch size")
    axes.set_ylabel("time per token, ms")
    _plain(axes)


def _draw_throughput(axes: Axes, rows: Rows, methods: Sequence[str], sizes: Sequence[int]) -> None:
    """Lines of decoded tokens a second of the whole batch."""
    for place, method in enumerate(methods):
        drawn = sorted(
            (row["batch_size"], row["decode_tokens_per_s"])
            for row in rows
            if row["method"] == method and row["decode_tokens_per_s"] is not None
        )
        marker = _MARKERS[place % len(_MARKERS)]
        axes.plot(
            [size for size, _ in drawn],
            [rate for _, rate in drawn],
            marker=marker,
            **_style(methods, method),
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)], minor=False)
    axes.set_xlabel("batch size")
    axes.set_ylabel("decoded tokens/s, all requests")
    axes.set_ylim(bottom=0)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.grid(axis="y", linewidth=0.5, alpha=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
