"""Reads the declaration of `Settings` back: a `Setting` for each field, with its range and parser of text.

Nothing is declared here; options, error texts, `config show` and the tests of configs/default.yaml ask here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from adacd_cli.config.methods import METHODS
from adacd_cli.config.settings import Option, Settings

Kind = Literal["text", "number", "integer", "switch", "list"]

_SWITCH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_NULL = ("", "null", "none")
_RESOURCES = {method.resource for method in METHODS.values()}
_TAKES = {
    "text": "takes text",
    "number": "takes a number",
    "integer": "takes a whole number",
    "switch": "takes true or false",
    "list": "takes a list of texts",
}


@dataclass(frozen=True)
class Setting:
    """One setting as it was declared.

    Attributes:
        name: its name in Python and YAML; ADACD_NAME in the environment.
        kind: what its value is.
        nullable: whether null is a value of it.
        default: the value when nobody gives one.
        sentence: what it does.
        range: its range, e.g. `in [0, 1]` or `at least 0`; "" where there is none.
        option: flags, unit and choices.
    """

    name: str
    kind: Kind
    nullable: bool
    default: Any
    sentence: str
    range: str
    option: Option

    @property
    def flag(self) -> str:
        """Its main flag, e.g. `--alpha`; `--set NAME` where it has none of its own."""
        return self.option.names[0].split("/")[0] if self.option.names else f"--set {self.name}"

    @property
    def variable(self) -> str:
        """Its environment variable, e.g. `ADACD_ALPHA`."""
        return f"ADACD_{self.name.upper()}"

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names people know it by, from its long flags: `lambda` for `agreement_threshold`."""
        flags = [flag for name in self.option.names for flag in name.split("/") if flag.startswith("--")]
        names = [flag[2:].replace("-", "_") for flag in flags]
        return tuple(name for name in names if name != self.name)

    @property
    def takes(self) -> str:
        """What it takes, for an error: `takes a number`."""
        return _TAKES[self.kind]

    def parse(self, text: str) -> Any:
        """The value that `text` means here.

        Text stays as it is, "" included. A list is a JSON list of strings, or else one string; "" is the
        empty list. "", null and none are null where a setting may be null that is not free text: a number,
        a choice, or what a method has to load.

        Raises:
            ValueError: the text is not of this kind.
        """
        plain = text.strip().lower()
        free = self.kind == "text" and not self.option.choices and self.name not in _RESOURCES
        if self.nullable and not free and plain in _NULL:
            return None
        if self.kind == "text":
            return text
        if self.kind == "list":
            return _parse_list(text)
        if self.kind == "switch":
            if plain not in _SWITCH:
                raise ValueError(text)
            return _SWITCH[plain]
        return int(text) if self.kind == "integer" else float(text)


def _parse_list(text: str) -> tuple[str, ...]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return tuple(values)
    return (text,) if text else ()


def _kind(annotation: Any) -> Kind:
    for kind, base in (("switch", bool), ("integer", int), ("number", float)):
        if annotation is base:
            return kind  # type: ignore[return-value]
    return "list" if get_origin(annotation) is tuple else "text"


def _number(value: float) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _range(field: FieldInfo) -> str:
    bounds = {type(bound).__name__: bound for bound in field.metadata}
    if "Gt" in bounds:
        low = f"({_number(bounds['Gt'].gt)}"
    elif "Ge" in bounds:
        low = f"[{_number(bounds['Ge'].ge)}"
    else:
        return ""
    if "Le" not in bounds:
        return f"at least {low[1:]}"
    return f"in {low}, {_number(bounds['Le'].le)}]"


def _read(name: str, field: FieldInfo) -> Setting:
    parts = [part for part in get_args(field.annotation) if part is not type(None)]
    nullable = type(None) in get_args(field.annotation)
    annotation = parts[0] if nullable else field.annotation
    option = next(item for item in field.metadata if isinstance(item, Option))
    sentence = field.description or ""
    return Setting(name, _kind(annotation), nullable, field.default, sentence, _range(field), option)


SETTINGS: dict[str, Setting] = {name: _read(name, field) for name, field in Settings.model_fields.items()}
"""Every setting by name, in the order of its declaration."""
