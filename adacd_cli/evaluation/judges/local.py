"""What judges with weights on this machine share: loading once, filling the maker's template, batches.

A judge of this kind says how it is loaded, what its template is and what its output means. Texts are made
valid and short enough here, and control tokens that someone wrote into them count as plain text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from adacd_cli.config import Settings
from adacd_cli.errors import ModelError, OutOfMemoryError, UsageError
from adacd_cli.evaluation.judges.base import Exchange, Judgement, JudgementLabel, JudgeOptions
from adacd_cli.prompts.templates import without_thinking

LONGEST_INPUT = 8192  # tokens that a judge reads of an exchange: Minos' own limit, and bounded memory
LONGEST_ANSWER = 100_000  # characters of an answer that are looked at before tokens are counted

Verdict = tuple[JudgementLabel, dict[str, Any]]  # a label and what goes into `Judgement.detail`


@dataclass(frozen=True)
class Reader:
    """What turns an exchange into at most `limit` ids: the maker's text around `{prompt}` and `{response}`, and the
    ids that stand around every text, e.g. [CLS] and [SEP]."""

    tokenizer: Any
    template: str
    limit: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def read(self, exchange: Exchange) -> tuple[tuple[int, ...], bool] | None:
        """See `fit`; control tokens count only where the template wrote them: an answer that says `[/INST]` or
        `[SEP]` cannot end the judge's input."""
        from adacd_cli.prompts.encode import Encoder, Escape

        encoder = Encoder.of(self.tokenizer)
        # half a surrogate pair, which tokenizers refuse, becomes `?`
        prompt, completion = (
            text.encode("utf-8", "replace").decode("utf-8") for text in (exchange.prompt, exchange.completion)
        )
        escape = Escape(encoder.control, (prompt, completion), self.template)

        def encode(answer: str) -> tuple[int, ...]:
            filled = self.template.format(prompt=escape.hide(prompt), response=escape.hide(answer))
            return (*self.before, *encoder.encode(self.tokenizer, filled, escape), *self.after)

        return fit(encode, completion, self.limit)


class LocalJudge(ABC):
    """A judge with weights on this machine, from a hub id or a folder; `warnings` are sentences about loading them.

    UsageError where there is no device or dtype of that name. EnvironmentFault from `check`, which loads the
    weights, or `judge` where these cannot be had or used; OutOfMemoryError where they do not fit, or an answer
    beside them.
    """

    def __init__(self, options: JudgeOptions, model: str, name: str) -> None:
        self._options, self.model, self.name = options, model, name
        own = {name: getattr(options, name) for name in ("device", "dtype", "threads", "offline")}
        values = {"model": model, "method": "default", "temperature": 0.0, **own}
        try:
            self._settings = Settings.model_validate(values)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise UsageError(f"`{wrong['loc'][0]}` of a judge cannot be {wrong['input']!r}.") from error
        self._reader: Reader | None = None
        self.facts: Mapping[str, Any] = {"model": model}
        self.warnings: tuple[str, ...] = ()

    def check(self) -> None:
        self._ready()

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        from adacd_cli.engine.memory import is_out_of_memory

        reader = self._ready()
        size, done = self._options.batch_size, 0
        while done < len(exchanges):
            try:
                judgements = self._batch(reader, exchanges[done : done + size])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise OutOfMemoryError(
                        f"There is not enough memory for the judge {self.name} to read an answer.",
                        "Run it on another device, or judge the answers in a run of their own.",
                    ) from error
                size //= 2
            else:
                done += len(judgements)
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
                message = f"The judge {self.name} cannot be used. {error.message}"
                raise ModelError(message, error.hint) from error
            except OutOfMemoryError as error:
                raise OutOfMemoryError(error.message, "Run the judge on another device.") from error
        return self._reader

    def _batch(self, reader: Reader, given: Sequence[Exchange]) -> list[Judgement]:
        exchanges = [Exchange(each.prompt, without_thinking(each.completion)) for each in given]
        fitted = [reader.read(each) if each.completion.strip() else None for each in exchanges]
        rows = [each[0] for each in fitted if each is not None]
        verdicts = iter(self._verdicts(rows) if rows else ())
        found = []
        for exchange, row in zip(exchanges, fitted, strict=True):
            label: JudgementLabel = "degenerate"  # empty: neither refuses nor answers
            detail: dict[str, Any] = {}
            if row is not None:
                label, detail = next(verdicts)
                detail |= {"truncated": True} if row[1] else {}
            elif exchange.completion.strip():
                label = "unparsed"
                detail["error"] = "the question alone is longer than the judge's context"
            found.append(Judgement(self.name, label, detail))
        return found


def fit(
    encode: Callable[[str], tuple[int, ...]], answer: str, limit: int
) -> tuple[tuple[int, ...], bool] | None:
    """The ids that ENCODE makes of as much of the answer's beginning as LIMIT tokens hold, and whether it was cut;
    None where not one character of it fits."""
    shown = answer[:LONGEST_ANSWER]
    ids = encode(shown)
    if len(ids) <= limit:
        return ids, len(shown) < len(answer)
    # more characters are hardly ever fewer tokens
    lengths = range(1, len(shown))
    fits = bisect_right(lengths, limit, key=lambda length: len(encode(shown[:length])))
    return (encode(shown[:fits]), True) if fits else None
