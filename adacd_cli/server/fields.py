"""Kinds of fields that the request models are made of: those that may hold one thing only, texts or lists.

A field that OpenAI has and adacd has not is declared all the same: left at what does nothing it is accepted,
and everything else is refused with the reason, rather than as a field that nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Discriminator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

TEXT, LIST = "<text>", "<list>"
"""Tags of the kinds that a union tells apart; they stand in the places of errors, and are left out there."""


def refuse(reason: str) -> PydanticCustomError:
    """An error with a whole sentence as its message."""
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


@dataclass(frozen=True)
class NothingBut:
    """Marks a field that adacd has no use for: `Annotated[Any, NothingBut(reason, allowed)]`.

    Attributes:
        reason: why anything else is refused, one sentence.
        allowed: the values that ask for nothing, besides null.
    """

    reason: str
    allowed: tuple[Any, ...]

    def __init__(self, reason: str, *allowed: Any) -> None:
        object.__setattr__(self, "reason", reason)
        object.__setattr__(self, "allowed", allowed)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        told = f"Accepted for compatibility. {self.reason}"
        return {"enum": [None, *self.allowed], "description": told}

    def _check(self, value: Any) -> Any:
        if value is None or any(_same(value, each) for each in self.allowed):
            return value
        raise refuse(self.reason)


def _same(value: Any, allowed: Any) -> bool:
    if isinstance(value, bool) or isinstance(allowed, bool):
        return value is allowed
    return bool(value == allowed)


def _kind(value: Any) -> str:
    return LIST if isinstance(value, list) else TEXT


TEXT_OR_LIST = Discriminator(_kind)
"""Tells the members of `Annotated[str, Tag(TEXT)] | Annotated[list[…], Tag(LIST)]` apart."""


def place(location: Sequence[str | int]) -> str:
    """Where an error is, as one would write it: `messages[3].content`."""
    written = ""
    for part in location:
        if part in (TEXT, LIST):
            continue
        written += f"[{part}]" if isinstance(part, int) else f".{part}" if written else str(part)
    return written
