"""The verdict: what all findings together say. Each finding that decides names its own; the gravest holds."""

from __future__ import annotations

from collections.abc import Sequence

from adacd_cli.doctor.finding import Finding, Section, Verdict

NO_FIT = "does not fit into memory"
CANNOT = "cannot be used"
NO_ANSWERS = "does not answer: AdaCD has nothing to work on"
NO_REFUSALS = "does not refuse: AdaCD has nothing to mend"
DISOBEYS = "does not obey p*: AdaCD would subtract something else than refusing"
UNSAFE = "trades safety: measure it before you rely on it"
LITTLE = "mends little: AdaCD hardly helps here"
USE_GATE = "use --gate"
DISTURBED = "disturbs ordinary answers"
UNMEASURED = "nothing against it, as far as was looked"
SUITS = "suits"

GRAVITY = (
    NO_FIT,
    CANNOT,
    NO_ANSWERS,
    NO_REFUSALS,
    DISOBEYS,
    UNSAFE,
    LITTLE,
    USE_GATE,
    DISTURBED,
    UNMEASURED,
    SUITS,
)
"""All verdicts. A model that refuses nothing is not blamed for anything else; one whose refusals are not what
the contrast prompt makes is not told to use the gate."""


def verdict(sections: Sequence[Section]) -> Verdict:
    """The gravest verdict that a finding comes to, and that finding's sentence as its reason."""
    found = [finding for section in sections for finding in section.findings if finding.verdict]
    return min(map(_of, found), key=lambda each: GRAVITY.index(each.name))


def _of(finding: Finding) -> Verdict:
    return Verdict(finding.verdict, finding.sentence)
