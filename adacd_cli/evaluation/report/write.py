"""Writes what a run found into its folder: results.json, report.md and report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adacd_cli.evaluation.report.html import page
from adacd_cli.evaluation.report.markdown import markdown
from adacd_cli.evaluation.store import Store


def write_reports(results: Mapping[str, Any], store: Store) -> None:
    """Writes the three files.

    Raises:
        OutputError: one of them cannot be written.
    """
    store.write("results.json", json.dumps(results, indent=2) + "\n")
    store.write("report.md", markdown(results))
    store.write("report.html", page(results, store.answers.values(), store.judgements.values()))
