"""The report of a measurement as text: where it ran, how long it took, and what it took there."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adacd_cli.counting import counted

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
    lines = (
        (
            machine["model"],
            dtype,
            f"on {'llama.cpp' if machine['engine'] == 'llamacpp' else machine['device']}",
        ),
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


def _range(ends: Sequence[float]) -> str:
    return "–".join(map(_number, ends))


_NAMES = (("\nBatch", "batch_size", str), ("\nMethod", "method", str))
_TIMES = (
    *_NAMES,
    ("Prefill\ntok/s", "prefill_tokens_per_s", _number),
    ("Decode\ntok/s", "decode_tokens_per_s", _number),
    ("\nms/token", "ms_per_token", _number),
    ("\nspread", "ms_per_token_range", _range),
    ("÷\ndefault", "ratio_to_default", ".3f"),
    ("÷ trans-\nformers", "ratio_to_transformers", ".3f"),
    ("÷ llama\n.cpp", "ratio_to_llamacpp", ".3f"),
)
_RESOURCES = (
    *_NAMES,
    ("First\ntoken, s", "first_token_s", _number),
    ("Whole\nrun, s", "seconds", _number),
    ("\nspread", "seconds_range", _range),
    ("Weights\nGB/s", "weights_gb_per_s", _number),
    ("Share\nof copy", "bandwidth_share", ".0%"),
    ("Peak\nGB", "peak_memory_bytes", lambda value: _number(value / 1e9)),
)
Column = tuple[str, str, Callable[[Any], str] | str]
"""Heading, key of the row, and how a value is written: a function or a format; None is `–`."""


def _cell(value: Any, how: Callable[[Any], str] | str) -> str:
    if value is None:
        return "–"
    return format(value, how) if isinstance(how, str) else how(value)


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
        table.add_row(*(Text(_cell(row[name], how)) for _, name, how in columns))  # as it is, not as markup
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
