"""The rules of the decoding methods, one file each: a pure function `rule` over the rows of a batch.

Which method has which rule, and what it is fed, is said in `config.methods`. A rule that carries a state from token
to token is made anew for each request: its file has a class `State` instead."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from adacd_cli.config.methods import Method
from adacd_cli.config.settings import Settings
from adacd_cli.engine.rules.base import Rule


def rule_of(method: Method) -> Rule:
    """The method's rule, where it has no state."""
    rule: Rule = _module(method).rule
    return rule


def state_of(method: Method, settings: Settings) -> Any:
    """A new state of the method's rule, with `rule` and `log`; None where it has none."""
    state = getattr(_module(method), "State", None)
    return None if state is None else state(settings)


def _module(method: Method) -> Any:
    return import_module(f"adacd_cli.engine.rules.{method.rule}")
