"""What judges with weights on this machine share: loading once, filling the maker's template, batches.

A judge of this kind says how it is loaded, what its template is and what its output means. Texts are made
valid and short enough here, and control tokens that someone wrote into them count as plain text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from adacd_cli.config import Settings
from adacd_cli.errors import ModelError, OutOfMemoryError, UsageError
from adacd_cli.evaluation.judges.base import Exchange, Judgement, JudgementLabel, JudgeOptions
from adacd_cli.prompts.thinking import without_thinking

LONGEST_INPUT = 8192
"""Tokens that a judge reads of an exchange, whatever its context: Minos' own limit, and bounded memory."""

LONGEST_ANSWER = 100_000
"""Characters of an answer that are looked at before tokens are counted."""

TOO_LONG = "the question alone is longer than the judge's context"

Verdict = tuple[JudgementLabel, dict[str, Any]]
"""A label and what goes into `Judgement.detail`."""


@dataclass(frozen=True)
class Reader:
    """What turns an exchange into ids.

    Attributes:
        tokenizer: the judge's.
        template: the maker's text around `{prompt}` and `{response}`.
        limit: tokens an input may have.
        before: ids that stand before every text, e.g. [CLS].
        after: ids that stand after it, e.g. [SEP].
    """

    tokenizer: Any
    template: str
    limit: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def read(self, exchange: Exchange) -> tuple[tuple[int, ...], bool] | None:
        """The ids, with as much of the answer's beginning as fits, and whether it was cut; None if none fits.

        They are the tokenizer's own for the filled template, but that control tokens count only where the
        template wrote them: an answer that says `[/INST]` or `[SEP]` cannot end the judge's input.
        """
        from adacd_cli.prompts.control import Escape
        from adacd_cli.prompts.encode import Encoder

        encoder = Encoder.of(self.tokenizer)
        prompt, completion = _readable(exchange.prompt), _readable(exchange.completion)
        escape = Escape(encoder.control, (prompt, completion), self.template)

        def encode(answer: str) -> tuple[int, ...]:
            filled = self.template.format(prompt=escape.hide(prompt), response=escape.hide(answer))
            return (*self.before, *encoder.encode(self.tokenizer, filled, escape), *self.after)

        return fit(encode, completion, self.limit)


class LocalJudge(ABC):
    """A judge with weights on this machine.

    Args:
        options: device, dtype, threads, batch_size, offline and progress are read.
        source: hub id or folder of the weights.
        name: as `--judge` takes it.

    Attributes:
        warnings: what loading found that the user should know, one sentence each.

    Raises:
        UsageError: there is no device or dtype of that name.
    """

    def __init__(self, options: JudgeOptions, source: str, name: str) -> None:
        self._options, self._source, self._name = options, source, name
        self._settings = _settings_for(options, source)
        self._reader: Reader | None = None
        self.warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As `--judge` takes it."""
        return self._name

    @property
    def model(self) -> str:
        """Hub id or folder of the weights."""
        return self._source

    @property
    def facts(self) -> Mapping[str, Any]:
        """The weights decide."""
        return {"model": self._source}

    def check(self) -> None:
        """Loads the weights and tries them; they stay for `judge`.

        Raises:
            EnvironmentFault: the weights cannot be had or used, or there is no such device.
            OutOfMemoryError: they do not fit.
        """
        self._ready()

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """One judgement an exchange, in their order, a batch at a time.

        Raises:
            EnvironmentFault: as `check` does.
            OutOfMemoryError: the weights do not fit, or a single answer does not beside them.
        """
        reader = self._ready()
        size = self._options.batch_size
        place = 0
        while place < len(exchanges):
            judgements = self._run(reader, exchanges[place : place + size], alone=size == 1)
            if judgements is None:
                size = max(1, size // 2)
                continue
            place += len(judgements)
            yield from judgements

    @abstractmethod
    def _load(self) -> tuple[Reader, tuple[str, ...]]:
        """Loads the weights; the warnings come with them."""

    @abstractmethod
    def _verdicts(self, rows: Sequence[tuple[int, ...]]) -> list[Verdict]:
        """What the model says of each input."""

    def _ready(self) -> Reader:
        if self._reader is None:
            try:
                self._reader, self.warnings = self._load()
            except ModelError as error:
                message = f"The judge {self._name} cannot be used. {error.message}"
                raise ModelError(message, error.hint) from error
        return self._reader

    def _run(self, reader: Reader, exchanges: Sequence[Exchange], *, alone: bool) -> list[Judgement] | None:
        """Judges a batch; None where there is no memory for it and it can be made smaller."""
        found: list[Judgement | None] = []
        rows: list[tuple[tuple[int, ...], bool]] = []
        for given in exchanges:
            exchange = Exchange(given.prompt, without_thinking(given.completion))
            empty = not exchange.completion.strip()
            fitted = None if empty else reader.read(exchange)
            if fitted is not None:
                rows.append(fitted)
                found.append(None)
            elif empty:
                found.append(Judgement(self._name, "degenerate"))  # it neither refuses nor answers
            else:
                found.append(Judgement(self._name, "unparsed", {"error": TOO_LONG}))
        verdicts = self._within_memory([ids for ids, _ in rows], alone=alone) if rows else []
        if verdicts is None:
            return None
        judged = (
            Judgement(self._name, label, {**detail, **({"truncated": True} if cut else {})})
            for (_, cut), (label, detail) in zip(rows, verdicts, strict=True)
        )
        return [known or next(judged) for known in found]

    def _within_memory(self, rows: Sequence[tuple[int, ...]], *, alone: bool) -> list[Verdict] | None:
        from adacd_cli.engine.memory import is_out_of_memory

        try:
            return self._verdicts(rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if alone:
                raise OutOfMemoryError(
                    f"There is not enough memory for the judge {self._name} to read an answer.",
                    "Run it on another device, or judge the answers in a run of their own.",
                ) from error
            return None


def _settings_for(options: JudgeOptions, source: str) -> Settings:
    """The settings that load the judge and, where it writes, let it write greedily."""
    values = {name: getattr(options, name) for name in ("device", "dtype", "threads", "offline")}
    try:
        return Settings.model_validate({"model": source, "method": "default", "temperature": 0.0, **values})
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UsageError(f"`{wrong['loc'][0]}` of a judge cannot be {wrong['input']!r}.") from error


def fit(
    encode: Callable[[str], tuple[int, ...]], answer: str, limit: int
) -> tuple[tuple[int, ...], bool] | None:
    """The ids of the whole input with as much of the answer's beginning as fits.

    Args:
        encode: answer to the ids of the input that holds it.
        answer: the answer, not empty.
        limit: tokens the input may have.

    Returns:
        The ids and whether the answer was cut; None where not one character of it fits.
    """
    shown = answer[:LONGEST_ANSWER]
    ids = encode(shown)
    if len(ids) <= limit:
        return ids, len(shown) < len(answer)
    fits, too_long = 0, len(shown)
    best: tuple[int, ...] = ()
    while too_long - fits > 1:  # more characters are hardly ever fewer tokens
        middle = (fits + too_long) // 2
        ids = encode(shown[:middle])
        if len(ids) <= limit:
            fits, best = middle, ids
        else:
            too_long = middle
    return (best, True) if fits else None


def _readable(text: str) -> str:
    """The text as UTF-8 can carry it: half a surrogate pair, which tokenizers refuse, becomes `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")
