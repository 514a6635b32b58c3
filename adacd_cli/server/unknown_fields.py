"""Fields of a request that nobody declared: which of them ask for something, to be named in the warnings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from adacd_cli.server.schema import CommonRequest

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": (True, False),
    "cache_prompt": (True, False),
    "echo": (False,),
    "include_obfuscation": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "parallel_tool_calls": (True, False),
    "priority": (0,),
    "return_token_ids": (False,),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "store": (False,),
    "typical_p": (1,),
    "verbosity": ("medium",),
}
"""Values of fields that are not declared which ask for nothing, as null does of any."""

_OF_MESSAGES = frozenset(
    (
        *("annotations", "cache_control", "citations", "created", "created_at", "id", "index", "metadata"),
        *("model", "object", "parsed", "prefix", "provider_specific_fields", "reasoning_details"),
        *("signature", "status", "timestamp", "type", "updated_at", "usage"),
    )
)
"""What clients store with messages, and their parts and calls; nothing of it is for the model."""


def unknown_fields(body: CommonRequest) -> dict[str, str]:
    """The fields that ask for something and are not declared: the first place of each name, by name."""
    found: dict[str, str] = {}

    def note(model: BaseModel, place: str, silent: frozenset[str] = frozenset()) -> None:
        for name, value in (model.model_extra or {}).items():
            if value is not None and name not in silent and value not in NEUTRAL.get(name, ()):
                found.setdefault(name, f"{place}{name}")

    note(body, "")
    if body.stream_options is not None:
        note(body.stream_options, "stream_options.")
    declared = "messages" in type(body).model_fields
    for number, message in enumerate(getattr(body, "messages", ()) if declared else ()):
        note(message, f"messages[{number}].", _OF_MESSAGES)
        for place, part in enumerate(message.content if isinstance(message.content, list) else ()):
            note(part, f"messages[{number}].content[{place}].", _OF_MESSAGES)
    return found
