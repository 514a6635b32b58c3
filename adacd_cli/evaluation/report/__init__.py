"""Reports of a run, drawn from results.json: Markdown and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adacd_cli.evaluation.store import Store


def write_reports(results: Mapping[str, Any], store: Store) -> None:
    """Writes results.json, report.md and report.html into the run's folder. OutputError where one of them cannot be
    written."""
    import json

    from adacd_cli.evaluation.report.html import page
    from adacd_cli.evaluation.report.tables import markdown

    store.write("results.json", json.dumps(results, indent=2) + "\n")
    store.write("report.md", markdown(results))
    store.write("report.html", page(results, store.answers.values(), store.judgements.values()))
