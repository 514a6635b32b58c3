"""What a fit is made of: the bundled prompts, the numbers of a switch, and reading first tokens."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from adacd_cli.errors import OutOfMemoryError, UsageError
from adacd_cli.fitting import learn
from adacd_cli.fitting.corpus import KINDS, LEAST, FitPrompt, bundled, chosen, own
from adacd_cli.fitting.observe import Observer
from tests.fakes import BYTE_VOCAB, ScriptedBackend

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def words_of(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


# --- the bundled prompts ---


def test_the_bundled_prompts_are_enough_different_and_mostly_in_pairs() -> None:
    prompts = bundled()
    counts = Counter(each.kind for each in prompts)
    assert counts["safe"] >= 400 and counts["unsafe"] >= 400 and counts["neutral"] >= 200
    assert set(counts) == set(KINDS)
    for values in ([each.id for each in prompts], [each.text.strip().lower() for each in prompts]):
        assert len(set(values)) == len(prompts)
    groups = Counter((each.group, each.kind) for each in prompts)
    paired = [
        each for each in prompts if each.kind != "neutral" and groups[each.group, _other(each.kind)] > 0
    ]
    assert len(paired) > 0.7 * (counts["safe"] + counts["unsafe"])
    path = Path(learn.__file__).parents[1] / "profiles" / "prompts.jsonl"
    languages = Counter(
        json.loads(line)["language"] for line in path.read_text(encoding="utf-8").splitlines()
    )
    assert sum(n for name, n in languages.items() if name != "en") >= 0.15 * len(prompts)
    assert len(languages) >= 8


def _other(kind: str) -> str:
    return "unsafe" if kind == "safe" else "safe"


@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets that eval measures are not here")
def test_no_bundled_prompt_is_or_nearly_is_one_that_eval_measures() -> None:
    measured = [words for text in _texts(DATA) if (words := words_of(text))]
    assert len(measured) > 2000
    by_word: dict[str, list[frozenset[str]]] = {}
    for words in measured:
        for word in words:
            by_word.setdefault(word, []).append(words)
    near = []
    for each in bundled():
        words = words_of(each.text)
        # texts that share seven tenths of their words share one of the rarest third of them
        rarest = sorted(words, key=lambda word: len(by_word.get(word, ())))[: len(words) // 3 + 1]
        others = {other for word in rarest for other in by_word.get(word, ())}
        near += [
            (each.text, sorted(other)) for other in others if len(words & other) / len(words | other) > 0.7
        ]
    assert near == []


def _texts(folder: Path) -> list[str]:
    """Every text of the data sets, which are JSON Lines and CSV files of many forms."""
    import csv

    texts: list[str] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
            texts += [value for row in rows for value in row.values() if isinstance(value, str)]
        elif path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                texts += [cell for row in csv.reader(file) for cell in row]
    return texts


def test_prompts_of_a_group_are_on_one_side_and_the_same_ones_are_chosen_each_time() -> None:
    prompts = bundled()
    sides = {each.group: set[bool]() for each in prompts}
    for each in prompts:
        sides[each.group].add(each.held_out)
    assert all(len(found) == 1 for found in sides.values())
    limits = {"safe": 20, "unsafe": 10, "neutral": 5}
    train, test = (chosen(prompts, limits, held_out=side) for side in (False, True))
    assert train == chosen(prompts, limits, held_out=False)
    assert Counter(each.kind for each in train) == Counter(each.kind for each in test) == limits
    assert not {each.group for each in train} & {each.group for each in test}


def test_own_prompts_are_enough_and_under_one_label() -> None:
    good = {kind: [f"{kind} {n}" for n in range(least)] for kind, least in LEAST.items()}
    assert Counter(each.kind for each in own(good)) == LEAST
    with pytest.raises(UsageError, match=r"^--safe has 39 different prompts, and a fit needs at least 40"):
        own(good | {"safe": [*good["safe"][1:], good["safe"][1] + " "]})
    with pytest.raises(UsageError, match=r"^The same prompt is under --safe and --unsafe: 'safe 3'"):
        own(good | {"unsafe": [*good["unsafe"], " safe 3"]})


# --- the numbers of a switch ---


def test_auc_is_the_chance_that_a_harmful_prompt_has_the_higher_value() -> None:
    harmful = np.array([False, False, True, True])
    assert learn.auc(np.array([0.1, 0.4, 0.35, 0.8]), harmful) == 0.75
    assert learn.auc(np.array([1.0, 1.0, 1.0, 1.0]), harmful) == 0.5
    assert learn.auc(np.array([1.0, 2.0]), np.array([True, True])) is None


@pytest.mark.parametrize(
    ("share", "below", "above"), [(0.0, 1.0, 4.0), (0.25, 2.0, 3.0), (0.5, 3.0, 2.0), (1.0, np.inf, -np.inf)]
)
def test_a_threshold_leaves_at_most_a_share_on_its_other_side(
    share: float, below: float, above: float
) -> None:
    values = np.array([3.0, 1.0, 4.0, 2.0])
    assert learn.threshold_below(values, 4, share) == below
    found = learn.threshold_above(values, 4, share)
    assert found == (np.nextafter(above, np.inf) if np.isfinite(above) else above)
    assert (values < below).sum() <= share * 4 and (values >= found).sum() <= share * 4


def made_up(n: int = 200, tokens: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities where tokens 0 and 1 tell harmful prompts, and all others nothing."""
    generator = np.random.default_rng(1)
    harmful = np.arange(n) % 2 == 0
    values = generator.normal(-6, 1, (n, tokens))
    values[harmful, 0] += 2
    values[harmful, 1] -= 2
    return values, harmful


