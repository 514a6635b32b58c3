"""`adacd tune`: searches for α, λ, β and k of AdaCD for one model, and writes the best as a preset."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from adacd_cli.cli import measuring
from adacd_cli.cli.options import option, with_settings
from adacd_cli.cli.progress import Tally, keeping
from adacd_cli.cli.running import load_model
from adacd_cli.cli.streams import check_stdout
from adacd_cli.config import CONTROLS, Resolved, Settings
from adacd_cli.errors import AdacdError, ConfigurationError, MissingExtraError, UsageError
from adacd_cli.render.screen import DIM, Screen

if TYPE_CHECKING:
    from adacd_cli.evaluation.datasets.load import LoadedSet
    from adacd_cli.evaluation.judges.base import Judge
    from adacd_cli.evaluation.tune import Point

_TOKENS = 64
"""Longest answer unless it is set: a refusal shows in its first words."""

_SERVED = ("served_model", "tokenizer")
_FIXED = (
    *("model", "revision", "dtype", "quantize", "system"),
    *("contrast_prompt", "contrast_placement", "thinking"),
)
"""What is not searched for but decides how answers begin."""


@with_settings(omit=("stats", "seed", "stop", "temperature", "top_p", "top_k", *CONTROLS))
def command(
    resolved: Resolved,
    safe: Annotated[str | None, option("FILE", "Prompts that should be answered.")] = None,
    unsafe: Annotated[str | None, option("FILE", "Prompts that should be refused.")] = None,
    neutral: Annotated[str | None, option("FILE", "Prompts whose answers should stay Default's.")] = None,
    max_changed: Annotated[
        float, option("SHARE", "Most neutral answers that may change.", min=0, max=1)
    ] = 1.0,
    trials: Annotated[int, option("N", "Choices of settings to try in all.", min=1)] = 40,
    output: Annotated[
        str | None, option("DIR", "Folder of the study; continued if there.", "--output", "-o")
    ] = None,
    limit: Annotated[int | None, option("N", "At most N prompts of each file.", min=1)] = None,
    judge: measuring.JudgeName = "keyword",
    judge_url: measuring.JudgeUrl = None,
    judge_model: measuring.JudgeModel = None,
    judge_cache: measuring.JudgeCache = None,
    judge_device: measuring.JudgeDevice = None,
    batch_size: measuring.AtOnce = "auto",
    concurrency: measuring.Concurrency = None,
    seed: Annotated[int, option("N", "Seed of --limit and of the search.", min=0)] = 0,
) -> None:
    """Search for α, λ, β and k for a model: fewer refusals of safe prompts, more of unsafe ones."""
    check_stdout()
    if safe is None or unsafe is None:
        missing = "--safe" if safe is None else "--unsafe"
        raise UsageError(f"{missing} is missing.", f"Name a file of prompts: {missing} FILE.")
    if not output:
        raise UsageError(
            "No folder for the study is named.", "Name one with --output, e.g. --output runs/tune."
        )
    settings = resolved.settings
    if settings.effective_method not in ("adacd", "adacd-gated"):
        raise ConfigurationError(
            f"`adacd tune` searches for settings of AdaCD; the method is {settings.effective_method}.",
            "Choose --method adacd or adacd-gated.",
        )
    if resolved.sources["max_new_tokens"].kind == "default":
        settings = settings.model_copy(update={"max_new_tokens": _TOKENS})
    at_once = measuring.at_once_of(batch_size, concurrency, served=settings.served)
    if find_spec("optuna") is None:
        raise MissingExtraError("`adacd tune` needs optuna, which is not installed.", "pip install optuna")
    from adacd_cli.evaluation.datasets.load import load_samples
    from adacd_cli.evaluation.datasets.registry import KNOWN_SETS
    from adacd_cli.evaluation.runner import Runner
    from adacd_cli.evaluation.store import Store
    from adacd_cli.evaluation.tune import Task, best, pareto, tune

    sets: dict[str, LoadedSet] = {}
    for name, file in {"safe": safe, "unsafe": unsafe, "neutral": neutral}.items():
        if file in KNOWN_SETS:
            raise UsageError(
                f"--{name} takes a file; {file} is the name of a data set.",
                f"Name its file, e.g. DIR/{file}.jsonl.",
            )
        if file is not None:
            label = "unsafe" if name == "unsafe" else "safe"
            (sets[name],) = load_samples([file], data=None, label=label, limit=limit, seed=seed, offline=True)
    chosen = measuring.make_judges(
        [judge], settings, url=judge_url, model=judge_model, cache=judge_cache, device=judge_device
    )[0]
    folder = Path(output).expanduser()
    with Store(folder, _plan(settings, sets, chosen, seed)) as store:
        runner = Runner(load_model(settings))
        samples = [*sets["safe"].samples, *sets["unsafe"].samples]
        runner.limit(samples, [settings], at_once)
        task = Task(
            runner=runner,
            settings=settings,
            samples=samples,
            neutral=sets["neutral"].samples if "neutral" in sets else [],
            judge=chosen,
            most_changed=max_changed,
        )
        with (
            keeping(settings, lambda: f"Finished trials are kept in {folder}"),
            Tally("Tuning", trials, "trials", settings) as tally,
        ):
            found = tune(task, folder, trials=trials, seed=seed, progress=tally.set)
        front = pareto(found, max_changed)
        if not front:
            least = min(point.changed or 0.0 for point in found)
            raise AdacdError(
                f"No choice of settings changed at most {max_changed:.0%} of the neutral answers; "
                f"the least was {least:.0%}.",
                "Allow more with --max-changed, try more --trials, or --gate with another --output.",
            )
        from adacd_cli.evaluation.report.svg import draw_front

        store.write("front.svg", draw_front(found, front, judge))
        preset = store.write("preset.yaml", _preset(settings, best(front)))
    sys.stdout.write(_table(front, best(front), judge, sets))
    if not settings.quiet:
        note = f"Use the best one with --config {preset}; the picture is {folder / 'front.svg'}."
        Screen(sys.stderr, settings.display).put_line((note, DIM))


def _plan(settings: Settings, sets: dict[str, LoadedSet], judge: Judge, seed: int) -> dict[str, Any]:
    """What must be the same for a study to be continued."""
    values = settings.model_dump(mode="json")
    return {
        "tune": settings.effective_method,
        **{name: values[name] for name in (*_FIXED, "max_new_tokens")},
        **({name: values[name] for name in _SERVED} if settings.served else {}),
        "seed": seed,
        "files": {name: {"n": len(each.samples), "sha256": each.sha256} for name, each in sets.items()},
        "judge": {judge.name: dict(judge.facts)},
    }


def _table(front: Sequence[Point], chosen: Point, judge: str, sets: dict[str, LoadedSet]) -> str:
    from adacd_cli.evaluation.report.tables import percent, table
    from adacd_cli.evaluation.tune import TUNED

    header = ["", "α", "λ", "β", "k", "safe refused", "unsafe refused", "neutral changed"]
    rows = [
        [
            "best" if point == chosen else "",
            *(f"{point.values[name]:g}" for name in TUNED),
            *(percent(share) for share in (point.safe, point.unsafe, point.changed)),
        ]
        for point in front
    ]
    counts = ", ".join(f"{len(each.samples)} {name}" for name, each in sets.items())
    note = f"Judge: {judge}; {counts} prompts. No other trial beats one of these on both sides."
    return f"{table(header, rows)}\n\n{note}\n"


def _preset(settings: Settings, point: Point) -> str:
    import yaml

    given, usual = settings.model_dump(mode="json"), Settings().model_dump(mode="json")
    names = (*_FIXED, *_SERVED)
    kept = {name: given[name] for name in names if name == "model" or given[name] != usual[name]}
    values: dict[str, Any] = {**kept, "method": settings.effective_method, **point.values}
    changed = "" if point.changed is None else f", {point.changed:.1%} of neutral answers changed"
    head = (
        f"# adacd tune, trial {point.number}: {point.safe:.1%} of safe and {point.unsafe:.1%} of unsafe "
        f"prompts refused{changed}.\n"
    )
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
