"""What the commands that measure share: options, several methods in one run, prompts, and ready judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli.cli.options import option, switch
from adacd_cli.cli.running import warn, with_extras
from adacd_cli.config import Resolved, Settings, change
from adacd_cli.config.methods import METHODS
from adacd_cli.errors import UsageError
from adacd_cli.evaluation.datasets.files import Columns
from adacd_cli.evaluation.datasets.load import load_samples
from adacd_cli.evaluation.judges.base import Judge, JudgeOptions
from adacd_cli.evaluation.judges.registry import make_judge

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel

PAPERS_PAIR = ("default", "adacd")  # the methods where none is named

METHOD = option("NAME", "A decoding method; repeatable (default: default and adacd).", "--method")
JUDGE_URL = option("URL", "Judge openai: the endpoint, e.g. http://host:8000/v1.")
JUDGE_MODEL = option("NAME", "Judge openai: the endpoint's model.")
JUDGE_CACHE = option("DIR", "Judge openai: where its replies are kept (default: yours).")
ASPECTS = switch("Judge openai: rate Just-Eval's five aspects as well.", "--aspects")


def method_runs(resolved: Resolved, base: Settings, methods: Sequence[str], *, done: str) -> list[Settings]:
    """The settings of each method, of which BASE is what is the same for all; default first, because the others are
    compared with it. DONE says for messages what the command does with them. ConfigurationError where there is no
    such method, or it lacks what has to be loaded; UsageError where one is named twice, or an option is for none of
    them."""
    runs: dict[str, Settings] = {}
    for name in methods:
        settings = change(base, "method", name, "--method").model_copy(update={"gate": False})
        if settings.method_label in runs:
            raise UsageError(f"Method {name} is named twice.", "Leave one of them out.")
        runs[settings.method_label] = settings
    used = [settings.effective_method for settings in runs.values()]
    for owner in METHODS.values():
        given = owner.resource and resolved.sources[owner.resource].kind == "flag"
        if given and getattr(base, owner.resource) is not None and owner.name not in used:
            hint = f"Add --method {owner.name}, or leave it out."
            raise UsageError(f"`{owner.resource}` is for method {owner.name}, which is not {done}.", hint)
    return sorted(runs.values(), key=lambda settings: settings.method != "default")


def load_all_extras(model: LanguageModel, runs: Sequence[Settings]) -> LanguageModel:
    """The model with everything that the runs' methods need; ConfigurationError where one lacks its profile."""
    from adacd_cli.profiles.store import applied

    for settings in runs:
        applied(settings, model.profile)
    return with_extras(model, runs[0], [settings.effective_method for settings in runs])


def read_kind(file: str, label: str, settings: Settings, column: str | None = None) -> list[str]:
    """The prompts of a file, all safe or all unsafe; shows what `load_samples` notes, and raises its errors."""
    own: dict[str, Any] = {"label": label, "columns": Columns(column)}
    (loaded,) = load_samples([file], data=None, limit=None, seed=0, offline=True, **own)
    warn(loaded.notes, settings)
    return [sample.prompt for sample in loaded.samples]


def make_judges(
    names: Sequence[str], settings: Settings, *, cache: str | None, device: str | None = None, **own: Any
) -> list[Judge]:
    """The judges of these names, each asked whether it can judge, so that hours of decoding are not lost. `cache`
    and OWN (url, model, aspects) are of judge openai, `device` and the settings of those that are models.
    UsageError where a name is unknown or given twice, or an option is missing; EnvironmentFault where a judge
    cannot be had."""
    if len(set(names)) < len(names):
        raise UsageError("A judge is named twice.", "Leave one of them out.")
    if own["aspects"] and not any(name.partition("=")[0] == "openai" for name in names):
        raise UsageError("--aspects is for judge openai, which is not asked.", "Add --judge openai.")
    if cache is not None:
        own["cache"] = Path(cache).expanduser()
    options = JudgeOptions(
        device=device or settings.device, threads=settings.threads, offline=settings.offline, **own
    )
    judges = [make_judge(name, options) for name in names]
    for judge in judges:
        judge.check()
        warn(getattr(judge, "warnings", ()), settings)
    return judges
