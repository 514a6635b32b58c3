"""What a check found, as plain values; the verdict, the gravest that a finding names; and both as text or JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from rich.style import Style

from adacd_cli.errors import AdacdError
from adacd_cli.render.screen import BOLD, DIM, Screen

GRAVITY = (
    NO_FIT := "does not fit into memory",
    CANNOT := "cannot be used",
    NO_ANSWERS := "does not answer: AdaCD has nothing to work on",
    NO_REFUSALS := "does not refuse: AdaCD has nothing to fix",
    DISOBEYS := "does not obey p*: AdaCD would subtract something other than refusing",
    UNSAFE := "trades safety: measure it before you rely on it",
    LITTLE := "helps little: AdaCD removes few of its refusals",
    DISTURBED := "disturbs ordinary answers",
    UNMEASURED := "no problem found, as far as was checked",
    SUITS := "suits",
)
"""All verdicts, the gravest first. Where a model refuses nothing, nothing else about AdaCD on it matters."""


class Status(str, Enum):
    """How a check went: with a failure AdaCD cannot run; with a warning it runs, but the user should know."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    status: Status
    sentence: str
    next_step: str = ""  # what to do about it, "" for nothing
    facts: Mapping[str, Any] = field(default_factory=dict)  # the numbers and names behind it, JSON values
    verdict: str = ""  # on the model, unless there is a graver one; "" where it decides nothing


class Section(NamedTuple):
    heading: str
    findings: tuple[Finding, ...]


class Verdict(NamedTuple):
    name: str  # e.g. `suits`
    reason: str  # the sentence of the finding behind it


def verdict(sections: Sequence[Section]) -> Verdict:
    found = [finding for section in sections for finding in section.findings if finding.verdict]
    gravest = min(found, key=lambda finding: GRAVITY.index(finding.verdict))
    return Verdict(gravest.verdict, gravest.sentence)


def checked(
    name: str, facts: Mapping[str, Any], sentence: str, next_step: str = "", verdict: str = ""
) -> Finding:
    """A check that was made: a failure where AdaCD cannot run, a warning where there is something to do."""
    status = Status.FAILURE if verdict in (NO_FIT, CANNOT) else Status.WARNING if next_step else Status.OK
    return Finding(name, status, sentence, next_step, facts, verdict)


def raised(name: str, error: AdacdError) -> Finding:
    """A failure with the error's message, and its hint as the next step."""
    return checked(name, {"error": type(error).__name__}, error.message, error.hint, CANNOT)


def skipped(name: str, why: str, verdict: str = "") -> Finding:
    return Finding(name, Status.SKIPPED, why, verdict=verdict)


_MARKS = {
    Status.OK: ("✓", Style(color="green")),
    Status.WARNING: ("!", Style(color="yellow", bold=True)),
    Status.FAILURE: ("✗", Style(color="red", bold=True)),
    Status.SKIPPED: ("-", DIM),
}
_WIDEST = 100


def put_section(screen: Screen, section: Section, encoding: str | None) -> None:
    """Writes a section and a blank line, to a stream of that encoding; None for one that takes any text."""
    screen.put_line((section.heading, BOLD))
    for finding in section.findings:
        first, *rest = _wrapped(screen, finding.sentence, 2)
        mark, style = _MARKS[finding.status]
        screen.put_line((_shown(mark, encoding), style), f" {first}")
        for line in rest:
            screen.put_line(f"  {line}")
        if finding.next_step:
            for number, line in enumerate(_wrapped(screen, finding.next_step, 4)):
                screen.put_line((f"  {' ' if number else _shown('→', encoding)} {line}", DIM))
    screen.put_line()


def put_verdict(screen: Screen, sections: Sequence[Section]) -> None:
    name, reason = verdict(sections)
    screen.put_line((f"Verdict: {name}", BOLD))
    for line in _wrapped(screen, reason, 0):
        screen.put_line(line)


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
    return {"verdict": name, "reason": reason, "machine": machine, "model": model, "findings": findings}


def _wrapped(screen: Screen, text: str, indent: int) -> list[str]:
    width = max(20, min(screen.width, _WIDEST) - indent)
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def _shown(mark: str, encoding: str | None) -> str:
    try:
        mark.encode(encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return mark.translate(str.maketrans("✓✗→", "+X>"))  # they would be shown as `?`
    return mark
