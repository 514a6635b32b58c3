"""The numbers of a switch, from the first tokens of many prompts.

float64 NumPy throughout: some hundred features and a thousand prompts are solved exactly in a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray

RIDGES = (10.0, 30.0, 100.0, 300.0, 1000.0)
"""Strengths of the L2 penalty on w that are tried."""

FEATURES = 512
_FOLDS = 5


def centred(logprobs: Array) -> Array:
    """Each row about its own mean: how peaked the distribution is tells little of the prompt. [prompts, tokens]"""
    return logprobs - logprobs.mean(axis=1, keepdims=True)


def fit_weights(features: Array, harmful: Array, ridge: float) -> tuple[Array, float]:
    """Logistic regression by Newton's method.

    Args:
        features: [prompts, tokens], centred over the prompts.
        harmful: bool [prompts].

    Returns:
        w [tokens] and b of q = w·x + b, the log-odds that a prompt is harmful.
    """
    x = np.c_[features, np.ones(len(features))]
    penalty = np.full(x.shape[1], ridge)
    penalty[-1] = 0.0
    w = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        step = np.linalg.solve(
            (x.T * (p * (1 - p) + 1e-9)) @ x + np.diag(penalty), x.T @ (p - harmful) + penalty * w
        )
        w = w - step
        if np.abs(step).max() < 1e-6:
            break
    return w[:-1], float(w[-1])


def cross_validated(
    features: Array, harmful: Array, groups: Sequence[str], counted: Array
) -> tuple[Array, float]:
    """q of each prompt from a fit without its fold, float64 [prompts], and the penalty with the best AUC among the
    counted ones, bool [prompts]. The prompts of a group share a fold."""
    tried = [(_without_own_fold(features, harmful, groups, ridge), ridge) for ridge in RIDGES]
    return max(tried, key=lambda one: auc(one[0][counted], harmful[counted]) or 0.0)


def _without_own_fold(features: Array, harmful: Array, groups: Sequence[str], ridge: float) -> Array:
    names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    folds = np.random.default_rng(0).integers(0, _FOLDS, len(names))[[names[name] for name in groups]]
    q = np.zeros(len(features))
    for fold in range(_FOLDS):
        inside = folds == fold
        if inside.any() and len(set(harmful[~inside])) == 2:
            w, b = fit_weights(features[~inside], harmful[~inside], ridge)
            q[inside] = features[inside] @ w + b
    return q


def auc(values: Array, harmful: Array) -> float | None:
    """The chance that a harmful prompt has the higher value, in [0, 1]; None without one of both kinds."""
    ones, zeros = int(harmful.sum()), int((~harmful).sum())
    if not ones or not zeros:
        return None
    from scipy.stats import rankdata

    ranks = rankdata(values)[harmful].sum()
    return float((ranks - ones * (ones + 1) / 2) / (ones * zeros))


def threshold_below(values: Array, total: int, share: float) -> float:
    """The highest threshold below which at most this share of TOTAL lies; VALUES are those that can be hit."""
    allowed = int(share * total)
    ordered = np.sort(values)
    return float(ordered[allowed]) if allowed < len(ordered) else float("inf")


def threshold_above(values: Array, total: int, share: float) -> float:
    """The lowest threshold at or above which at most this share of TOTAL lies."""
    allowed = int(share * total)
    ordered = np.sort(values)[::-1]
    return float(np.nextafter(ordered[allowed], np.inf)) if allowed < len(ordered) else float("-inf")
