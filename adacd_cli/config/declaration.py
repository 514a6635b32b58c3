"""Reads the declaration of `Settings` back: a complete `Setting` for each field, and the parser of its texts.

Nothing is declared here; options, error texts, `config show` and the tests of configs/default.yaml read it.
"""

from __future__ import annotations

from dataclasses import replace
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ByteSize, TypeAdapter
from pydantic.fields import FieldInfo

from adacd_cli.config.methods import METHODS
from adacd_cli.config.settings import Kind, Setting, Settings

_KINDS: dict[Any, Kind] = {bool: "switch", int: "integer", float: "number", tuple: "list", ByteSize: "size"}
_PARSERS: dict[Kind, TypeAdapter[Any]] = {
    "switch": TypeAdapter(bool),
    "integer": TypeAdapter(int),
    "number": TypeAdapter(float),
}
_TEXTS = TypeAdapter(tuple[str, ...])
_RESOURCES = {method.resource for method in METHODS.values()}


def parse(setting: Setting, text: str) -> Any:
    """The value that `text` means as this setting; `Settings` checks a size itself.

    Text stays as it is. A list is a JSON list of strings, or else one string; "" is the empty list, and so is
    none for a list that is not of texts.
    "", null and none are null where a setting may be null that is not free text: a number, a choice, or
    what a method has to load. ValueError where the text is not of the setting's kind.
    """
    plain, kind = text.strip().lower(), setting.kind
    free = kind in ("text", "size") and not setting.choices and setting.name not in _RESOURCES
    if setting.nullable and not free and plain in ("", "null", "none"):
        return None
    if kind == "list" and setting.name != "stop" and plain == "none":
        return ()
    if kind != "list":
        return _PARSERS[kind].validate_strings(plain) if kind in _PARSERS else text
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
    declared = next(item for item in metadata if isinstance(item, Setting))
    kind = _KINDS.get(get_origin(annotation) or annotation, "text")
    choices = get_args(annotation) if get_origin(annotation) is Literal else declared.choices
    bounds = "" if kind == "size" else _range(metadata)
    read: dict[str, Any] = {"kind": kind, "nullable": nullable, "default": field.default, "range": bounds}
    return replace(declared, name=name, choices=choices, **read)


SETTINGS: dict[str, Setting] = {name: _read(name, field) for name, field in Settings.model_fields.items()}
"""Every setting by name, in the order of its declaration."""
