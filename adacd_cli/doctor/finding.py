"""What a check found: plain values that print, compare equal and are written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from adacd_cli.errors import AdacdError


class Status(str, Enum):
    """How a check went.

    A failure is what AdaCD cannot run with. A warning is what it runs with all the same, and the user should
    know. What could not be looked at, or was not asked for, is skipped.
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
        sentence: what is there, one sentence or two.
        next_step: what to do about it; "" where there is nothing to do.
        facts: the numbers and names behind the sentence, JSON values only.
        verdict: what the whole examination comes to if nothing graver is found; "" where it decides nothing.
    """

    name: str
    status: Status
    sentence: str
    next_step: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = ""


@dataclass(frozen=True)
class Section:
    """The findings of one room, under its heading."""

    heading: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Verdict:
    """The end of an examination.

    Attributes:
        name: the verdict, e.g. `suits`.
        reason: why, one sentence or two.
    """

    name: str
    reason: str


def failed(name: str, sentence: str, next_step: str, facts: Mapping[str, Any], verdict: str) -> Finding:
    """What AdaCD cannot run with."""
    return Finding(name, Status.FAILURE, sentence, next_step, facts, verdict)


def raised(name: str, error: AdacdError, verdict: str) -> Finding:
    """A failure in the words of the error, with its hint as the next step."""
    return failed(name, error.message, error.hint, {"error": type(error).__name__}, verdict)


def skipped(name: str, why: str, verdict: str = "") -> Finding:
    """A check that was not made."""
    return Finding(name, Status.SKIPPED, why, "", {}, verdict)


def warned(name: str, sentence: str, next_step: str, facts: Mapping[str, Any], verdict: str = "") -> Finding:
    """What AdaCD runs with all the same, and the user should know."""
    return Finding(name, Status.WARNING, sentence, next_step, facts, verdict)


def fine(name: str, sentence: str, facts: Mapping[str, Any], verdict: str = "") -> Finding:
    """What is as it should be."""
    return Finding(name, Status.OK, sentence, "", facts, verdict)
