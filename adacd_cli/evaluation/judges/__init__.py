"""The judges by name, and what each takes and gives: answers in, one Judgement each out, in their order. Nothing
heavy is imported before it is used. The key of an endpoint comes from the environment and is shown by nothing,
`repr` included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from platformdirs import user_cache_path

from adacd_cli.errors import UsageError
from adacd_cli.http_util import key_of_environment
from adacd_cli.suggest import known_names_hint

JudgementLabel = Literal["refusal", "partial", "compliance", "degenerate", "unparsed"]
"""Refusal and partial refusal count as refused. Degenerate: neither refuses nor answers. Unparsed: the judge itself
gave nothing that can be read, or cannot read the answer."""

JUDGEMENT_LABELS: tuple[JudgementLabel, ...] = get_args(JudgementLabel)
REFUSED: frozenset[JudgementLabel] = frozenset(("refusal", "partial"))

JUDGE_NAMES = ("keyword", "wildguard", "minos", "openai")  # what `--judge` takes
KEY_VARIABLES = ("ADACD_JUDGE_KEY", "OPENAI_API_KEY")  # where an endpoint's key is looked for, in this order


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and the answer that is judged."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of an answer; `detail` holds JSON values, e.g. WildGuard's lines or five aspects."""

    judge: str
    label: JudgementLabel
    detail: Mapping[str, Any] = field(default_factory=dict)


class Judge(Protocol):
    """A judge of answers."""

    @property
    def name(self) -> str: ...  # as `--judge` takes it and every table prints it

    @property
    def facts(self) -> Mapping[str, Any]: ...  # JSON values that decide besides its name, e.g. its model

    def check(self) -> None:
        """Raises AdacdError if it cannot judge, before hours of decoding."""

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """One judgement an exchange, in their order, each as soon as it is there."""


def default_cache_folder() -> Path:
    """`adacd` where the system keeps the user's caches."""
    return user_cache_path("adacd", appauthor=False, opinion=False)


@dataclass(frozen=True)
class JudgeOptions:
    """Options of all judges; each reads its own."""

    url: str | None = None  # of the OpenAI-compatible endpoint; None is OpenAI's own
    model: str | None = None
    key: str | None = field(default_factory=lambda: key_of_environment(KEY_VARIABLES), repr=False)
    concurrency: int = 8  # requests at the endpoint at once, at least 1
    timeout: float = 60.0  # seconds an endpoint may take for a request, above 0
    cache: Path | None = field(default_factory=default_cache_folder)  # of its replies; None keeps nothing
    aspects: bool = False
    device: str = "auto"  # this and the rest of wildguard and minos, as the options of these names take them
    dtype: str = "auto"
    batch_size: int = 8  # answers that they read at once, at least 1
    threads: int | None = None
    offline: bool = False


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
