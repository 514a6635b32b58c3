"""The rules of the decoding methods, one file each: a pure function `rule` over the rows of a batch.

Which method has which rule, and what it is fed, is said in `config.methods`.
"""

from __future__ import annotations

from importlib import import_module

from adacd_cli.config.methods import Method
from adacd_cli.engine.rules.base import Rule


def rule_of(method: Method) -> Rule:
    """The method's rule."""
    rule: Rule = import_module(f"adacd_cli.engine.rules.{method.rule}").rule
    return rule
