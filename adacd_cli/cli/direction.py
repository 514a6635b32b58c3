"""`adacd direction build`: finds the direction of false refusal that method surgical removes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from adacd_cli.cli.measuring import Tally, prompts_of
from adacd_cli.cli.options import option, with_settings
from adacd_cli.cli.running import load_model, refuse_served, warn
from adacd_cli.config import SETTINGS, Resolved, Settings
from adacd_cli.errors import UsageError
from adacd_cli.evaluation.direction import Progress, Recipe, find_direction
from adacd_cli.loading.extras import DirectionCard, prepare_folder, write_direction

_DECODING = (
    *(name for name, setting in SETTINGS.items() if setting.panel in ("Method", "Decoding")),
    *("contrast_prompt", "contrast_placement", "stats", "served_model", "tokenizer"),
)
"""Settings of how an answer is decoded: a direction is found in the prompts alone."""


@with_settings(omit=_DECODING)
def direction(
    resolved: Resolved,
    harmful: str | None = option("FILE", "Prompts that are to be refused."),
    harmless: str | None = option("FILE", "Ordinary prompts."),
    pseudo_harmful: str | None = option("FILE", "Harmless prompts that look harmful."),
    output: str | None = option("DIR", "Folder for the direction.", "--output", "-o"),
    kl: float = option("NATS", "How far harmless answers may move (default 0.2).", default=0.2, min=0),
    mu: float = option(
        "NUMBER", "How much of harm itself is spared (default 1).", default=1.0, min=0, max=100
    ),
    train: int = option("N", "Prompts of each kind to learn from.", default=128, min=1),
    validation: int = option("N", "Prompts of each kind to choose with.", default=32, min=1),
    seed: int = option("N", "Seed of the split.", default=0, min=0),
) -> None:
    """Find the direction of false refusal in a model; `--method surgical --direction DIR` removes it."""
    files = {"harmful": harmful, "harmless": harmless, "pseudo_harmful": pseudo_harmful}
    for kind, file in files.items():
        if file is None:
            flag = f"--{kind.replace('_', '-')}"
            raise UsageError(f"{flag} is missing.", f"Name a file with one prompt a line: {flag} FILE.")
    if output is None:
        raise UsageError("No folder for the direction is named.", "Name one with --output.")
    settings = resolved.settings.model_copy(update={"method": "default", "gate": False})
    refuse_served(settings, "direction build", "it reads the model's hidden states")
    if settings.engine == "auto":  # llama.cpp gives no hidden states
        settings = settings.model_copy(update={"engine": "torch"})
    prompts = {
        kind: prompts_of(str(file), "unsafe" if kind == "harmful" else "safe", settings)
        for kind, file in files.items()
    }
    folder = Path(output).expanduser()
    prepare_folder(folder)
    model = load_model(settings)
    recipe = Recipe(train, validation, kl, mu, seed, system=settings.system, thinking=settings.thinking)
    with _tallies(settings) as progress:
        best, before, tried, used, warnings = find_direction(model, prompts, recipe, progress=progress)
    warn(warnings, settings)
    facts: dict[str, Any] = {
        "kl": best.kl,
        "refusal_score": best.score,
        "refusal_score_before": before,
        "candidates": tried,
        "prompts_used": used,
        **{name: getattr(recipe, name) for name in ("mu", "seed", "system", "thinking")},
    }
    card = DirectionCard(model.name, model.revision, best.layer, best.position, best.vector.numel(), facts)
    write_direction(folder, best.vector, card)
    sys.stdout.write(
        f"Layer {best.layer}, position {best.position}, of {tried} directions.\n"
        f"Refusal score of pseudo-harmful prompts: {before:+.2f}, without it {best.score:+.2f}.\n"
        f"Mean KL on harmless prompts: {best.kl:.3f} nats.\n"
        f"Written to {folder}; use it with --method surgical --direction {folder}\n"
    )


@contextmanager
def _tallies(settings: Settings) -> Iterator[Progress]:
    with ExitStack() as shown:
        tallies: dict[str, Tally] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tallies:
                shown.close()
                unit = "prompts" if "prompts" in what else "directions"
                tallies[what] = shown.enter_context(Tally(what, total, unit, settings))
            tallies[what].set(done)

        yield progress
