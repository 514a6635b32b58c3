"""What a check found, as plain values that print, compare equal and are written as JSON; and the verdict.

Each finding that matters for the verdict names one, and the gravest verdict wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from adacd_cli.errors import AdacdError

NO_FIT = "does not fit into memory"
CANNOT = "cannot be used"
NO_ANSWERS = "does not answer: AdaCD has nothing to work on"
NO_REFUSALS = "does not refuse: AdaCD has nothing to fix"
DISOBEYS = "does not obey p*: AdaCD would subtract something other than refusing"
UNSAFE = "trades safety: measure it before you rely on it"
LITTLE = "helps little: AdaCD removes few of its refusals"
USE_GATE = "use --gate"
DISTURBED = "disturbs ordinary answers"
UNMEASURED = "no problem found, as far as was checked"
SUITS = "suits"

GRAVITY = (
    *(NO_FIT, CANNOT, NO_ANSWERS, NO_REFUSALS, DISOBEYS),
    *(UNSAFE, LITTLE, USE_GATE, DISTURBED, UNMEASURED, SUITS),
)
"""All verdicts, the gravest first. Where a model refuses nothing, nothing else about AdaCD on it matters;
where the contrast prompt does not make it refuse, neither does the gate."""


class Status(str, Enum):
    """How a check went.

    AdaCD cannot run with a failure; with a warning it runs, but the user should know. A check that could not
    be made, or was not asked for, is skipped.
    """

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: of the check.
        status: how it went.
        sentence: what was found, in a sentence or two.
        next_step: what to do about it; "" where there is nothing to do.
        facts: the numbers and names behind the sentence, JSON values only.
        verdict: the verdict on the model unless there is a graver one; "" where it decides nothing.
    """

    name: str
    status: Status
    sentence: str
    next_step: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = ""


class Section(NamedTuple):
    """The findings on one subject, under its heading."""

    heading: str
    findings: tuple[Finding, ...]


class Verdict(NamedTuple):
    """The verdict, e.g. `suits`, and the sentence of the finding behind it."""

    name: str
    reason: str


def verdict(sections: Sequence[Section]) -> Verdict:
    """The gravest verdict of all findings."""
    found = [finding for section in sections for finding in section.findings if finding.verdict]
    gravest = min(found, key=lambda finding: GRAVITY.index(finding.verdict))
    return Verdict(gravest.verdict, gravest.sentence)


def checked(
    name: str, facts: Mapping[str, Any], sentence: str, next_step: str = "", verdict: str = ""
) -> Finding:
    """A check that was made: a failure where AdaCD cannot run, a warning where there is something to do."""
    status = Status.WARNING if next_step else Status.OK
    if verdict in (NO_FIT, CANNOT):
        status = Status.FAILURE
    return Finding(name, status, sentence, next_step, facts, verdict)


def raised(name: str, error: AdacdError) -> Finding:
    """A failure with the error's message, and its hint as the next step."""
    return checked(name, {"error": type(error).__name__}, error.message, error.hint, CANNOT)


def skipped(name: str, why: str, verdict: str = "") -> Finding:
    """A check that was not made."""
    return Finding(name, Status.SKIPPED, why, verdict=verdict)
