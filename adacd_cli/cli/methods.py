"""What the commands that run several methods share: `--method`, repeatable, and what each method needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from adacd_cli.cli.running import warn
from adacd_cli.config import Resolved, Settings, change
from adacd_cli.config.methods import METHODS
from adacd_cli.errors import UsageError

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel

PAPERS_PAIR = ("default", "adacd")
"""The methods where none is named."""

MethodsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method", metavar="NAME", help="A decoding method; repeatable (default: default and adacd)."
    ),
]


def method_runs(resolved: Resolved, base: Settings, methods: Sequence[str], *, done: str) -> list[Settings]:
    """The settings of each method; default first, because the others are compared with it.

    Args:
        resolved: where the settings came from.
        base: what is the same for all methods.
        methods: names.
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

    for settings in runs:
        before = len(model.warnings)
        model = load_extras(model, settings)
        warn(model.warnings[before:], settings)
    return model
