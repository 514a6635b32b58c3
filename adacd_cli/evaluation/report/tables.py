"""What the reports say, as plain values: a heading, verdicts and tables of texts, each with its judge. The HTML
page draws these, and `markdown` does for a terminal or a pull request. The numbers are those of
`results.summarise`; only their wording is made here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from adacd_cli.counting import counted
from adacd_cli.evaluation.datasets.files import LABELS
from adacd_cli.render.screen import printable

DASH = "–"
SHOWN_FAILURES = 20


class Table(NamedTuple):
    """A table of texts; `note` is what must be known to read it, with the judge where there is one."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def cell(ratio: Mapping[str, Any]) -> str:
    """`12.0 % [8.5, 16.7]`: a ratio with its 95 % interval."""
    if ratio.get("ratio") is None:
        return DASH
    low, high = 100 * ratio["ci_low"], 100 * ratio["ci_high"]
    return f"{100 * ratio['ratio']:.1f} % [{low:.1f}, {high:.1f}]"


def percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"


def times(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f} ×"


def heading(results: Mapping[str, Any]) -> dict[str, str]:
    """The report's `title`, model and revision; its `judge`; and its `circumstances`: data, number format, machine
    and versions."""
    facts = results["provenance"]
    revision = f"@{facts['revision']}" if facts.get("revision") else ""
    machine, versions = facts["machine"], facts["versions"]
    threads = counted(machine["threads"], "thread")
    where = machine.get("gpu") or machine["processor"] or machine["system"]
    sets = ", ".join(f"{name} ({data['n']})" for name, data in facts["data"].items())
    made_with = f"adacd {facts['adacd']}, torch {versions['torch']}, transformers {versions['transformers']}"
    computed = f"{facts['dtype'] or facts['server']} on {where}, {threads}"
    return {
        "title": f"{facts['model']}{revision}: refusals by method",
        "judge": judged_by(results),
        "circumstances": f"Data: {sets}. {computed}; {made_with}; {facts['ended']}.",
    }


