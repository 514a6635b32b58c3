"""How a setting is declared: the types of `Settings`, and the `Setting` that is read back from a field of it, which
options, error texts, `config show` and the parser of texts go by."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, PlainSerializer, TypeAdapter
from pydantic.fields import FieldInfo

from adacd_cli.config.methods import METHODS

DEVICE_NAMES = ("auto", "cpu", "cuda", "cuda:N", "mps")
Kind = Literal["text", "number", "integer", "switch", "list", "size"]


@dataclass(frozen=True)
class Setting:
    """What a setting does, and how it appears on the command line."""

    panel: str  # heading of the help text that it is listed under
    sentence: str
    # the main one first; a switch is written `--on/--off`; none where only --set gives it
    flags: tuple[str, ...] = ()
    unit: str = ""
    choices: tuple[str, ...] = ()  # the values there are; empty where they are not a list of names
    name: str = ""
    kind: Kind = "text"
    nullable: bool = False
    default: Any = None
    range: str = ""  # e.g. `in [0, 1]` or `at least 0`; "" where there is none

    @property
    def flag(self) -> str:
        """Its main flag, e.g. `--alpha`; `--set NAME` where it has none of its own."""
        return self.flags[0].split("/")[0] if self.flags else f"--set {self.name}"

    @property
    def variable(self) -> str:
        return f"ADACD_{self.name.upper()}"

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names people know it by, from its long flags: `lambda` for `agreement_threshold`."""
        flags = [part for flag in self.flags for part in flag.split("/") if part.startswith("--")]
        names = [flag[2:].replace("-", "_") for flag in flags]
        return tuple(name for name in names if name != self.name)

    def parse(self, text: str) -> Any:
        """The value that a text means; `Settings` checks a size itself. Text stays as it is. A list is a JSON list
        of strings, or else one string; "" is the empty list. "", null and none are null where a setting may be null
        that is not free text: a number, a choice, or what a method has to load. ValueError where the text is not of
        the setting's kind."""
        plain = text.strip().lower()
        if self.kind == "list" and self.name != "stop" and plain == "none":  # a list that is not of texts
            return ()
        free = self.kind in ("text", "size") and not self.choices and self.name not in _RESOURCES
        if self.nullable and not free and plain in ("", "null", "none"):
            return None
        if self.kind != "list":
            return _PARSERS[self.kind].validate_strings(plain) if self.kind in _PARSERS else text
        try:
            return _TEXTS.validate_json(text)
        except ValueError:
            return (text,) if text else ()


_KINDS: dict[Any, Kind] = {bool: "switch", int: "integer", float: "number", tuple: "list", ByteSize: "size"}
_PARSERS: dict[Kind, TypeAdapter[Any]] = {_KINDS[kind]: TypeAdapter(kind) for kind in (bool, int, float)}
_TEXTS = TypeAdapter(tuple[str, ...])
_RESOURCES = {method.resource for method in METHODS.values()}


def declare(
    panel: str,
    default: Any,
    sentence: str,
    more: str = "",
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    flags: str | None = None,
) -> Any:
    """A field of `Settings`; its main flag is made of its name, and `more` are others, unless `flags` are given."""
    field = Field(default)
    texts = ("", *more.split()) if flags is None else tuple(flags.split())
    field.metadata.append(Setting(panel, sentence, texts, unit, choices))
    return field


def read(name: str, field: FieldInfo) -> Setting:
    """The setting of a declared field."""
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
    main = name.replace("_", "-")
    main = f"--{main}/--no-{main}" if kind == "switch" else f"--{main}"
    flags = tuple(flag or main for flag in declared.flags)
    read: dict[str, Any] = {"kind": kind, "nullable": nullable, "default": field.default, "range": bounds}
    return replace(declared, name=name, flags=flags, choices=choices, **read)


def _range(metadata: list[Any]) -> str:
    bounds = {type(bound).__name__: bound for bound in metadata}
    if not bounds.keys() & {"Gt", "Ge"}:
        return ""
    low, mark = (bounds["Gt"].gt, "(") if "Gt" in bounds else (bounds["Ge"].ge, "[")
    high = bounds["Le"].le if "Le" in bounds else None
    return f"at least {low}" if high is None else f"in {mark}{low}, {int(high) if high > 1 else high}]"


def _check_bias(value: str) -> str:
    token, _, bias = value.partition(":")
    if not (token.isascii() and token.isdecimal() and abs(float(bias)) <= 100):
        raise ValueError("not ID:BIAS")
    return value


_SIZE = re.compile(r"\d+(\.\d+)? ?([KMGT]i?B)?", re.IGNORECASE | re.ASCII)


def _check_size(value: object) -> object:
    # pydantic takes the beginning of a text such as `1 TB or so`
    if isinstance(value, str) and value != "auto" and not _SIZE.fullmatch(value):
        raise ValueError("no size")
    return None if value == "auto" else value


Text = Annotated[str, Field(min_length=1)]
MethodName = Annotated[str, Field(pattern=f"^({'|'.join(METHODS)})$")]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?|mps)$")]
Strength = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Mass = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Factor = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Biases = Annotated[tuple[Annotated[str, AfterValidator(_check_bias)], ...], Field(strict=False)]
TokenIds = Annotated[tuple[Annotated[int, Field(ge=0, strict=False)], ...], Field(strict=False)]
Texts = Annotated[tuple[Text, ...], Field(strict=False)]
Size = Annotated[
    Annotated[ByteSize, Field(ge=0)] | None,
    BeforeValidator(_check_size),
    PlainSerializer(lambda value: "auto" if value is None else int(value), when_used="json"),
]
"""A number of bytes, also as text such as 512MiB; `auto` is None."""
