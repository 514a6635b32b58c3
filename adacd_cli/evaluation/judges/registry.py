"""The judges by name: a file here and a line below each. Nothing heavy is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from adacd_cli.errors import UsageError
from adacd_cli.evaluation.judges.base import Judge
from adacd_cli.evaluation.judges.options import JudgeOptions
from adacd_cli.suggest import known_names_hint


def _keyword(name: str, model: str, options: JudgeOptions) -> Judge:
    from adacd_cli.evaluation.judges.keyword import KeywordJudge

    if model:
        raise UsageError(
            f"The judge `keyword` has no model to choose; got '{name}'.", "Write --judge keyword."
        )
    return KeywordJudge()


def _wildguard(name: str, model: str, options: JudgeOptions) -> Judge:
    from adacd_cli.evaluation.judges.wildguard import MODEL, WildGuardJudge

    return WildGuardJudge(options, model or MODEL, name)


def _minos(name: str, model: str, options: JudgeOptions) -> Judge:
    from adacd_cli.evaluation.judges.minos import MODEL, MinosJudge

    return MinosJudge(options, model or MODEL, name)


def _openai(name: str, model: str, options: JudgeOptions) -> Judge:
    from adacd_cli.evaluation.judges.openai import OpenAIJudge

    return OpenAIJudge(replace(options, model=model) if model else options, name)


_MAKERS: dict[str, Callable[[str, str, JudgeOptions], Judge]] = {
    "keyword": _keyword,
    "wildguard": _wildguard,
    "minos": _minos,
    "openai": _openai,
}

JUDGE_NAMES = tuple(_MAKERS)
"""What `--judge` takes."""


def make_judge(name: str, options: JudgeOptions) -> Judge:
    """The judge of a name; nothing is loaded or asked yet, see `Judge.check`.

    Args:
        name: one of JUDGE_NAMES, or `NAME=MODEL`: wildguard or minos from another hub id or a folder, openai
            with another model than the options', so that two can judge side by side. It is the judge's name.
        options: each judge reads its own.

    Raises:
        UsageError: there is no such judge, or an option that it needs is missing or wrong.
    """
    kind, equals, model = name.partition("=")
    maker = _MAKERS.get(kind)
    if maker is None:
        raise UsageError(f"Unknown judge '{kind}'.", known_names_hint(kind, JUDGE_NAMES))
    if equals and not model.strip():
        raise UsageError(f"The judge '{name}' names no model after the =.", f"Write {kind}=MODEL, or {kind}.")
    return maker(name, model.strip(), options)
