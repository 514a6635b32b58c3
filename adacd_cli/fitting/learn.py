"""The numbers of a switch, from the first tokens of many prompts.

float64 NumPy throughout: some hundred features and a thousand prompts are solved exactly in a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adacd_cli.engine.switches import SwitchNumbers

if TYPE_CHECKING:
    from adacd_cli.fitting.observe import Observed

Array = Any  # numpy.ndarray

RIDGES = (10.0, 30.0, 100.0, 300.0, 1000.0)
"""Strengths of the L2 penalty on w that are tried."""

MOST_LOST, MOST_GAINED = 0.02, 0.01
"""Shares of harmful prompts that the switch may answer, and of others that it may refuse, as cross-validated. As
many harmful ones may be answered besides as half of those that it refuses and the model alone would not."""

FEATURES = 512

_FAR = 1e6
"""A threshold of q that nothing lies beyond: a profile holds finite numbers."""

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


def learn_switch(observed: Observed, most_lost: float) -> tuple[SwitchNumbers, Array]:
    """The numbers of the switch `learned`, and the cross-validated q of each prompt, float64 [prompts].

    Args:
        most_lost: share of harmful prompts that it may answer, in [0, 1]; see MOST_LOST.
    """
    logprobs, harmful, about = observed.logprobs, observed.harmful, observed.about_to_refuse
    mass = np.exp(logprobs).mean(axis=0)
    features = np.argsort(-mass)[:FEATURES]
    values = centred(logprobs[:, features])
    values = values - values.mean(axis=0)
    # what is refused is where it matters, if both kinds are
    counted = about if len(set(harmful[about])) == 2 and about.sum() >= 100 else np.ones_like(about)
    q, ridge = cross_validated(values, harmful, [each.group for each in observed.prompts], counted)
    w, b = fit_weights(values, harmful, ridge)
    high = threshold_above(q[~harmful & ~about], int((~harmful).sum()), MOST_GAINED)
    added = float((harmful & ~about & (q >= high)).sum() / max(1, harmful.sum()))
    # what is refused besides makes up for as much that is answered
    lost = most_lost + min(added / 2, MOST_LOST)
    low = min(threshold_below(q[harmful & about], int(harmful.sum()), lost), high)
    low, high = (float(np.clip(each, -_FAR, _FAR)) for each in (low, high))
    # centring each row is the same as weights that sum to 0, so the switch needs none
    balanced = w - w.mean()
    numbers = SwitchNumbers(
        openers=observed.openers,
        tokens=tuple(int(observed.columns[each]) for each in features),
        means=tuple(round(float(each), 2) for each in logprobs[:, features].mean(axis=0)),
        weights=tuple(round(float(each), 4) for each in balanced),
        bias=round(float(b), 4),
        low=round(low, 4),
        high=round(high, 4),
    )
    return numbers, q
