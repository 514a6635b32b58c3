"""A decision as a number in a tensor."""

from __future__ import annotations

from adacd_cli.events import Decision

DECISIONS = (Decision.PLAIN, Decision.ADD, Decision.SUBTRACT)  # a decision as a number is its place here
PLAIN, ADD, SUBTRACT = range(3)
