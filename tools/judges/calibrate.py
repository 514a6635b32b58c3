"""`python -m tools.judges.calibrate FILE` measures the `keyword` judge against human labels.

FILE holds JSON Lines with prompt, completion, label (full_compliance, partial_refusal or full_refusal) and
model, as XSTest publishes them. One model at a time is left out: its answers are judged with weights fitted
on the other models' alone, and without the phrases that its own answers suggested. Printed is Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adacd_cli.errors import UsageError
from adacd_cli.evaluation.judges import REFUSED, JudgementLabel
from adacd_cli.evaluation.judges.keyword import BIAS, RULES, judgement, signals
from adacd_cli.evaluation.judges.keyword import read as read_exchange

HUMAN_LABELS = ("full_refusal", "partial_refusal", "full_compliance")
STRENGTH = 10.0
"""How firmly weights hold to their prior: as if it had been seen in so many answers."""

_COLUMNS = ("prompt", "completion", "label", "model")
_SWEEPS = 200
_SETTLED = 1e-6
_SHOWN = ("refusal", "partial", "compliance", "degenerate")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A model's answer, and what people said of it: one of HUMAN_LABELS."""

    model: str
    completion: str
    label: str
    prompt: str = ""

    @property
    def refused(self) -> bool:
        """Whether people saw a refusal, full or partial."""
        return self.label != "full_compliance"


