"""Reads the declaration of `Settings` back: a `Setting` for each field, with its range and parser of text.

Nothing is declared here; options, error texts, `config show` and the tests of configs/default.yaml read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ByteSize, TypeAdapter
from pydantic.fields import FieldInfo

from adacd_cli.config.methods import METHODS
from adacd_cli.config.settings import Option, Settings

Kind = Literal["text", "number", "integer", "switch", "list", "size"]

_KINDS: dict[Any, Kind] = {bool: "switch", int: "integer", float: "number", tuple: "list", ByteSize: "size"}
_PARSERS: dict[Kind, TypeAdapter[Any]] = {
    "switch": TypeAdapter(bool),
    "integer": TypeAdapter(int),
    "number": TypeAdapter(float),
}
TAKES: dict[Kind, str] = {
    "text": "takes text",
    "number": "takes a number",
    "integer": "takes a whole number",
    "switch": "takes true or false",
    "list": "takes a list of texts",
    "size": "takes auto, 0, or a size such as 512MiB or 2GiB",
}
_TEXTS = TypeAdapter(tuple[str, ...])
_NULL = ("", "null", "none")
_RESOURCES = {method.resource for method in METHODS.values()}


@dataclass(frozen=True)
class Setting:
    """One setting as it was declared.

    Attributes:
        name: its name in Python and YAML; ADACD_NAME in the environment.
        kind: what its value is.
        nullable: whether null is a value of it.
        default: the value when nobody gives one.
        range: its range, e.g. `in [0, 1]` or `at least 0`; "" where there is none.
        choices: the values there are; empty where they are not a list of names.
        option: panel, sentence, flags and unit.
    """

    name: str
    kind: Kind
    nullable: bool
    default: Any
    range: str
    choices: tuple[str, ...]
    option: Option

    @property
    def sentence(self) -> str:
        """What it does."""
        return self.option.sentence

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
        flags = self.option.flags.replace("/", " ").split()
        names = [flag[2:].replace("-", "_") for flag in flags if flag.startswith("--")]
        return tuple(name for name in names if name != self.name)

    def parse(self, text: str) -> Any:
        """The value that `text` means here; `Settings` checks a size itself.

        Text stays as it is. A list is a JSON list of strings, or else one string; "" is the empty list.
        "", null and none are null where a setting may be null that is not free text: a number, a choice, or
        what a method has to load.

        Raises:
            ValueError: the text is not of this kind.
        """
        plain = text.strip().lower()
        free = self.kind in ("text", "size") and not self.choices and self.name not in _RESOURCES
        if self.nullable and not free and plain in _NULL:
            return None
        if self.kind == "list":
            return _parse_list(text)
        return _PARSERS[self.kind].validate_strings(plain) if self.kind in _PARSERS else text


def _parse_list(text: str) -> tuple[str, ...]:
    try:
        return _TEXTS.validate_json(text)
    except ValueError:
        return (text,) if text else ()


def _range(metadata: list[Any]) -> str:
    bounds = {type(bound).__name__: bound for bound in metadata}
    if not bounds.keys() & {"Gt", "Ge"}:
        return ""
    low, mark = (bounds["Gt"].gt, "(") if "Gt" in bounds else (bounds["Ge"].ge, "[")
    high = bounds["Le"].le if "Le" in bounds else None
    return f"at least {low}" if high is None else f"in {mark}{low}, {int(high) if high > 1 else high}]"


def _read(name: str, field: FieldInfo) -> Setting:
    annotation, metadata, nullable = field.annotation, list(field.metadata), False
    if get_origin(annotation) in (Union, UnionType):  # X | None
        annotation, nullable = get_args(annotation)[0], True
    if get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        metadata += [bound for each in inner for bound in each.metadata]
    option = next(item for item in metadata if isinstance(item, Option))
    kind = _KINDS.get(get_origin(annotation) or annotation, "text")
    choices = get_args(annotation) if get_origin(annotation) is Literal else option.choices
    bounds = "" if kind == "size" else _range(metadata)
    return Setting(name, kind, nullable, field.default, bounds, choices, option)


SETTINGS: dict[str, Setting] = {name: _read(name, field) for name, field in Settings.model_fields.items()}
"""Every setting by name, in the order of its declaration."""
