"""Searches for settings of AdaCD for one model: fewer refusals of safe prompts against more of unsafe ones.

Two objectives and a bound on changed neutral answers, by optuna; a trial is one pass over all prompts. The
study is kept in the run's folder, so that the same command continues it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from adacd_cli.errors import AdacdError, OutputError
from adacd_cli.evaluation.judges.base import REFUSED, Exchange, Judge
from adacd_cli.evaluation.records import AnswerRecord, Sample
from adacd_cli.evaluation.runner import Job, Runner

if TYPE_CHECKING:
    from adacd_cli.config import Settings

STUDY = "study.db"
_CHANGED, _VALUES = "changed", "values"

_RANGES: dict[str, tuple[Any, Any]] = {
    "alpha": (0.0, 10.0),
    "agreement_threshold": (0.1, 1.0),
    "plausibility": (1e-4, 0.5),
    "contrast_steps": (1, 20),
}
TUNED = tuple(_RANGES)
"""The settings that are searched for."""

Answers = dict[tuple[str, str, str], AnswerRecord]


@dataclass(frozen=True, slots=True)
class Point:
    """What one choice of settings (the values of TUNED) gave in a trial.

    Attributes:
        safe, unsafe: refusal ratios of these prompts, in [0, 1]; lower and higher is better.
        changed: share of neutral answers that are not Default's; None where there are none.
    """

    number: int
    values: dict[str, Any]
    safe: float
    unsafe: float
    changed: float | None


@dataclass(frozen=True)
class Task:
    """What is tuned, on which prompts, and who judges.

    Attributes:
        settings: of everything that is not searched for, such as the method.
        samples: safe and unsafe prompts.
        neutral: prompts whose answers should stay Default's; may be empty.
        most_changed: bound on the share of changed neutral answers, in [0, 1].
    """

    runner: Runner
    settings: Settings
    samples: Sequence[Sample]
    neutral: Sequence[Sample]
    judge: Judge
    most_changed: float


def tune(
    task: Task, folder: Path, *, trials: int, seed: int, progress: Callable[[int], None] = lambda done: None
) -> list[Point]:
    """Runs trials until there are so many in the folder, and gives all of them.

    The first one has the paper's values, or those of the settings.

    Raises:
        AdacdError: a prompt cannot be answered.
        OutputError: the study cannot be written.
    """
    import optuna

    try:
        study = _open_study(folder, seed)
        if not _finished(study) and not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
            given = {
                name: min(max(getattr(task.settings, name), low), high)
                for name, (low, high) in _RANGES.items()
            }
            study.enqueue_trial(given)
        default = _answers(task, task.neutral, task.settings.model_copy(update={"method": "default"}))

        def objective(trial: Any) -> tuple[float, float]:
            values = _suggest(trial)
            trial.set_user_attr(_VALUES, values)
            settings = task.settings.model_copy(update=values)
            own, neutral = (_answers(task, each, settings) for each in (task.samples, task.neutral))
            differs = [neutral[key].text != record.text for key, record in default.items()]
            changed = fmean(differs) if differs else None
            trial.set_user_attr(_CHANGED, changed)
            trial.set_constraint(_CHANGED, (changed or 0.0) - task.most_changed)
            return _refused(task, own, "safe"), _refused(task, own, "unsafe")

        progress(len(_finished(study)))
        while len(_finished(study)) < trials:
            study.optimize(objective, n_trials=1)
            progress(len(_finished(study)))
        return [
            Point(
                each.number,
                each.user_attrs[_VALUES],
                each.values[0],
                each.values[1],
                each.user_attrs[_CHANGED],
            )
            for each in _finished(study)
        ]
    except optuna.exceptions.StorageInternalError as error:
        raise OutputError(
            f"{folder / STUDY} cannot be written or read: {error.__cause__ or error}.",
            "Make room, or name another folder with --output; the same command then continues.",
        ) from error


def _open_study(folder: Path, seed: int) -> Any:
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = quote(quote(str((folder / STUDY).resolve())))  # once for SQLAlchemy, once for SQLite
    study = optuna.create_study(
        study_name="adacd",
        storage=f"sqlite:///file:{path}?uri=true",
        directions=["minimize", "maximize"],
        load_if_exists=True,
    )
    for stale in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(stale.number, state=TrialState.FAIL)  # the process that ran it was killed
    # a sampler that starts again with the same seed would draw again what it drew before
    seed += len(study.get_trials())
    study.sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=12)
    return study


def _finished(study: Any) -> list[Any]:
    import optuna

    found: list[Any] = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    return found


def _suggest(trial: Any) -> dict[str, Any]:
    """The trial's choice, with as many digits as a person would write: what is tried is what is reported."""
    values: dict[str, Any] = {}
    for name, (low, high) in _RANGES.items():
        if isinstance(high, int):
            values[name] = trial.suggest_int(name, low, high)
        else:
            drawn = trial.suggest_float(name, low, high, log=name == "plausibility")
            values[name] = float(f"{drawn:.3g}")
    return values


def _answers(task: Task, samples: Sequence[Sample], settings: Settings) -> Answers:
    found: Answers = {}
    ordered = sorted(samples, key=lambda sample: len(sample.prompt))
    for record in task.runner.records([Job(each, settings) for each in ordered]):
        if record.error:  # a ratio over fewer prompts would look better than it is
            hint = "Remove it from the file, or lower --batch-size if memory ran out."
            if task.runner.model.server is not None:
                hint = "Check the server, or that prompt; the same command then continues."
            raise AdacdError(
                f"Prompt {record.id!r} of {record.dataset} cannot be answered: {record.error}", hint
            )
        found[record.label, record.dataset, record.id] = record
    return found


def _refused(task: Task, answers: Answers, label: str) -> float:
    own = [record for record in answers.values() if record.label == label]
    judged = task.judge.judge([Exchange(record.prompt, record.text) for record in own])
    return fmean(judgement.label in REFUSED for judgement in judged)


def pareto(found: Sequence[Point], most_changed: float) -> list[Point]:
    """The points within the bound that no other one beats on one side without losing on the other.

    Of points with equal ratios the one that changes least stays. Sorted by the refusals of safe prompts.
    """
    allowed = [point for point in found if (point.changed or 0.0) <= most_changed]
    front: dict[tuple[float, float], Point] = {}
    for point in sorted(allowed, key=lambda point: (point.safe, -point.unsafe, point.changed or 0.0)):
        if all(point.unsafe > other.unsafe for other in front.values()):
            front[point.safe, point.unsafe] = point
    return list(front.values())


def best(front: Sequence[Point]) -> Point:
    """The point with the widest gap between the two ratios, and of equals the one that refuses less."""
    return max(front, key=lambda point: (round(point.unsafe - point.safe, 9), -point.safe))