def read(path: Path) -> list[Labelled]:
    """The labelled answers of a file.

    Raises:
        UsageError: it cannot be read, is empty, or a line is not what it should be; the line is named.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"The file {str(path)!r} could not be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"The file {str(path)!r} is not UTF-8: byte {error.start + 1}.") from error
    rows = [_labelled(line, f"Line {n}") for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise UsageError(f"The file {str(path)!r} is empty.", "Write one JSON object a line.")
    return rows


def _labelled(line: str, where: str) -> Labelled:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON.", "Write one JSON object a line.") from error
    texts = [row.get(column) for column in _COLUMNS] if isinstance(row, dict) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{where} is no object with the texts {', '.join(_COLUMNS)}.")
    if row["label"] not in HUMAN_LABELS:
        raise UsageError(f"{where} has the label {row['label']!r}.", f"Labels are {', '.join(HUMAN_LABELS)}.")
    return Labelled(row["model"], row["completion"], row["label"], row["prompt"])


def fit(rows: Sequence[Labelled], *, without: str = "") -> dict[str, float]:
    """Weights for the judge: a logistic regression that is drawn to the priors; fixed weights stay.

    Cues with a fixed weight are rare in such answers, and the others are fitted as if they were not there.

    Minimizes the answers' negative log-likelihood + STRENGTH / 2 · Σ (weight − prior)² by Newton's steps on
    one weight after the other.

    Args:
        rows: the answers to learn from.
        without: the model whose learnt phrases are left out.
    """
    weights = dict(RULES.priors)
    ignored = RULES.fixed - RULES.refusals
    found = (signals(read_exchange(row.completion, row.prompt), without=without) for row in rows)
    seen = [{BIAS, *own} - ignored for own in found]
    having = {
        name: [i for i, own in enumerate(seen) if name in own] for name in weights if name not in RULES.fixed
    }
    scores = [sum(weights[name] for name in own) for own in seen]
    for _ in range(_SWEEPS):
        largest = 0.0
        for name, members in having.items():
            chances = [_chance(scores[i]) for i in members]
            slope = STRENGTH * (weights[name] - RULES.priors[name])
            slope += sum(chance - rows[i].refused for i, chance in zip(members, chances, strict=True))
            step = slope / (STRENGTH + sum(chance * (1 - chance) for chance in chances))
            weights[name] -= step
            for i in members:
                scores[i] -= step
            largest = max(largest, abs(step))
        if largest < _SETTLED:
            break
    return weights


def _chance(score: float) -> float:
    return 0.5 * (1 + math.tanh(score / 2))  # the logistic function, without an overflow


def left_out(
    rows: Sequence[Labelled], *, all_phrases: bool = False
) -> Iterator[tuple[str, list[Labelled], list[JudgementLabel]]]:
    """Every model's answers, and their labels from a judge that knows the other models only.

    Args:
        rows: answers of two models or more.
        all_phrases: leave the model out of the weights alone, and judge with the phrases that it suggested.
    """
    for model in sorted({row.model for row in rows}):
        own = [row for row in rows if row.model == model]
        without = "" if all_phrases else model
        weights = fit([row for row in rows if row.model != model], without=without)
        yield (
            model,
            own,
            [judgement(row.completion, row.prompt, weights=weights, without=without).label for row in own],
        )


def agreement(rows: Sequence[Labelled], labels: Sequence[JudgementLabel]) -> tuple[int, int, int, int]:
    """Counts of answers: refused as people say, as the judge says, as both say, and on which they agree."""
    pairs = [(row.refused, label in REFUSED) for row, label in zip(rows, labels, strict=True)]
    both = sum(people and judge for people, judge in pairs)
    agreed = sum(people == judge for people, judge in pairs)
    return sum(people for people, _ in pairs), sum(judge for _, judge in pairs), both, agreed


def _row(name: str, rows: Sequence[Labelled], labels: Sequence[JudgementLabel]) -> str:
    """A line of the table; precision and recall are those of refusal, and `–` where there is none."""
    by_people, by_judge, both, agreed = agreement(rows, labels)
    shares = ((agreed, len(rows)), (both, by_judge), (both, by_people))
    cells = [f"{part / whole:.1%}" if whole else "–" for part, whole in shares]
    return "| " + " | ".join([name, str(len(rows)), str(by_people), *cells]) + " |"


def report(rows: Sequence[Labelled], *, all_phrases: bool = False) -> str:
    """Two Markdown tables: agreement leaving each model out, and people's labels against the judge's."""
    lines = ["| left out | answers | refused | agreement | precision | recall |", "|---|---|---|---|---|---|"]
    shipped = [judgement(row.completion, row.prompt).label for row in rows]
    judged, labels = list(rows), shipped
    if len({row.model for row in rows}) > 1:
        judged, labels = [], []
        for model, own, found in left_out(rows, all_phrases=all_phrases):
            lines.append(_row(_cell(model), own, found))
            judged += own
            labels += found
        lines.append(_row("each in turn", judged, labels))
    lines.append(_row("none (as shipped)", rows, shipped))
    counts: Counter[tuple[str, str]] = Counter(zip((row.label for row in judged), labels, strict=True))
    lines += ["", f"| people say | {' | '.join(_SHOWN)} |", "|---|---|---|---|---|"]
    for human in HUMAN_LABELS:
        lines.append(f"| {human} | {' | '.join(str(counts[human, label]) for label in _SHOWN)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def shown_weights(weights: Mapping[str, float]) -> str:
    """The fitted weights, as keyword.yaml states them under `fitted`."""
    fitted = {name: round(weight, 2) for name, weight in weights.items() if name not in RULES.fixed}
    return "\n".join(f"  {name}: {weight}" for name, weight in fitted.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report, or with --weights the weights that all answers together give."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.judges.calibrate",
        description="Measure the keyword judge against human labels.",
    )
    parser.add_argument("file", type=Path, help="JSON Lines of prompt, completion, label and model")
    parser.add_argument("--first", type=int, metavar="N", help="judge only the first N characters")
    parser.add_argument("--all-phrases", action="store_true", help="leave a model out of the weights alone")
    parser.add_argument("--weights", action="store_true", help="print weights fitted on all answers")
    options = parser.parse_args(arguments)
    if options.first is not None and options.first < 1:
        parser.error("--first takes a whole number, at least 1")
    rows = read(options.file)
    if options.first is not None:
        rows = [Labelled(row.model, row.completion[: options.first], row.label, row.prompt) for row in rows]
    print(shown_weights(fit(rows)) if options.weights else report(rows, all_phrases=options.all_phrases))
    return 0


if __name__ == "__main__":
    from adacd_cli.cli.errors import guarded

    sys.exit(guarded(main, debug=False))
