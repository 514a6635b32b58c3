"""The settings of a run under `generate`: the method's are ours, lengths and sampling are its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adacd_cli.config import SETTINGS, Settings
from adacd_cli.config.changes import changed
from adacd_cli.errors import ConfigurationError

_READ = ("Prompt", "Method")


def settings_of(
    settings: Settings | None,
    changes: Mapping[str, Any],
    new_tokens: int | None = None,
    where: str = "adacd()",
) -> Settings:
    """The settings with the changes that are not None.

    Args:
        settings: what the others are taken from; None for the defaults.
        changes: values by setting name.
        new_tokens: how many tokens the answer may get; None keeps the settings'.
        where: who was given them.

    Raises:
        ConfigurationError: a setting is out of its range, or is `generate`'s own to say.
    """
    base = changed(Settings() if settings is None else settings, {}, _READ, where)
    for name in sorted(base.model_fields_set):
        if SETTINGS[name].option.panel == "Decoding" and getattr(base, name) != SETTINGS[name].default:
            raise ConfigurationError(
                f"`{name}` of the settings has no say in transformers' generate.",
                f"Give generate its own: {_OWN.get(name, name)}.",
            )
    given = {name: value for name, value in changes.items() if value is not None}
    chosen = changed(base, given, _READ, where)
    # methods that contrast the whole answer take their window from here
    return chosen if new_tokens is None else chosen.model_copy(update={"max_new_tokens": new_tokens})


_OWN = {
    "temperature": "do_sample=True, temperature=…",
    "seed": "torch.manual_seed(…) before it",
    "stop": "a StopStringCriteria in stopping_criteria",
    "top_p": "do_sample=True, top_p=…",
    "top_k": "do_sample=True, top_k=…",
}
