"""The kinds of fields: unions of JSON types, fields that are refused unless they ask for nothing, and those that
nobody declared, of which the ones that ask for something are named in the warnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, GetCoreSchemaHandler, Tag
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

JSON = dict[str, Any]

TAGS = ("<text>", "<list>", "<lists>", "<object>", "<switch>")
"""Tags of the members of a union; they appear in the locations of errors, and are left out when shown."""


def _text_or(kind: type, tag: str) -> Discriminator:
    return Discriminator(lambda value: tag if isinstance(value, kind) else "<text>")


Text = Annotated[str, Tag("<text>")]
TextOrList = _text_or(list, "<list>")
TextOrObject = Annotated[Text | Annotated[dict[str, Any], Tag("<object>")], _text_or(dict, "<object>")]
TextOrSwitch = Annotated[Text | Annotated[bool, Tag("<switch>")], _text_or(bool, "<switch>")]
TextOrObjects = Annotated[Text | Annotated[list[dict[str, Any]], Tag("<list>")], TextOrList]
"""What other formats have in place of a text: a list of blocks, items or parts."""


def is_one_of(value: Any, neutral: Iterable[Any]) -> bool:
    """Whether a value is among these that ask for nothing; true is not 1."""
    return any(value == each and isinstance(value, bool) is isinstance(each, bool) for each in neutral)


def unsupported(reason: str) -> PydanticCustomError:
    """An error with a whole sentence as its message."""
    return PydanticCustomError("unsupported", "{reason}", {"reason": reason})


class Unsupported:
    """Marks a field that adacd does not support: `Annotated[Any, Unsupported(reason, *allowed)]`. `reason` is a
    sentence; the values `allowed`, and null, ask for nothing."""

    def __init__(self, reason: str, *allowed: Any) -> None:
        self.reason, self.allowed = reason, allowed

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"enum": [None, *self.allowed], "description": f"Accepted for compatibility. {self.reason}"}

    def _check(self, value: Any) -> Any:
        if not is_one_of(value, (None, *self.allowed)):
            raise unsupported(self.reason)
        return value


class OpenBody(BaseModel):
    """A body, or a part of one, whose other fields are kept as well."""

    model_config = ConfigDict(extra="allow", strict=True)


_ASK_NOTHING: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("container context_management height include max_tool_calls mcp_servers moderation prediction", ()),
    ("steps width", ()),
    ("add_special_tokens cache_prompt eager_input_streaming include_usage", (True, False)),
    ("parallel_tool_calls", (True, False)),
    ("defer_loading echo include_obfuscation include_stop_str_in_output is_error logprobs", (False,)),
    ("return_token_ids shift store strict truncate", (False,)),
    ("penalize_newline skip_special_tokens spaces_between_special_tokens", (True,)),
    ("mirostat priority top_logprobs", (0,)),
    ("best_of length_penalty n tfs_z typical_p", (1,)),
    ("repeat_last_n", (-1,)),
    ("mode speed", ("standard",)),
    ("context", ("auto",)),
    ("display", ("summarized",)),
    ("service_tier", ("auto", "default", "standard_only")),
    ("truncation", ("disabled",)),
    ("verbosity", ("medium",)),
    ("allowed_callers", (["direct"],)),
    ("caller", ({"type": "direct"},)),
    ("prompt_cache_options", ({"mode": "implicit"},)),
)
NEUTRAL = {name: values for names, values in _ASK_NOTHING for name in names.split()}
"""Fields that are known and not supported, with their values which ask for nothing, as null and what is empty do
of any."""

_STORED = (
    "annotations cache_control citations created created_at id index metadata model object parsed prefix "
    "prompt_cache_breakpoint provider_specific_fields reasoning_details signature status stop_details stop_reason "
    "stop_sequence timestamp type updated_at usage"
)
_OF_MESSAGES = frozenset(_STORED.split())
"""What clients store with messages, and their parts and calls; nothing of it is for the model."""


def unknown_fields(body: BaseModel, unused: Mapping[str, Any]) -> dict[str, str]:
    """The fields that ask for something and are not declared, or `unused` in a translation, by their paths: the
    first place of each name."""
    found: dict[str, str] = {}
    undeclared = [(name, name, value) for name, value in (body.model_extra or {}).items()]
    for place in ("stream_options", "messages"):
        undeclared += _undeclared(getattr(body, place, None), place)
    undeclared += [(path.rpartition(".")[2], path, value) for path, value in unused.items()]
    for name, path, value in undeclared:
        stored = "[" in path and name in _OF_MESSAGES
        if not (stored or is_one_of(value, (None, "", [], {}, *NEUTRAL.get(name, ())))):
            found.setdefault(name, path)
    return found


def _undeclared(value: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """Names, paths and values of what is not declared in the models that a field holds."""
    if isinstance(value, list):
        for place, each in enumerate(value):
            yield from _undeclared(each, f"{path}[{place}]")
    elif isinstance(value, BaseModel):
        for name, extra in (value.model_extra or {}).items():
            yield name, f"{path}.{name}", extra
        for name, each in value:
            if isinstance(each, (list, BaseModel)):
                yield from _undeclared(each, f"{path}.{name}")
