"""Settings changed by keywords, as the library takes them: a wrong one is named, and none is ignored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from adacd_cli.config.resolve import Source, change_all, find_setting
from adacd_cli.config.settings import Settings
from adacd_cli.errors import ConfigurationError

LOADING = ("Model",)
"""Panels of the settings that are read when a model is loaded."""

DECODING = ("Prompt", "Method", "Decoding")
"""Panels of the settings that are read for each answer."""

_REASONS = {
    "Model": ("the model is already loaded", "Give it to load()."),
    "Output": ("it is for the command line", "Leave it out."),
}
_LATER = "it is read for each answer", "Give it to generate(), or give Settings to both."


def changed(settings: Settings, changes: Mapping[str, Any], panels: Collection[str], where: str) -> Settings:
    """The settings with some of them changed.

    Args:
        settings: what the others are taken from.
        changes: values by setting name; one text stands for a list of one.
        panels: headings that the changes may be under.
        where: the function that takes them, for the error: `generate()`.

    Raises:
        ConfigurationError: a name is unknown or cannot be set here, or a value is of the wrong kind or out of
            its range.
    """
    if not isinstance(settings, Settings):
        raise ConfigurationError(
            f"{where} takes Settings; got {type(settings).__name__}.",
            "Give settings as keywords, or as Settings(…).",
        )
    for name in changes:
        panel = find_setting(name, where).option.panel
        if panel not in panels:
            reason, hint = _REASONS.get(panel, _LATER)
            raise ConfigurationError(f"`{name}` cannot be set in {where}: {reason}.", hint)
    return change_all(settings, changes, Source("flag", where)) if changes else settings
