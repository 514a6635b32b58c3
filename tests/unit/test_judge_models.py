"""Judges by name, and what those with weights share: batches that fit into memory, answers that fit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adacd_cli.errors import OutOfMemoryError, UsageError
from adacd_cli.evaluation.judges import JUDGE_NAMES, Exchange, Judgement, JudgeOptions, make_judge
from adacd_cli.evaluation.judges.local import LONGEST_ANSWER, LocalJudge, Reader, Verdict, fit
from tests.byte_tokenizer import make_tokenizer
from tests.golden import check

OPTIONS = JudgeOptions(device="cpu", dtype="float32", threads=1, batch_size=4, key=None, cache=None)


class Cramped(LocalJudge):
    """A judge with memory for so many answers at once."""

    def __init__(self, room: int) -> None:
        super().__init__(replace(OPTIONS, batch_size=8), "m", "cramped")
        self.room, self.sizes = room, []  # type: tuple[int, list[int]]

    def _load(self) -> tuple[Reader, tuple[str, ...]]:
        return Reader(make_tokenizer(None), "{prompt}{response}", 100), ()

    def _verdicts(self, rows: Sequence[tuple[int, ...]]) -> list[Verdict]:
        self.sizes.append(len(rows))
        if len(rows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [("refusal", {"length": len(row)}) for row in rows]


def test_a_batch_that_does_not_fit_is_halved() -> None:
    judge = Cramped(room=3)
    judgements = list(judge.judge([Exchange("", "a" * n) for n in range(1, 10)]))
    assert judgements == [Judgement("cramped", "refusal", {"length": n}) for n in range(1, 10)]
    assert judge.sizes == [8, 4, 2, 2, 2, 2, 1]


def test_an_answer_that_does_not_fit_alone_ends_it() -> None:
    with pytest.raises(OutOfMemoryError, match="not enough memory for the judge cramped to read an answer"):
        list(Cramped(room=0).judge([Exchange("", "a")]))


@pytest.mark.parametrize(
    ("length", "limit", "kept", "cut"),
    [(5, 10, 5, False), (9, 10, 9, False), (10, 10, 9, True), (1_000_000, 10, 9, True), (5, 2, 1, True)],
)
def test_as_much_of_an_answer_as_fits(length: int, limit: int, kept: int, cut: bool) -> None:
    """A token a character, and one around them."""
    assert fit(lambda answer: (7, *[1] * len(answer)), "x" * length, limit) == ((7, *[1] * kept), cut)


def test_nothing_fits_and_a_huge_answer_is_cut_before_it_is_counted() -> None:
    assert fit(lambda answer: (7, *[1] * len(answer)), "xyz", 1) is None
    assert fit(lambda answer: (len(answer),), "x" * 2 * LONGEST_ANSWER, 5) == ((LONGEST_ANSWER,), True)


@pytest.mark.parametrize("name", ["wildgaurd", "", "minos=", "openai"])
def test_judges_that_cannot_be_made(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_judge(name, OPTIONS)
    check("judges", f"name {name}", f"{caught.value.message}\n{caught.value.hint}")


def test_judges_by_name() -> None:
    assert JUDGE_NAMES == ("keyword", "wildguard", "minos", "openai")
    made = [
        make_judge(name, replace(OPTIONS, model="m")) for name in ("wildguard", "minos", "openai", "openai=n")
    ]
    assert [(judge.name, judge.model) for judge in made] == [  # type: ignore[attr-defined]
        ("wildguard", "allenai/wildguard"),
        ("minos", "NousResearch/Minos-v1"),
        ("openai", "m"),
        ("openai=n", "n"),
    ]


def test_the_keyword_judge_by_name() -> None:
    pytest.importorskip("adacd_cli.evaluation.judges.keyword")
    assert make_judge("keyword", OPTIONS).name == "keyword"
    with pytest.raises(UsageError, match="has no model to choose"):
        make_judge("keyword=m", OPTIONS)


@pytest.mark.parametrize("options", [{"device": "tpu"}, {"dtype": "int3"}, {"threads": 0}])
@pytest.mark.parametrize("name", ["wildguard", "minos"])
def test_hardware_that_there_is_not_is_refused_at_once(name: str, options: dict[str, Any]) -> None:
    ((option, value),) = options.items()
    with pytest.raises(UsageError, match=f"`{option}` of a judge cannot be {value!r}."):
        make_judge(name, replace(OPTIONS, **options))


def test_making_a_judge_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from adacd_cli.evaluation.judges import JudgeOptions\n"
        "from adacd_cli.evaluation.judges import make_judge\n"
        "assert not {'torch', 'transformers', 'httpx', 'anyio', 'tenacity'} & set(sys.modules)\n"
        "for name in ('wildguard', 'minos', 'openai=m'):\n"
        "    make_judge(name, JudgeOptions())\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)
