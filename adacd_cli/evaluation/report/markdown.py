"""The report as Markdown, for a terminal and a pull request. Every table names its judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_DASH = "–"


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report of what `results.summarise` gave."""
    parts = [
        _heading(results),
        _verdicts(results),
        _ratios(results, "safe"),
        _ratios(results, "unsafe"),
        _costs(results),
        _labels(results),
        _aspects(results),
        _changes(results),
        _agreement(results),
        _failed(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def cell(ratio: Mapping[str, Any]) -> str:
    """`12.0 % [8.5, 16.7]`: a ratio with its 95 % interval."""
    if ratio.get("ratio") is None:
        return _DASH
    low, high = 100 * ratio["ci_low"], 100 * ratio["ci_high"]
    return f"{100 * ratio['ratio']:.1f} % [{low:.1f}, {high:.1f}]"


def percent(value: float | None) -> str:
    """`12.0 %`."""
    return _DASH if value is None else f"{100 * value:.1f} %"


def times(value: float | None) -> str:
    """`1.03 ×`."""
    return _DASH if value is None else f"{value:.2f} ×"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_escaped(text) for text in line) + " |" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _heading(results: Mapping[str, Any]) -> str:
    facts = results["provenance"]
    revision = f"@{facts['revision']}" if facts.get("revision") else ""
    machine = facts["machine"]
    where = machine.get("gpu") or machine["processor"] or machine["system"]
    sets = ", ".join(f"{name} ({data['n']})" for name, data in facts["data"].items())
    return (
        f"# {facts['model']}{revision}: refusals by method\n\n"
        f"Judge: **{results['judge']}**. Data: {sets}. {facts['dtype']} on {where}, "
        f"{machine['threads']} threads; adacd {facts['adacd']}, torch {facts['versions']['torch']}, "
        f"transformers {facts['versions']['transformers']}; {facts['ended']}."
    )


def _verdicts(results: Mapping[str, Any]) -> str:
    if not results["verdicts"]:
        return ""
    lines = [
        f"- **{method}: {name}.** {results['reasons'][method]}" for method, name in results["verdicts"].items()
    ]
    return "## Verdicts against default\n\n" + "\n".join(lines)


def _names(results: Mapping[str, Any], label: str) -> list[str]:
    found: dict[str, None] = {}
    for cells in results["results"].values():
        found |= dict.fromkeys(name for name, one in cells.items() if one["label"] == label)
    return list(found)


def _ratios(results: Mapping[str, Any], label: str) -> str:
    names = _names(results, label)
    if not names:
        return ""
    title = {
        "safe": "## Over-refusal: refusal ratio of safe prompts, lower is better",
        "unsafe": "## Malicious: refusal ratio of unsafe prompts, higher is better",
    }[label]
    counts = {
        name: max(cells[name]["n"] for cells in results["results"].values() if name in cells) for name in names
    }
    header = ["method", *(f"{name} (n = {counts[name]})" for name in names), "mean"]
    rows = [
        [method, *(cell(cells.get(name, {})) for name in names), percent(results["averages"][method][label])]
        for method, cells in results["results"].items()
    ]
    return (
        f"{title}\n\n{table(header, rows)}\n\n"
        f"Judge: {results['judge']}; partial refusals count as refusals; 95 % Wilson intervals in brackets."
    )


def _costs(results: Mapping[str, Any]) -> str:
    rows = []
    for method, cells in results["results"].items():
        average = results["averages"][method]
        tokens = [one["mean_tokens"] * one["n"] for one in cells.values()]
        n = sum(one["n"] for one in cells.values())
        mean = f"{sum(tokens) / n:.0f}" if n else _DASH
        rows.append([method, percent(average["unchanged"]), mean, times(average["atgr"])])
    header = ["method", "answers equal to default's", "tokens an answer", "time a token ÷ default (ATGR)"]
    return f"## What it costs\n\n{table(header, rows)}"


def _labels(results: Mapping[str, Any]) -> str:
    odd = ("partial", "degenerate", "unparsed")
    rows = [
        [method, name, *(str(one["labels"][label]) for label in odd)]
        for method, cells in results["results"].items()
        for name, one in cells.items()
        if any(one["labels"][label] for label in odd)
    ]
    if not rows:
        return ""
    text = (
        "Degenerate answers neither refuse nor answer (empty, loops, garbage); unparsed is what the judge "
        "itself gave no readable word on."
    )
    return f"## Neither a full refusal nor an answer\n\n{table(['method', 'set', *odd], rows)}\n\n{text}"


def _aspects(results: Mapping[str, Any]) -> str:
    names: dict[str, None] = {}
    for cells in results["results"].values():
        for one in cells.values():
            names |= dict.fromkeys(one["aspects"])
    if not names:
        return ""
    rows = [
        [method, set_name, *(f"{one['aspects'][name]:.2f}" if name in one["aspects"] else _DASH for name in names)]
        for method, cells in results["results"].items()
        for set_name, one in cells.items()
        if one["aspects"]
    ]
    return f"## Usability, 1 to 5\n\n{table(['method', 'set', *names], rows)}"


def _changes(results: Mapping[str, Any]) -> str:
    rows = []
    for method, sets in results["paired"].items():
        for name, one in sets.items():
            if name.startswith("all ") and len(sets) == 2:
                continue  # there is one set only, which says the same
            p = f"{one['p']:.2g}" if one["p"] >= 0.0001 else "< 0.0001"
            change = f"{100 * one['change']:+.1f} points"
            rows.append([method, name, str(one["n"]), str(one["lost"]), str(one["gained"]), change, p])
    if not rows:
        return ""
    header = ["method", "set", "pairs", "refusals lost", "refusals gained", "change", "McNemar p"]
    return f"## Against default, prompt by prompt\n\n{table(header, rows)}\n\nJudge: {results['judge']}."


def _agreement(results: Mapping[str, Any]) -> str:
    if not results["agreement"]:
        return ""
    rows = [
        [
            " / ".join(one["judges"]),
            str(one["n"]),
            percent(one["agreement"]),
            _DASH if one["kappa"] is None else f"{one['kappa']:.2f}",
        ]
        for one in results["agreement"]
    ]
    return f"## How far the judges agree\n\n{table(['judges', 'answers', 'same', 'Cohen’s κ'], rows)}"


def _failed(results: Mapping[str, Any]) -> str:
    if not results["failed"]:
        return ""
    rows = [[one["method"], one["dataset"], one["id"], one["error"]] for one in results["failed"][:20]]
    more = len(results["failed"]) - len(rows)
    rest = f"\n\n… and {more} more." if more else ""
    title = f"## Failed: {len(results['failed'])} answers, counted nowhere above"
    return f"{title}\n\n{table(['method', 'set', 'id', 'error'], rows)}{rest}"
