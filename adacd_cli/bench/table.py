"""The report of a measurement as text: where it ran, how long it took, and what it took there."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from adacd_cli.counting import counted

Rows = Sequence[Mapping[str, Any]]


def report(machine: Mapping[str, Any], rows: Rows, *, width: int) -> str:
    """The header and two tables, without colours.

    Args:
        machine: `machine` of the JSON.
        rows: `rows` of the JSON, at least one.
        width: columns.
    """
    return f"{header(machine, rows)}\n\n{times(rows, width)}\n{resources(rows, width)}\n{_notes(machine)}\n"


def header(machine: Mapping[str, Any], rows: Rows) -> str:
    """Model, machine, versions and what was asked, a line each."""
    first, most = rows[0], max(row["trials"] for row in rows)
    dtype = machine["dtype"] + (f" ({machine['quantize']})" if machine.get("quantize") else "")
    processor = machine["processor"] or machine["system"]
    hardware = [f"{processor} ({counted(machine['cores'], 'core')})", counted(machine["threads"], "thread")]
    if "gpu" in machine:
        hardware.insert(0, machine["gpu"])
    return "\n".join(
        " · ".join(parts)
        for parts in (
            (machine["model"], dtype, f"on {machine['device']}"),
            hardware,
            (f"{machine['bandwidth_gb_per_s']:.1f} GB/s copied in its memory",),
            [f"{name} {machine[name]}" for name in ("adacd", "python", "torch", "transformers")],
            (
                counted(first["prompt_tokens"], "prompt token"),
                f"{first['generation_tokens']} generated",
                f"medians of {counted(most, 'trial')}, spread: fastest–slowest",
            ),
        )
    )


def times(rows: Rows, width: int) -> str:
    """How long it takes: rates, time per token, and the ratios to Default and to transformers."""
    heads = (
        "\nBatch",
        "\nMethod",
        "Prefill\ntok/s",
        "Decode\ntok/s",
        "\nms/token",
        "\nspread",
        "÷\ndefault",
        "÷ trans-\nformers",
    )
    cells = [
        (
            str(row["batch_size"]),
            row["method"],
            _number(row["prefill_tokens_per_s"]),
            _number(row["decode_tokens_per_s"]),
            _number(row["ms_per_token"]),
            _range(row["ms_per_token_range"]),
            _ratio(row["ratio_to_default"]),
            _ratio(row["ratio_to_transformers"]),
        )
        for row in rows
    ]
    return _table(heads, cells, width)


def resources(rows: Rows, width: int) -> str:
    """The first token, the whole run, what is read of the weights, and the memory."""
    heads = (
        "\nBatch",
        "\nMethod",
        "First\ntoken, s",
        "Whole\nrun, s",
        "\nspread",
        "Weights\nGB/s",
        "Share\nof copy",
        "Peak\nGB",
    )
    cells = [
        (
            str(row["batch_size"]),
            row["method"],
            _number(row["first_token_s"]),
            _number(row["seconds"]),
            _range(row["seconds_range"]),
            _number(row["weights_gb_per_s"]),
            "–" if row["bandwidth_share"] is None else f"{row['bandwidth_share']:.0%}",
            "–" if row["peak_memory_bytes"] is None else _number(row["peak_memory_bytes"] / 1e9),
        )
        for row in rows
    ]
    return _table(heads, cells, width)


def _notes(machine: Mapping[str, Any]) -> str:
    memory = {
        "device": "what was allocated on the device",
        "process": "the process's, weights included",
    }.get(machine["peak_memory"], "the process's since its start, whichever method ran")
    return (
        "tok/s: of all requests of the batch. ÷: whole runs, prompts included, over the\n"
        "other's. Weights: as Default reads them, once a token; share of what the copy\n"
        f"moved. Peak memory: {memory}."
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="", padding=(0, 1, 0, 0))
    for head in heads:
        if "Method" in head:  # the only one that may be long: a draft's path stands in its label
            table.add_column(Text(head), overflow="fold", min_width=12)
        else:
            table.add_column(Text(head), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # as they are, not as markup
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _number(value: float | None) -> str:
    """Three digits that count, no more than three after the point."""
    if value is None:
        return "–"
    digits = next((digits for digits, least in ((0, 100), (1, 10), (2, 1)) if value >= least), 3)
    return f"{value:.{digits}f}"


def _range(ends: Sequence[float] | None) -> str:
    return "–" if ends is None else "–".join(map(_number, ends))


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