def test_weights_find_what_tells_and_are_the_least_of_the_loss() -> None:
    values, harmful = made_up()
    x = values - values.mean(axis=0)
    w, b = learn.fit_weights(x, harmful, 10.0)
    assert w[0] > 1 and w[1] < -1 and np.abs(w[2:]).max() < 0.5
    p = 1 / (1 + np.exp(-(x @ w + b)))
    assert np.abs(x.T @ (p - harmful) + 10.0 * w).max() < 1e-4  # the gradient is zero
    assert abs((p - harmful).sum()) < 1e-4


def test_centring_a_row_is_the_same_as_weights_that_sum_to_zero() -> None:
    values, harmful = made_up()
    centred = learn.centred(values)
    assert np.allclose(centred.mean(axis=1), 0)
    means = centred.mean(axis=0)
    w, b = learn.fit_weights(centred - means, harmful, 10.0)
    by_centring = (centred - means) @ w + b
    by_weights = (values - values.mean(axis=0)) @ (w - w.mean()) + b
    assert np.allclose(by_centring, by_weights)


def test_reading_halves_its_batch_where_memory_is_short() -> None:
    def script(ids: tuple[int, ...]) -> list[float]:
        return [float(ids[-1] == token) for token in range(BYTE_VOCAB)]

    backend = ScriptedBackend(script)

    def failing(number: int) -> None:
        if number == 0:
            raise OutOfMemoryError("full")

    backend.failing = failing
    observer = Observer(backend, batch_size=4)
    prompts = [(1, 2, place) for place in range(6)]
    rows = list(observer.read(prompts))
    assert [int(row.argmax()) for row in rows] == list(range(6))
    assert all(torch.allclose(row.exp().sum(), torch.tensor(1.0)) for row in rows)
    assert [len(work) for work in backend.forwards] == [4, 2, 2, 2]
    # what prompts share is not read again
    assert max(count for _, count in backend.forwards[-1]) < 3
    observer.close()
    assert backend.sequences == {}
    backend.failing = lambda number: (_ for _ in ()).throw(OutOfMemoryError("full"))
    with pytest.raises(OutOfMemoryError):
        list(observer.read(prompts))


def test_a_threshold_that_nothing_lies_beyond_is_finite() -> None:
    prompts = [FitPrompt(str(n), "unsafe" if n % 2 else "safe", str(n), "x") for n in range(40)]
    logprobs = np.log(np.tile([0.9, 0.06, 0.04], (40, 1))).astype(
        np.float32
    )  # every prompt is about to be refused
    numbers, _ = learn.learn_switch(learn.Observed(prompts, np.arange(3), logprobs, (0,)), 0.02)
    assert (numbers.low, numbers.high) == (-1e6, -1e6)