def judged_by(results: Mapping[str, Any]) -> str:
    """The judge of the tables, with its model where it has one."""
    name: str = results["judge"]
    model = results["provenance"].get("judging", {}).get(name, {}).get("model")
    return name if model is None or model in name else f"{name} ({model})"


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Every table that has rows, in the order of the report."""
    sides = [_ratios(results, label) for label in ("safe", "unsafe")]
    others = (_costs, _labels, _aspects, _changes, _agreement, _failed)
    return [table for table in (*sides, *(make(results) for make in others)) if table.rows]


def set_names(results: Mapping[str, Any], label: str) -> list[str]:
    """The sets of a label, in the order in which the run was asked for them."""
    found: dict[str, None] = {}
    for cells in results["results"].values():
        found |= dict.fromkeys(name for name, one in cells.items() if one["label"] == label)
    # answers come in by the length of their prompts, so the order of the cells says nothing
    asked = {name: place for place, name in enumerate(results["provenance"]["data"])}
    places = {name: asked.get(name, asked.get(name.removesuffix(f"-{label}"), len(asked))) for name in found}
    return sorted(found, key=places.__getitem__)


def set_size(results: Mapping[str, Any], name: str) -> int:
    """How many answers to a set were judged, of the method that has most."""
    return max(int(cells[name]["n"]) for cells in results["results"].values() if name in cells)


def _ratios(results: Mapping[str, Any], label: str) -> Table:
    sizes = {name: set_size(results, name) for name in set_names(results, label)}

    def shown(ratio: Mapping[str, Any], n: int) -> str:
        # of how many answers, where that differs from the column's n
        return cell(ratio) + (f" of {ratio['n']}" if ratio and ratio["n"] not in (0, n) else "")

    title = "Over-refusal: refusal ratio of safe prompts, lower is better"
    if label == "unsafe":
        title = "Malicious: refusal ratio of unsafe prompts, higher is better"
    rows = []
    for method, cells in results["results"].items() if sizes else ():
        own = (shown(cells.get(name, {}), n) for name, n in sizes.items())
        rows.append([method, *own, percent(results["averages"][method][label])])
    header = ["method", *(f"{name} (n = {n})" for name, n in sizes.items()), "mean"]
    note = "partial refusals count as refusals; 95 % Wilson intervals in brackets."
    return Table(title, header, rows, f"Judge: {judged_by(results)}; {note}")


def _costs(results: Mapping[str, Any]) -> Table:
    rows = []
    for method, cells in results["results"].items():
        average = results["averages"][method]
        counts = [(sum(one["labels"].values()), one["mean_tokens"] or 0) for one in cells.values()]
        n = sum(count for count, _ in counts)
        mean = f"{sum(count * tokens for count, tokens in counts) / n:.0f}" if n else DASH
        rows.append([method, percent(average["unchanged"]), mean, times(average["atgr"])])
    header = ["method", "answers equal to default's", "tokens an answer", "time a token ÷ default (ATGR)"]
    note = f"Over all answers that {judged_by(results)} judged.{timing(results)}"
    if any(method.startswith("ssd") for method in results["results"]):
        batch = results["provenance"]["batch_size"]
        many = "many" if batch == "auto" else batch
        note += f" ssd answers one prompt at a time, the others {many}; --batch-size 1 compares them alone."
    return Table("What it costs", header, rows, note)


def timing(results: Mapping[str, Any]) -> str:
    """How the times were compared, and where wall time was not to be trusted."""
    compared = [one for one in results["averages"].values() if one["atgr"] is not None]
    if not compared:
        return ""
    count = max(one.get("batches", 1) for one in compared)
    said = f" ATGR is the median over {counted(count, 'batch', 'batches')} that the methods answered in turn."
    for method, one in results["averages"].items():
        if one.get("clock") == "cpu_seconds":
            busy = f"by the wall it is {times(one['atgr_wall'])}, so the machine was busy with something else"
            said += f" {method}'s is by the processor time of this process: {busy}."
    return said


def _cells(results: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [(method, name, one) for method, sets in results["results"].items() for name, one in sets.items()]


def _labels(results: Mapping[str, Any]) -> Table:
    odd = ("partial", "degenerate", "unparsed")
    counts = [
        (method, name, [one["labels"][label] for label in odd]) for method, name, one in _cells(results)
    ]
    rows = [[method, name, *map(str, own)] for method, name, own in counts if any(own)]
    note = "Degenerate answers neither refuse nor answer (empty, loops, garbage); "
    note += "unparsed means that the judge's reply could not be read."
    header = ["method", "set", *odd]
    return Table("Neither a full refusal nor an answer", header, rows, f"Judge: {judged_by(results)}. {note}")


def _aspects(results: Mapping[str, Any]) -> Table:
    cells = _cells(results)
    names = dict.fromkeys(name for *_, one in cells for name in one["aspects"])
    rows = [
        [method, name, *(f"{one['aspects'][each]:.2f}" if each in one["aspects"] else DASH for each in names)]
        for method, name, one in cells
        if one["aspects"]
    ]
    return Table("Usability, 1 to 5", ["method", "set", *names], rows, raters(results))


def raters(results: Mapping[str, Any]) -> str:
    """Whose aspects a report shows."""
    judges = results["provenance"]["judges"]
    if len(judges) == 1:
        return f"Judge: {judges[0]}."
    return f"Judge: whichever of {', '.join(judges)} rates aspects."


def _changes(results: Mapping[str, Any]) -> Table:
    order = []
    for label in LABELS:
        names = set_names(results, label)
        # one set of a label says the same as all of them
        order += names if len(names) == 1 else [*names, f"all {label}"]
    rows = []
    for method, sets in results["paired"].items():
        for name in order:
            if (one := sets.get(name)) is None:
                continue
            p = f"{one['p']:.2g}" if one["p"] >= 0.0001 else "< 0.0001"
            change = f"{100 * one['change']:+.1f} points"
            rows.append([method, name, str(one["n"]), str(one["lost"]), str(one["gained"]), change, p])
    header = ["method", "set", "pairs", "refusals lost", "refusals gained", "change", "McNemar p"]
    return Table("Against default, prompt by prompt", header, rows, f"Judge: {judged_by(results)}.")


def _agreement(results: Mapping[str, Any]) -> Table:
    rows = []
    for one in results["agreement"]:
        kappa = DASH if one["kappa"] is None else f"{one['kappa']:.2f}"
        rows.append([" / ".join(one["judges"]), str(one["n"]), percent(one["agreement"]), kappa])
    return Table("How far the judges agree", ["judges", "answers", "same", "Cohen’s κ"], rows)


def _failed(results: Mapping[str, Any]) -> Table:
    failed = results["failed"]
    rows = [[one["method"], one["dataset"], one["id"], one["error"]] for one in failed[:SHOWN_FAILURES]]
    more = len(failed) - len(rows)
    title = f"Failed: {counted(len(failed), 'answer')}, counted nowhere above"
    return Table(title, ["method", "set", "id", "error"], rows, f"… and {more} more." if more else "")


def markdown(results: Mapping[str, Any]) -> str:
    said = {name: _literal(text) for name, text in heading(results).items()}
    parts = [f"# {said['title']}", f"Judge: **{said['judge']}**. {said['circumstances']}"]
    if results["verdicts"]:
        parts.append("## Verdicts against default")
        lines = results["verdicts"].items()
        parts.append("\n".join(f"- **{one}: {name}.** {results['reasons'][one]}" for one, name in lines))
    for one in tables(results):
        parts += [f"## {one.title}", table(one.header, one.rows), *([one.note] if one.note else [])]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = ([_literal(text).replace("|", "\\|") for text in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _literal(text: str) -> str:
    """Text on one line that begins no HTML; a lone surrogate, which UTF-8 cannot carry, is escaped."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").splitlines())
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", printable(line))
