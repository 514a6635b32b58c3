"""The choice of `--limit`: of each label, in the shares of the categories, drawn by the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adacd_cli.evaluation.datasets.files import Sample
from adacd_cli.evaluation.datasets.load import choose
from tests.data_sets import load, refusal, write

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def many(sizes: dict[str, int], label: Any = "safe", dataset: str = "set") -> list[Sample]:
    return [
        Sample(dataset, f"{label}-{category}-{number}", "prompt", label, category)
        for category, size in sizes.items()
        for number in range(size)
    ]


def shares(samples: Sequence[Sample]) -> dict[str, int]:
    return dict(Counter(sample.category for sample in samples))


SIZES = {"big": 60, "middle": 30, "small": 10}


def test_a_limit_keeps_the_shares_of_the_categories_and_the_order() -> None:
    samples = many(SIZES)
    for limit, expected in (
        (10, {"big": 6, "middle": 3, "small": 1}),
        (20, {"big": 12, "middle": 6, "small": 2}),
        (1, {"big": 1}),
        (3, {"big": 2, "middle": 1}),
        (99, {"big": 59, "middle": 30, "small": 10}),
        (100, SIZES),
        (500, SIZES),
    ):
        chosen = choose(samples, limit, seed=0)
        assert shares(chosen) == expected
        assert list(chosen) == [sample for sample in samples if sample in chosen]
    assert choose(samples, None, seed=0) == tuple(samples)


def test_a_limit_is_of_each_label() -> None:
    samples = many({"x": 5, "y": 5}, "safe") + many({"z": 3}, "unsafe")
    chosen = choose(samples, 4, seed=1)
    assert Counter(sample.label for sample in chosen) == {"safe": 4, "unsafe": 3}
    assert shares(chosen) == {"x": 2, "y": 2, "z": 3}


def test_which_are_chosen_depends_on_seed_set_and_ids_alone() -> None:
    samples = many(SIZES)
    first = choose(samples, 20, seed=0)
    assert choose(samples, 20, seed=0) == first
    assert set(choose(samples[::-1], 20, seed=0)) == set(first)
    assert choose(samples, 20, seed=1) != first
    other = choose(many(SIZES, dataset="other"), 20, seed=0)
    assert [sample.id for sample in other] != [sample.id for sample in first]


def test_a_choice_is_not_the_first_n_and_stays_as_it_is() -> None:
    # runs that are continued and runs that are compared rely on it
    chosen = choose(many({"": 20}), 5, seed=0)
    assert [sample.id for sample in chosen] == ["safe--1", "safe--11", "safe--13", "safe--16", "safe--18"]


@given(
    sizes=st.dictionaries(st.text(max_size=2), st.integers(1, 12), min_size=1, max_size=6),
    seed=st.integers(),
    data=st.data(),
)
def test_a_larger_limit_only_adds(sizes: dict[str, int], seed: int, data: st.DataObject) -> None:
    samples = many(sizes)
    limit = data.draw(st.integers(1, len(samples)))
    smaller, larger = choose(samples, limit, seed), choose(samples, limit + 1, seed)
    assert len(smaller) == limit
    assert set(smaller) <= set(larger)


def test_limits_and_loading_go_together(tmp_path: Path) -> None:
    path = write(tmp_path / "my.txt", "".join(f"prompt {number}\n" for number in range(50)))
    (whole,), (part,) = load(path, label="safe"), load(path, label="safe", limit=7, seed=3)
    assert part.samples == choose(whole.samples, 7, 3)
    assert part.sha256 != whole.sha256
    error = refusal(path, label="safe", limit=0)
    assert error.message == "--limit is at least 1; got 0."
    assert error.hint == "It counts samples of each set and label."


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets are not part of the repository")
def test_fifty_of_xstest_are_two_or_three_of_each_kind() -> None:
    (xstest,) = load("xstest", data=SHARED, limit=25)
    assert set(shares(xstest.samples).values()) <= {2, 3, 4}
    assert len(xstest.samples) == 50
