"""The settings as command-line options, made from their declaration.

    @with_settings(omit=("display", "stats"))
    def command(resolved: Resolved, prompt: str | None = PROMPT) -> None:

The decorated function shows every setting's flags besides its own parameters, and `--config`, `--set` and
`--debug`; it is called with `resolved` filled in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

import typer

from adacd_cli.answers import BatchSize
from adacd_cli.config import SETTINGS, Setting, resolve
from adacd_cli.errors import UsageError

_METAVARS = {"text": "TEXT", "number": "NUMBER", "integer": "INTEGER", "list": "TEXT", "size": "SIZE"}


def option(metavar: str | None, text: str, *flags: str, default: Any = None, **facts: Any) -> Any:
    """An option of a command's own, called as its parameter where no flags are given; a switch has no metavar."""
    return typer.Option(default, *flags, metavar=metavar, help=text, **facts)


def switch(text: str, *flags: str, **facts: Any) -> Any:
    """An option without a value, off by default."""
    return option(None, text, *flags, default=False, **facts)


PROMPT_COLUMN = option("NAME", "Column of the prompts in a CSV or JSON file of yours.")
OUTPUT = option("FILE", "Write to a file instead of stdout.", "--output", "-o")
DEBUG = switch("Show the traceback of an error.", "--debug")


def batch_size_of(text: str) -> BatchSize:
    """The value of --batch-size; UsageError where it is neither `auto` nor a whole number of at least 1."""
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdecimal() and int(text) >= 1:
        return int(text)
    hint = "Try --batch-size auto, or a smaller number where memory runs out."
    raise UsageError(f"--batch-size takes a whole number, at least 1, or auto; got {text!r}.", hint)


def with_settings(
    *, omit: Sequence[str] = (), one_method: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the settings' options to a command that has a parameter `resolved: Resolved`, but for those that mean
    nothing to it, which still come from environment and file; `one_method`: whether the method that is given is the
    only one that the command decodes by."""
    shown = [setting for setting in SETTINGS.values() if setting.flags and setting.name not in omit]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def wrapper(*, config: str | None, assignments: list[str] | None, debug: bool, **values: Any) -> None:
            flags = {setting.name: values.pop(setting.name) for setting in shown}
            resolved = resolve(flags, config, assignments=assignments or (), one_method=one_method)
            function(resolved=resolved, **values)

        hints = get_type_hints(function)
        own = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(function).parameters.items()
            if name != "resolved"
        ]
        parameters = own + [_parameter(setting) for setting in shown] + _COMMON
        wrapper.__doc__ = function.__doc__
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        # typer also reads the annotations, which must be those of the signature
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def help_text(setting: Setting) -> str:
    """Sentence, choices or range, default: `Strength α of the contrast (in [0, 1000000]; default 4.5).`"""
    unit = "" if setting.unit in setting.sentence else setting.unit
    values = f"one of {', '.join(setting.choices)}" if setting.choices else setting.range
    default = "auto" if setting.kind == "size" else setting.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    given = "" if default in (None, ()) else f"default {default:{'g' if isinstance(default, float) else ''}}"
    shown = "; ".join(filter(None, (unit, values, given)))
    return f"{setting.sentence.rstrip('.')} ({shown})." if shown else setting.sentence


def _parameter(setting: Setting) -> inspect.Parameter:
    """Values stay text: `resolve` parses and checks them, so that every level's errors read alike."""
    annotation: Any = {"switch": bool, "list": list[str]}.get(setting.kind, str)
    choices = [choice for choice in setting.choices if choice != "cuda:N"]
    metavar = None if setting.kind == "switch" else "NAME" if choices else _METAVARS[setting.kind]
    facts = {"rich_help_panel": setting.panel, "autocompletion": (lambda: choices) if choices else None}
    default = option(metavar, help_text(setting), *setting.flags, **facts)
    return _keyword(setting.name, annotation | None, default)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_PANEL = {"rich_help_panel": "Settings"}
_CONFIG = option("FILE|PRESET", "Read settings from a YAML file or a preset.", "--config", "-C", **_PANEL)
_SET = option("NAME=VALUE", "Set any setting by name; repeatable.", "--set", **_PANEL)
_COMMON = [
    _keyword("config", str | None, _CONFIG),
    _keyword("assignments", list[str] | None, _SET),
    _keyword("debug", bool, switch("Show the traceback of an error.", "--debug", **_PANEL)),
]
