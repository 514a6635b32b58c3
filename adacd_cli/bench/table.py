"""The report of a measurement as text, where it ran, how long it took, and what it took there, and as a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adacd_cli.counting import counted
from adacd_cli.errors import OutputError, UsageError
from adacd_cli.render.document import COLORS, MARKERS, drawn, label, save

Row = Mapping[str, Any]


def report(machine: Mapping[str, Any], rows: Sequence[Row], *, width: int) -> str:
    """The header and two tables of the JSON's machine and rows (at least one), without colours."""
    memory = {"device": "what was allocated on the device", "process": "the process's, weights included"}.get(
        machine["peak_memory"], "the process's since its start, whichever method ran"
    )
    notes = (
        "tok/s: of all requests of the batch. ÷: whole runs, prompts included, over the\n"
        "other's. Weights: as Default reads them, once a token; share of what the copy\n"
        f"moved. Peak memory: {memory}."
    )
    rival = "transformers" if machine["engine"] == "llamacpp" else "llamacpp"
    columns = [column for column in _TIMES if column[1] != f"ratio_to_{rival}"]
    times, resources = (_table(each, rows, width) for each in (columns, _RESOURCES))
    return f"{_header(machine, rows)}\n\n{times}\n{resources}\n{notes}\n"


def _header(machine: Mapping[str, Any], rows: Sequence[Row]) -> str:
    first, most = rows[0], max(row["trials"] for row in rows)
    dtype = machine["dtype"] + (f" ({machine['quantize']})" if machine.get("quantize") else "")
    processor = machine["processor"] or machine["system"]
    hardware = [f"{processor} ({counted(machine['cores'], 'core')})", counted(machine["threads"], "thread")]
    where = "llama.cpp" if machine["engine"] == "llamacpp" else machine["device"]
    lines = (
        (machine["model"], dtype, f"on {where}"),
        [machine["gpu"], *hardware] if "gpu" in machine else hardware,
        (f"{machine['bandwidth_gb_per_s']:.1f} GB/s copied in its memory",),
        [f"{name} {machine[name]}" for name in ("adacd", "python", "torch", "transformers")],
        (
            counted(first["prompt_tokens"], "prompt token"),
            f"{first['generation_tokens']} generated",
            f"medians of {counted(most, 'trial')}, spread: fastest–slowest",
        ),
    )
    return "\n".join(" · ".join(parts) for parts in lines)


def _number(value: float) -> str:
    """Three significant digits, at most three after the point."""
    digits = next((digits for digits, least in ((0, 100), (1, 10), (2, 1)) if value >= least), 3)
    return f"{value:.{digits}f}"


_NAMES = (("\nBatch", "batch_size", str), ("\nMethod", "method", str))
_TIMES = (
    *_NAMES,
    ("Prefill\ntok/s", "prefill_tokens_per_s", _number),
    ("Decode\ntok/s", "decode_tokens_per_s", _number),
    ("\nms/token", "ms_per_token", _number),
    ("\nspread", "ms_per_token_range", lambda ends: "–".join(map(_number, ends))),
    ("÷\ndefault", "ratio_to_default", "{:.3f}".format),
    ("÷ trans-\nformers", "ratio_to_transformers", "{:.3f}".format),
    ("÷ llama\n.cpp", "ratio_to_llamacpp", "{:.3f}".format),
)
_RESOURCES = (
    *_NAMES,
    ("First\ntoken, s", "first_token_s", _number),
    ("Whole\nrun, s", "seconds", _number),
    ("\nspread", "seconds_range", lambda ends: "–".join(map(_number, ends))),
    ("Weights\nGB/s", "weights_gb_per_s", _number),
    ("Share\nof copy", "bandwidth_share", "{:.0%}".format),
    ("Peak\nGB", "peak_memory_bytes", lambda value: _number(value / 1e9)),
)
Column = tuple[str, str, Callable[[Any], str]]
"""Heading, key of the row, and how a value is written; None is `–`."""


def _table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="", padding=(0, 1, 0, 0))
    for head, name, _ in columns:
        if name == "method":  # the only one that may be long: it holds the path of a draft
            table.add_column(Text(head), overflow="fold", min_width=12)
        else:
            table.add_column(Text(head), justify="right", no_wrap=True)
    for row in rows:
        cells = ("–" if row[name] is None else how(row[name]) for _, name, how in columns)
        table.add_row(*map(Text, cells))  # as it is, not as markup
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def check_picture(file: str) -> Path:
    """Finds out beforehand whether the picture can be written; UsageError or OutputError if not."""
    path = Path(file).expanduser()
    if path.suffix.lower() not in (".svg", ".png"):
        hint = "Name a file that ends in .svg or .png."
        raise UsageError(f"--picture writes SVG or PNG; got {file!r}.", hint)
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


def draw(machine: Mapping[str, Any], rows: Sequence[Row], path: Path) -> None:
    """Writes the picture of at least one row to a path that `check_picture` accepted; else OutputError."""
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
            style["marker"] = MARKERS[place % len(MARKERS)]
            right.plot([row["batch_size"] for row in own], speeds, **style)
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
