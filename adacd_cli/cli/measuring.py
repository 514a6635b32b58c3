"""What `eval`, `judge` and `bench` share: options, several methods in one run, and ready judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from adacd_cli.cli.options import BatchSize, batch_size_of, option
from adacd_cli.cli.running import warn
from adacd_cli.config import Resolved, Settings, change
from adacd_cli.config.methods import METHODS
from adacd_cli.errors import UsageError

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel
    from adacd_cli.evaluation.judges.base import Judge

PAPERS_PAIR = ("default", "adacd")
"""The methods where none is named."""

Methods = Annotated[
    list[str] | None,
    option("NAME", "A decoding method; repeatable (default: default and adacd).", "--method"),
]
AtOnce = Annotated[str, option("N|auto", "Prompts decoded at once; auto is as many as memory has room for.")]
Concurrency = Annotated[
    int | None,
    option("N", "With a model at a server: answers asked for at once, in place of --batch-size.", min=1),
]
JudgeName = Annotated[str, option("NAME", "keyword, wildguard, minos or openai; NAME=MODEL.")]
JudgeUrl = Annotated[str | None, option("URL", "Judge openai: the endpoint, e.g. http://host:8000/v1.")]
JudgeModel = Annotated[str | None, option("NAME", "Judge openai: the endpoint's model.")]
JudgeCache = Annotated[
    str | None, option("DIR", "Judge openai: where its replies are kept (default: yours).")
]
JudgeDevice = Annotated[
    str | None, option("NAME", "Judges wildguard and minos: where they run (default: as --device).")
]
Aspects = Annotated[bool, option(None, "Judge openai: rate Just-Eval's five aspects as well.", "--aspects")]


def at_once_of(batch_size: str, concurrency: int | None, *, served: bool) -> BatchSize:
    """How many prompts are answered at once, by whichever of the two options is given; UsageError where both are,
    or the model is no server's, or --batch-size cannot be read."""
    if concurrency is None:
        return batch_size_of(batch_size)
    if not served:
        raise UsageError(
            "--concurrency is for a model at a server.", "Use --batch-size for one that is here."
        )
    if batch_size != "auto":
        raise UsageError("--batch-size and --concurrency say the same.", "Leave one of them out.")
    return concurrency


def method_runs(resolved: Resolved, base: Settings, methods: Sequence[str], *, done: str) -> list[Settings]:
    """The settings of each method; default first, because the others are compared with it.

    Args:
        base: what is the same for all methods.
        done: what the command does with them, for messages: `evaluated`.

    Raises:
        ConfigurationError: there is no such method, or it lacks what has to be loaded for it.
        UsageError: a method is named twice, or the command line gives what none of them uses.
    """
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
            raise UsageError(
                f"`{owner.resource}` is for method {owner.name}, which is not {done}.",
                f"Add --method {owner.name}, or leave it out.",
            )
    return sorted(runs.values(), key=lambda settings: settings.method != "default")


def load_all_extras(model: LanguageModel, runs: Sequence[Settings]) -> LanguageModel:
    """The model with everything that the runs' methods need, as `loading.load_extras`; shows its warnings."""
    from adacd_cli.loading.extras import load_extras
    from adacd_cli.profiles.profile import applied

    for settings in runs:
        applied(settings, model.profile)  # refuses a method that lacks its profile
        before = len(model.warnings)
        model = load_extras(model, settings)
        warn(model.warnings[before:], settings)
    return model


def make_judges(
    names: Sequence[str],
    settings: Settings,
    *,
    url: str | None = None,
    model: str | None = None,
    cache: str | None = None,
    device: str | None = None,
    aspects: bool = False,
) -> list[Judge]:
    """The judges of these names, each asked whether it can judge, so that hours of decoding are not lost.

    Args:
        settings: device, threads and offline of judges that are models; `quiet`.
        device: of judges that are models; None is the settings'.
        url, model, cache, aspects: of judge openai.

    Raises:
        UsageError: a name is unknown or given twice, or an option is missing.
        EnvironmentFault: a judge cannot be had, or is down.
    """
    from adacd_cli.evaluation.judges.base import JudgeOptions
    from adacd_cli.evaluation.judges.registry import make_judge

    if len(set(names)) < len(names):
        raise UsageError("A judge is named twice.", "Leave one of them out.")
    if aspects and not any(name.partition("=")[0] == "openai" for name in names):
        raise UsageError("--aspects is for judge openai, which is not asked.", "Add --judge openai.")
    own: dict[str, Any] = {"url": url, "model": model, "aspects": aspects}
    own |= {} if cache is None else {"cache": Path(cache).expanduser()}
    options = JudgeOptions(
        device=device or settings.device, threads=settings.threads, offline=settings.offline, **own
    )
    judges = [make_judge(name, options) for name in names]
    for judge in judges:
        judge.check()
        warn(getattr(judge, "warnings", ()), settings)
    return judges
