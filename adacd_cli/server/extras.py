"""The object `adacd` of a request: settings of this answer alone, and what is told of its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adacd_cli.config import SETTINGS, Settings, Source, change_all
from adacd_cli.config.methods import METHODS
from adacd_cli.errors import ConfigurationError
from adacd_cli.server.errors import ApiError, of, refused, unknown

MOST_CANDIDATES = 20
EXTRAS = ("trace", "candidates")
ASKABLE = (
    *(
        setting.name
        for setting in SETTINGS.values()
        if setting.option.panel == "Method" and setting.name not in ("expert", "draft", "direction")
    ),
    "contrast_prompt",
    "contrast_placement",
    "thinking",
)
"""The settings that a request's `adacd` object may hold."""


_ROOT_NAMES = {
    name: name
    for name in ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream", "logprobs")
} | {"max_new_tokens": "max_tokens"}
"""What stands at the root of a request instead, by what it may be called here."""


def adacd_schema() -> dict[str, Any]:
    """The object in JSON Schema: the settings as they declare themselves."""
    known = Settings.model_json_schema()["properties"]
    properties = {
        name: {key: part for key, part in known[name].items() if key not in ("title", "default")}
        for name in ASKABLE
    }
    properties["method"]["enum"] = list(SETTINGS["method"].choices)
    properties["trace"] = {"type": "boolean", "description": "Tell every token's numbers."}
    properties["candidates"] = {
        "type": "integer",
        "minimum": 0,
        "maximum": MOST_CANDIDATES,
        "description": "With trace: how many of the most probable tokens each step tells.",
    }
    return {
        "anyOf": [
            {"type": "object", "properties": properties, "additionalProperties": False},
            {"type": "null"},
        ]
    }


def with_own(settings: Settings, extras: Mapping[str, Any]) -> Settings:
    """The settings with those of the object, in the order of their declaration.

    Args:
        settings: the server's, which name what is loaded, with the fields at the request's root.
        extras: the object.

    Raises:
        ApiError: 400, naming the field.
    """
    for name in extras:
        if name not in (*ASKABLE, *EXTRAS):
            raise _not_askable(name)
    for name in [each for each in SETTINGS if each in extras]:
        try:
            settings = change_all(settings, {name: extras[name]}, Source("flag", "the request"))
        except ConfigurationError as error:
            raise of(error, f"adacd.{name}") from None
    method = METHODS[settings.effective_method]
    if method.resource and not method.stand_in and getattr(settings, method.resource) is None:
        flag = SETTINGS[method.resource].flag
        raise refused(
            f"Method {method.name} needs a {method.resource}, and the server was started without {flag}.",
            "adacd.method",
        )
    return settings


def idle(settings: Settings, extras: Mapping[str, Any]) -> tuple[str, ...]:
    """What the object holds that the method has no use for, a sentence each."""
    method = METHODS[settings.effective_method]
    used = (*method.settings, method.window_setting, "method", "gate", "thinking", *EXTRAS)
    return tuple(
        f"`adacd.{name}` has no say under method {method.name}." for name in extras if name not in used
    )


def trace_of(extras: Mapping[str, Any]) -> bool:
    """Whether the numbers of every token are told.

    Raises:
        ApiError: 400.
    """
    value = extras.get("trace", False)
    if not isinstance(value, bool):
        raise refused("`adacd.trace` takes true or false.", "adacd.trace")
    return value


def candidates_of(extras: Mapping[str, Any], trace: bool) -> int:
    """How many of the most probable tokens a step tells.

    Raises:
        ApiError: 400.
    """
    value, field = extras.get("candidates", 0), "adacd.candidates"
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_CANDIDATES:
        raise refused(f"`{field}` is a whole number from 0 to {MOST_CANDIDATES}.", field)
    if value and not trace:
        raise refused(f"`{field}` is for a request with `adacd.trace`.", field)
    return value


def _not_askable(name: str) -> ApiError:
    field = f"adacd.{name}"
    if name in ("expert", "draft", "direction"):
        return refused(f"`{name}` is chosen when the server is started, not by a request.", field)
    if name in _ROOT_NAMES:
        told = f"`{_ROOT_NAMES[name]}` stands at the root of the request, not in `adacd`."
        return refused(told, field, "unknown_field")
    aliases = {alias: known for known in ASKABLE for alias in SETTINGS[known].aliases}
    if name in aliases:
        told = f"There is no field `{field}`. Did you mean `{aliases[name]}`?"
        return refused(told, field, "unknown_field")
    return unknown(name, field, (*ASKABLE, *EXTRAS))
