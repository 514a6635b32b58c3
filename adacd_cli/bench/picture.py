"""The picture of a measurement: time per token of each method, and throughput over batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adacd_cli.errors import OutputError, UsageError
from adacd_cli.render.plot import COLORS, MARKERS, drawn, label, save

Rows = Sequence[Mapping[str, Any]]


def check_picture(file: str) -> Path:
    """Finds out before anything is measured whether the picture can be written. UsageError where the name ends in
    neither .svg nor .png; OutputError where its folder is not there or cannot be written, or it is itself a
    folder."""
    path = Path(file).expanduser()
    if path.suffix.lower() not in (".svg", ".png"):
        raise UsageError(
            f"--picture writes SVG or PNG; got {file!r}.", "Name a file that ends in .svg or .png."
        )
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise _unwritable(path, error, "Name a file in a folder that exists and is writable.") from error
    if path.stat().st_size == 0:
        path.unlink()
    return path


def _unwritable(path: Path, error: OSError, hint: str) -> OutputError:
    return OutputError(f"The picture {str(path)!r} could not be written: {error.strerror or error}.", hint)


def draw(machine: Mapping[str, Any], rows: Rows, path: Path) -> None:
    """Writes the picture of at least one row to a path that `check_picture` accepted. OutputError where it cannot
    be written."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    sizes = list(dict.fromkeys(row["batch_size"] for row in rows))
    with drawn(9.6, 4.2) as figure:
        left, right = figure.subplots(1, 2)
        for place, method in enumerate(methods):
            own = [row for row in rows if row["method"] == method and row["ms_per_token"] is not None]
            style = {"color": COLORS[place % len(COLORS)], "label": label(method)}
            shift = (place - (len(methods) - 1) / 2) * 0.8 / len(methods)
            values = [row["ms_per_token"] for row in own]
            ranges = [
                [abs(row["ms_per_token_range"][end] - row["ms_per_token"]) for row in own] for end in (0, 1)
            ]
            bars = [sizes.index(row["batch_size"]) + shift for row in own]
            left.bar(bars, values, yerr=ranges, capsize=3, width=0.72 / len(methods), **style)
            own.sort(key=lambda row: int(row["batch_size"]))
            speeds = [row["decode_tokens_per_s"] for row in own]
            right.plot(
                [row["batch_size"] for row in own], speeds, marker=MARKERS[place % len(MARKERS)], **style
            )
        left.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        left.set_ylabel("time per token, ms")
        right.set_xscale("log", base=2)
        right.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)], minor=False)
        right.set_ylabel("decoded tokens/s, all requests")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.set_xlabel("batch size")
            axes.grid(axis="y", linewidth=0.5, alpha=0.5)
            axes.set_axisbelow(True)
        where = f"{machine['dtype']}, {machine.get('gpu') or machine['processor']}"
        tokens = f"{rows[0]['prompt_tokens']} + {rows[0]['generation_tokens']} tokens"
        figure.suptitle(f"{label(machine['model'])}, {where}, {tokens}", fontsize=10)
        handles, names = left.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(methods)), frameon=False)
        try:
            save(figure, path, path.suffix.lower()[1:])
        except OSError as error:
            raise _unwritable(path, error, "The table is above; `--json` has its numbers.") from error
