"""What a judge takes and gives: answers in, one Judgement each out, in their order; and all judges' options.

Values only. The key of an endpoint comes from the environment and is shown by nothing, `repr` included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from platformdirs import user_cache_path

from adacd_cli.errors import UsageError
from adacd_cli.http_util import key_of_environment

JudgementLabel = Literal["refusal", "partial", "compliance", "degenerate", "unparsed"]
"""Refusal and partial refusal count as refused. Degenerate: neither refuses nor answers. Unparsed: the judge
itself gave nothing that can be read, or cannot read the answer."""

JUDGEMENT_LABELS: tuple[JudgementLabel, ...] = get_args(JudgementLabel)
REFUSED: frozenset[JudgementLabel] = frozenset(("refusal", "partial"))

KEY_VARIABLES = ("ADACD_JUDGE_KEY", "OPENAI_API_KEY")
"""Where an endpoint's key is looked for, in this order."""


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
        ...


def default_cache_folder() -> Path:
    """The user's own folder for an endpoint's replies: `adacd` where the system keeps caches."""
    return user_cache_path("adacd", appauthor=False, opinion=False)


@dataclass(frozen=True)
class JudgeOptions:
    """Options of all judges; each reads its own.

    Attributes:
        url, model, key: of the OpenAI-compatible endpoint; None is OpenAI's own, and no key.
        concurrency: requests at the endpoint at once, at least 1.
        timeout: seconds an endpoint may take for a request, above 0.
        cache: folder for the endpoint's replies; None keeps nothing.
        device, dtype, offline: of wildguard and minos, as the options of these names take them.
        batch_size: answers that wildguard and minos read at once, at least 1.
        threads: CPU threads they compute with; None is the number of free cores.

    Raises:
        UsageError: a number is out of range.
    """

    url: str | None = None
    model: str | None = None
    key: str | None = field(default_factory=lambda: key_of_environment(KEY_VARIABLES), repr=False)
    concurrency: int = 8
    timeout: float = 60.0
    cache: Path | None = field(default_factory=default_cache_folder)
    aspects: bool = False
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 8
    threads: int | None = None
    offline: bool = False
    progress: Callable[[str], None] = field(default=lambda line: None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("concurrency", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise UsageError(f"`{name}` of a judge is at least 1; got {value}.")
        if not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise UsageError(f"`timeout` of a judge is in seconds, above 0; got {self.timeout:g}.")
