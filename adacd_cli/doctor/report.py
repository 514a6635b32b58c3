"""Findings as text: a mark, a sentence and a next step each, under the heading of their section."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.style import Style

from adacd_cli.doctor.finding import Finding, Section, Status, Verdict
from adacd_cli.render.screen import BOLD, DIM, PLAIN, Screen

MARKS = {Status.OK: "✓", Status.WARNING: "!", Status.FAILURE: "✗", Status.SKIPPED: "-"}
_PLAIN_MARKS = {**MARKS, Status.OK: "+", Status.FAILURE: "X"}
"""For a stream that cannot show the others, which would both become `?`."""

_STYLES = {
    Status.OK: Style(color="green"),
    Status.WARNING: Style(color="yellow", bold=True),
    Status.FAILURE: Style(color="red", bold=True),
    Status.SKIPPED: DIM,
}
_WIDEST = 100
_INDENT = "  "


def put_section(screen: Screen, section: Section, encoding: str | None) -> None:
    """Writes a section, and a blank line after it.

    Args:
        screen: where to.
        section: what was found.
        encoding: of the screen's stream; None for one that takes any text.
    """
    screen.put_line((section.heading, BOLD))
    for finding in section.findings:
        _put_finding(screen, finding, encoding)
    screen.put_line()


def put_verdict(screen: Screen, verdict: Verdict) -> None:
    """Writes the verdict and its reason."""
    screen.put_line((f"Verdict: {verdict.name}", BOLD))
    _put(screen, verdict.reason, PLAIN, "")


def as_json(
    verdict: Verdict, sections: Sequence[Section], machine: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole examination as one JSON object; each finding names its section."""
    findings = [
        {"section": section.heading, **asdict(finding), "status": finding.status.value}
        for section in sections
        for finding in section.findings
    ]
    for finding in findings:
        del finding["verdict"]  # the gravest of them is the whole's
    return {
        "verdict": verdict.name,
        "reason": verdict.reason,
        "machine": dict(machine),
        "model": dict(model),
        "findings": findings,
    }


def _put_finding(screen: Screen, finding: Finding, encoding: str | None) -> None:
    marks = MARKS if _can_show("".join(MARKS.values()), encoding) else _PLAIN_MARKS
    first, *rest = _wrapped(screen, finding.sentence)
    screen.put_line((marks[finding.status], _STYLES[finding.status]), f" {first}")
    for line in rest:
        screen.put_line(f"{_INDENT}{line}")
    if finding.next_step:
        arrow = "→ " if _can_show("→", encoding) else "> "
        _put(screen, finding.next_step, DIM, _INDENT, arrow)


def _put(screen: Screen, text: str, style: Style, indent: str, bullet: str = "") -> None:
    """A paragraph, wrapped and indented, its first line behind a bullet."""
    for place, line in enumerate(_wrapped(screen, text, len(indent) + len(bullet))):
        lead = bullet if place == 0 else " " * len(bullet)
        screen.put_line((f"{indent}{lead}{line}", style))


def _wrapped(screen: Screen, text: str, indent: int = len(_INDENT)) -> list[str]:
    width = max(20, min(screen.width, _WIDEST) - indent)
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def _can_show(marks: str, encoding: str | None) -> bool:
    try:
        marks.encode(encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
