"""The judges by name: a file here and a line below each. Nothing heavy is imported before it is used."""

from __future__ import annotations

from dataclasses import replace

from adacd_cli.errors import UsageError
from adacd_cli.evaluation.judges.base import Judge, JudgeOptions
from adacd_cli.suggest import known_names_hint

JUDGE_NAMES = ("keyword", "wildguard", "minos", "openai")
"""What `--judge` takes."""


def make_judge(name: str, options: JudgeOptions) -> Judge:
    """The judge of a name: one of JUDGE_NAMES, or `NAME=MODEL`; nothing is loaded yet, see `Judge.check`. With a
    model, wildguard and minos come from another hub id or a folder, and openai asks another model than the
    options', so that two can judge side by side. The whole is the judge's name. UsageError where there is no such
    judge, or it lacks an option; MissingExtraError where a package that it needs is not installed."""
    kind, equals, model = name.partition("=")
    model = model.strip()
    if kind not in JUDGE_NAMES:
        raise UsageError(f"Unknown judge '{kind}'.", known_names_hint(kind, JUDGE_NAMES))
    if equals and not model:
        raise UsageError(f"The judge '{name}' names no model after the =.", f"Write {kind}=MODEL, or {kind}.")
    if kind == "keyword":
        from adacd_cli.evaluation.judges.keyword import KeywordJudge

        if model:
            what = f"The judge `keyword` has no model to choose; got '{name}'."
            raise UsageError(what, "Write --judge keyword.")
        return KeywordJudge()
    if kind == "openai":
        from adacd_cli.evaluation.judges.openai import OpenAIJudge

        return OpenAIJudge(replace(options, model=model) if model else options, name)
    from adacd_cli.evaluation.judges.local import MinosJudge, WildGuardJudge

    return (WildGuardJudge if kind == "wildguard" else MinosJudge)(options, model, name)
