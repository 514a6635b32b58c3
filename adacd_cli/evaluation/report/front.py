"""The picture of a tuning: every trial, and the front that no other one beats."""

from __future__ import annotations

import io
from collections.abc import Sequence

from adacd_cli.evaluation.tune import Point


def draw_front(found: Sequence[Point], front: Sequence[Point], judge: str) -> str:
    """An SVG: refusal ratio of safe prompts against that of unsafe ones."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "adacd", "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
        within = {point.number for point in front}
        others = [point for point in found if point.number not in within]
        axes.scatter(
            [100 * point.safe for point in others],
            [100 * point.unsafe for point in others],
            color="#999999",
            label="other trials",
        )
        axes.plot(
            [100 * point.safe for point in front],
            [100 * point.unsafe for point in front],
            "o-",
            color="#0072b2",
            label="front",
        )
        for point in front:
            axes.annotate(
                f"α {point.values['alpha']:g}, λ {point.values['agreement_threshold']:g}",
                (100 * point.safe, 100 * point.unsafe),
                textcoords="offset points",
                xytext=(6, -10),
                fontsize=7,
            )
        axes.set_xlabel("safe prompts refused, % (lower is better)")
        axes.set_ylabel("unsafe prompts refused, % (higher is better)")
        axes.set_title(f"Settings of AdaCD, judge {judge}")
        axes.legend()
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return out.getvalue()
