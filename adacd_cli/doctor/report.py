"""Findings as text (a mark, a sentence and a next step each, under the heading of their section) or JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.style import Style

from adacd_cli.doctor.findings import Section, Status, verdict
from adacd_cli.render.screen import BOLD, DIM, PLAIN, Screen

_MARKS = {Status.OK: "✓", Status.WARNING: "!", Status.FAILURE: "✗", Status.SKIPPED: "-"}
_ASCII = str.maketrans("✓✗→", "+X>")
"""For a stream that cannot show these, which would all become `?`."""

_STYLES = {
    Status.OK: Style(color="green"),
    Status.WARNING: Style(color="yellow", bold=True),
    Status.FAILURE: Style(color="red", bold=True),
    Status.SKIPPED: DIM,
}
_WIDEST = 100


def put_section(screen: Screen, section: Section, encoding: str | None) -> None:
    """Writes a section, and a blank line after it.

    Args:
        encoding: of the screen's stream; None for one that takes any text.
    """
    screen.put_line((section.heading, BOLD))
    for finding in section.findings:
        first, *rest = _wrapped(screen, finding.sentence, 2)
        mark = _shown(_MARKS[finding.status], encoding)
        screen.put_line((mark, _STYLES[finding.status]), f" {first}")
        for line in rest:
            screen.put_line(f"  {line}")
        if finding.next_step:
            for number, line in enumerate(_wrapped(screen, finding.next_step, 4)):
                screen.put_line((f"  {' ' if number else _shown('→', encoding)} {line}", DIM))
    screen.put_line()


def put_verdict(screen: Screen, sections: Sequence[Section]) -> None:
    """Writes the verdict on all sections and its reason."""
    name, reason = verdict(sections)
    screen.put_line((f"Verdict: {name}", BOLD))
    for line in _wrapped(screen, reason, 0):
        screen.put_line((line, PLAIN))


def to_json(
    sections: Sequence[Section], machine: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole checkup as one JSON object; each finding names its section."""
    findings = [
        {"section": section.heading, **asdict(finding), "status": finding.status.value}
        for section in sections
        for finding in section.findings
    ]
    for finding in findings:
        del finding["verdict"]  # only the gravest of them counts
    name, reason = verdict(sections)
    return {
        "verdict": name,
        "reason": reason,
        "machine": dict(machine),
        "model": dict(model),
        "findings": findings,
    }


def _wrapped(screen: Screen, text: str, indent: int) -> list[str]:
    width = max(20, min(screen.width, _WIDEST) - indent)
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def _shown(mark: str, encoding: str | None) -> str:
    try:
        mark.encode(encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return mark.translate(_ASCII)
    return mark
