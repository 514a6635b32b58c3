"""The object `adacd` of a request: settings for this answer alone, and what is reported about its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adacd_cli.config import SETTINGS, Settings, Source, change_all
from adacd_cli.config.methods import METHODS
from adacd_cli.errors import ConfigurationError
from adacd_cli.server.errors import ApiError, api_error, refused, unknown_field
from adacd_cli.server.schema import CHOSEN_AT_START, MAX_CANDIDATES, REQUEST_SETTINGS

_REPORTS = ("trace", "candidates")

_ROOT_NAMES = {
    name: name
    for name in ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream", "logprobs")
} | {"max_new_tokens": "max_tokens"}
"""The fields at the root of a request, by what they may be called here."""


def apply(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """The settings with those of the object, in the order of their declaration.

    Args:
        settings: the server's, which name what is loaded, with the fields at the request's root.
        given: the object.

    Raises:
        ApiError: 400, with the field.
    """
    for name in given:
        if name not in (*REQUEST_SETTINGS, *_REPORTS):
            raise _not_allowed(name)
    for name in [each for each in SETTINGS if each in given]:
        try:
            settings = change_all(settings, {name: given[name]}, Source("flag", "the request"))
        except ConfigurationError as error:
            raise api_error(error, f"adacd.{name}") from None
    method = METHODS[settings.effective_method]
    if method.resource and not method.stand_in and getattr(settings, method.resource) is None:
        flag = SETTINGS[method.resource].flag
        raise refused(
            f"Method {method.name} needs a {method.resource}, and the server was started without {flag}.",
            "adacd.method",
        )
    return settings


def unused(settings: Settings, given: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of the object that the method does not use, a sentence each."""
    method = METHODS[settings.effective_method]
    used = (*method.settings, method.window_setting, "method", "gate", "thinking", *_REPORTS)
    return tuple(f"Method {method.name} does not use `adacd.{name}`." for name in given if name not in used)


def reports(given: Mapping[str, Any]) -> tuple[bool, int]:
    """Whether the numbers of every token are reported, and how many candidates of each step.

    Raises:
        ApiError: 400.
    """
    trace, candidates = (given.get(name, default) for name, default in zip(_REPORTS, (False, 0), strict=True))
    if not isinstance(trace, bool):
        raise refused("`adacd.trace` must be true or false.", "adacd.trace")
    field = "adacd.candidates"
    if (
        isinstance(candidates, bool)
        or not isinstance(candidates, int)
        or not 0 <= candidates <= MAX_CANDIDATES
    ):
        raise refused(f"`{field}` must be a whole number from 0 to {MAX_CANDIDATES}.", field)
    if candidates and not trace:
        raise refused(f"`{field}` needs `adacd.trace`.", field)
    return trace, candidates


def _not_allowed(name: str) -> ApiError:
    field = f"adacd.{name}"
    if name in CHOSEN_AT_START:
        return refused(f"`{name}` is chosen when the server is started, not by a request.", field)
    if name in _ROOT_NAMES:
        message = f"`{_ROOT_NAMES[name]}` belongs at the root of the request, not in `adacd`."
        return refused(message, field, "unknown_field")
    aliases = {alias: known for known in REQUEST_SETTINGS for alias in SETTINGS[known].aliases}
    if name in aliases:
        message = f"There is no field `{field}`. Did you mean `{aliases[name]}`?"
        return refused(message, field, "unknown_field")
    return unknown_field(field, (*REQUEST_SETTINGS, *_REPORTS))
