"""Fields of a request that nobody declared: which of them ask for something, to be named in the warnings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from adacd_cli.server.schema import CommonRequest

_EITHER = (True, False)
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": _EITHER,
    "allowed_callers": (["direct"],),
    "best_of": (1,),
    "cache_prompt": _EITHER,
    "caller": ({"type": "direct"},),
    "container": (),
    "context": ("auto",),
    "context_management": (),
    "defer_loading": (False,),
    "eager_input_streaming": _EITHER,
    "display": ("summarized",),
    "echo": (False,),
    "height": (),
    "include": (),
    "include_obfuscation": (False,),
    "include_stop_str_in_output": (False,),
    "include_usage": _EITHER,
    "is_error": (False,),
    "length_penalty": (1,),
    "logprobs": (False,),
    "max_tool_calls": (),
    "mcp_servers": (),
    "mirostat": (0,),
    "mode": ("standard",),
    "moderation": (),
    "n": (1,),
    "parallel_tool_calls": _EITHER,
    "penalize_newline": (True,),
    "prediction": (),
    "priority": (0,),
    "prompt_cache_options": ({"mode": "implicit"},),
    "repeat_last_n": (-1,),
    "return_token_ids": (False,),
    "service_tier": ("auto", "default", "standard_only"),
    "shift": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "speed": ("standard",),
    "steps": (),
    "store": (False,),
    "strict": (False,),
    "tfs_z": (1,),
    "top_logprobs": (0,),
    "truncate": (False,),
    "truncation": ("disabled",),
    "typical_p": (1,),
    "verbosity": ("medium",),
    "width": (),
}
"""Fields that are known and not supported, with their values which ask for nothing, as null and what is empty do
of any."""

_NOTHING: tuple[Any, ...] = (None, "", [], {})

_OF_MESSAGES = frozenset(
    (
        *("annotations", "cache_control", "citations", "created", "created_at", "id", "index", "metadata"),
        *("model", "object", "parsed", "prefix", "prompt_cache_breakpoint", "provider_specific_fields"),
        *(
            "reasoning_details",
            "signature",
            "status",
            "stop_details",
            "stop_reason",
            "stop_sequence",
            "timestamp",
            "type",
        ),
        *("updated_at", "usage"),
    )
)
"""What clients store with messages, and their parts and calls; nothing of it is for the model."""


def unknown_fields(body: CommonRequest) -> dict[str, str]:
    """The fields that ask for something and are not declared, or not translated: the first place of each name."""
    found: dict[str, str] = {}

    def note(name: str, value: Any, path: str) -> None:
        neutral = (*_NOTHING, *NEUTRAL.get(name, ()))
        if not any(value == each and isinstance(value, bool) is isinstance(each, bool) for each in neutral):
            found.setdefault(name, path)

    def note_all(model: BaseModel, place: str, silent: frozenset[str] = frozenset()) -> None:
        for name, value in (model.model_extra or {}).items():
            if name not in silent:
                note(name, value, f"{place}{name}")

    note_all(body, "")
    if body.stream_options is not None:
        note_all(body.stream_options, "stream_options.")
    declared = "messages" in type(body).model_fields
    for number, message in enumerate(getattr(body, "messages", ()) if declared else ()):
        place = f"messages[{number}]."
        note_all(message, place, _OF_MESSAGES)
        for index, part in enumerate(message.content if isinstance(message.content, list) else ()):
            note_all(part, f"{place}content[{index}].", _OF_MESSAGES)
        for index, call in enumerate(message.tool_calls or ()):
            note_all(call, f"{place}tool_calls[{index}].", _OF_MESSAGES)
            note_all(call.function, f"{place}tool_calls[{index}].function.", _OF_MESSAGES)
    for path, value in body.unused.items():
        if (name := path.rpartition(".")[2]) not in _OF_MESSAGES or "[" not in path:
            note(name, value, path)
    return found
