"""The fields of a request; FastAPI's description of the API is made of these models.

Unknown fields are refused. A field of OpenAI's that adacd does not support is declared all the same: a value
that asks for nothing is accepted, and anything else is refused with the reason. The ranges of the settings
are checked by the settings themselves (`params`), except where OpenAI's range is narrower.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Tag
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from adacd_cli.config import SETTINGS, Settings

MAX_MESSAGES = 10_000
_MAX_PARTS = 1_000
_MAX_STOPS = 16
_MAX_STOP_LENGTH = 500
_MAX_LOGPROBS = 20
MAX_CHOICES = 128
"""Answers to one request at most, to all of its prompts together."""

CHOSEN_AT_START = ("expert", "draft", "direction")
"""Settings of a method that name files, which a request cannot choose."""

_METHOD = [name for name, setting in SETTINGS.items() if setting.panel == "Method"]
REQUEST_SETTINGS = (
    *(name for name in _METHOD if name not in CHOSEN_AT_START),
    *("contrast_prompt", "contrast_placement", "thinking"),
)
"""The settings that a request's `adacd` object may hold, besides `trace` and `candidates`."""

TAGS = ("<text>", "<list>", "<lists>")
"""Tags of the members of a union; they appear in the locations of errors, and are left out when shown."""

_TextOrList = Discriminator(lambda value: TAGS[isinstance(value, list)])
_Text = Annotated[str, Tag(TAGS[0])]
TextOrObjects = Annotated[_Text | Annotated[list[dict[str, Any]], Tag(TAGS[1])], _TextOrList]
"""What other formats have in place of a text: a list of blocks, items or parts."""


def unsupported(reason: str) -> PydanticCustomError:
    """An error with a whole sentence as its message."""
    return PydanticCustomError("unsupported", "{reason}", {"reason": reason})


class Unsupported:
    """Marks a field that adacd does not support: `Annotated[Any, Unsupported(reason, *allowed)]`.

    `reason` is a sentence; the values `allowed`, and null, ask for nothing.
    """

    def __init__(self, reason: str, *allowed: Any) -> None:
        self.reason, self.allowed = reason, allowed

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"enum": [None, *self.allowed], "description": f"Accepted for compatibility. {self.reason}"}

    def _check(self, value: Any) -> Any:
        for each in (None, *self.allowed):
            exact = isinstance(value, bool) or isinstance(each, bool)  # True == 1
            if value is each or (value == each and not exact):
                return value
        raise unsupported(self.reason)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _describe_settings(schema: dict[str, Any]) -> None:
    """Adds the settings, as they declare themselves."""
    known = Settings.model_json_schema()["properties"]
    for name in REQUEST_SETTINGS:
        described = {key: part for key, part in known[name].items() if key not in ("title", "default")}
        schema["properties"][name] = described
    schema["properties"]["method"]["enum"] = list(SETTINGS["method"].choices)
    schema["additionalProperties"] = False


class Own(BaseModel):
    """The fields of adacd's own; its settings are checked by themselves (`params`)."""

    model_config = ConfigDict(extra="allow", strict=True, json_schema_extra=_describe_settings)

    trace: Annotated[bool, Field(description="Report the numbers of every token.")] = False
    candidates: Annotated[
        int, Field(ge=0, le=20, description="With trace: how many of the most probable tokens to report.")
    ] = 0


class TextPart(_Strict):
    """A part of a message's text."""

    type: Literal["text"]
    text: str


_Parts = Annotated[list[TextPart], Field(max_length=_MAX_PARTS), Tag(TAGS[1])]
_NO_TOOLS = "Tools and functions are not supported."


class ChatMessage(_Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[_Text | _Parts, _TextOrList]
    name: Annotated[Any, Unsupported("Chat templates have no names of participants.")] = None
    refusal: Annotated[Any, Unsupported("Give the text of a refusal as `content`.")] = None
    tool_calls: Annotated[Any, Unsupported(_NO_TOOLS, [])] = None
    function_call: Annotated[Any, Unsupported(_NO_TOOLS)] = None
    audio: Annotated[Any, Unsupported("Audio is not supported.")] = None
    annotations: Annotated[Any, Unsupported("Annotations are not supported.", [])] = None
    reasoning_content: Annotated[str | None, Field(description="Accepted, and not read.")] = None

    @property
    def text(self) -> str:
        """Its text; parts are joined by line breaks."""
        content: str | list[TextPart] = self.content
        return content if isinstance(content, str) else "\n".join(part.text for part in content)


class StreamOptions(_Strict):
    """What a stream contains besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, Unsupported("Chunks are not padded.", False)] = None


def _stops(stop: Any) -> Any:
    stops = [stop] if isinstance(stop, str) else stop
    if isinstance(stops, list):
        if len(stops) > _MAX_STOPS:
            raise unsupported(f"`stop` holds at most {_MAX_STOPS} strings.")
        if any(isinstance(each, str) and not 0 < len(each) <= _MAX_STOP_LENGTH for each in stops):
            raise unsupported(f"A string of `stop` has 1 to {_MAX_STOP_LENGTH} characters.")
    return stop


_Texts = Annotated[_Text | Annotated[list[str], Tag(TAGS[1])], _TextOrList]
_Length = Annotated[int | None, Field(ge=0, le=2**31 - 1, description="Longest answer, in tokens.")]
_TopLogprobs = Annotated[int | None, Field(ge=0, le=_MAX_LOGPROBS)]
_Ignored = Field(description="Accepted; nothing depends on it.")
_NO_PENALTIES = "Penalties are not supported; `{}` must be 0."


class CommonRequest(_Strict):
    """The fields of both kinds of completion."""

    model: Annotated[str | None, Field(description="An id of /v1/models; null is the model served.")] = None
    max_tokens: _Length = None
    temperature: Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, allow_inf_nan=False)] = None
    top_k: Annotated[int | None, Field(ge=0, description="Sample from this many tokens; 0: all.")] = None
    seed: Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1)] = None
    stop: Annotated[_Texts | None, BeforeValidator(_stops)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str | None, _Ignored] = None
    metadata: Annotated[dict[str, str] | None, _Ignored] = None
    adacd: Own | None = None

    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES, description="How many answers.")] = None
    frequency_penalty: Annotated[Any, Unsupported(_NO_PENALTIES.format("frequency_penalty"), 0)] = None
    presence_penalty: Annotated[Any, Unsupported(_NO_PENALTIES.format("presence_penalty"), 0)] = None
    logit_bias: Annotated[Any, Unsupported("`logit_bias` is not supported.", {})] = None


class ChatRequest(CommonRequest):
    """A request of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: _Length = None
    logprobs: bool | None = None
    top_logprobs: _TopLogprobs = None
    safety_identifier: Annotated[str | None, _Ignored] = None
    prompt_cache_key: Annotated[str | None, _Ignored] = None

    tools: Annotated[Any, Unsupported(_NO_TOOLS, [])] = None
    tool_choice: Annotated[Any, Unsupported(_NO_TOOLS, "none", "auto")] = None
    parallel_tool_calls: Annotated[Any, Unsupported(_NO_TOOLS, True, False)] = None
    functions: Annotated[Any, Unsupported(_NO_TOOLS, [])] = None
    function_call: Annotated[Any, Unsupported(_NO_TOOLS, "none", "auto")] = None
    response_format: Annotated[
        Any, Unsupported("Answers are text; `response_format` must be `text`.", {"type": "text"})
    ] = None
    modalities: Annotated[Any, Unsupported("Answers are text only.", ["text"])] = None
    audio: Annotated[Any, Unsupported("Audio is not supported.")] = None
    prediction: Annotated[Any, Unsupported("`prediction` is not supported.")] = None
    reasoning_effort: Annotated[
        Any, Unsupported('Use {"adacd": {"thinking": true}} instead of `reasoning_effort`.')
    ] = None
    verbosity: Annotated[Any, Unsupported("`verbosity` is not supported.", "medium")] = None
    service_tier: Annotated[Any, Unsupported("Service tiers are not supported.", "auto", "default")] = None
    store: Annotated[Any, Unsupported("This server stores nothing.", False)] = None
    web_search_options: Annotated[Any, Unsupported("Web search is not supported.")] = None


_TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Tag(TAGS[1])]
_Prompt = Annotated[_Text | _TokenIds, _TextOrList]
_Prompts = Annotated[list[_Prompt], Field(max_length=MAX_CHOICES), Tag(TAGS[2])]


def _kind_of_prompt(value: Any) -> str:
    return TAGS[
        2
        if isinstance(value, list) and value and isinstance(value[0], (str, list))
        else isinstance(value, list)
    ]


class CompletionRequest(CommonRequest):
    """A request of /v1/completions."""

    prompt: Annotated[
        _Text | _TokenIds | _Prompts,
        Discriminator(_kind_of_prompt),
        Field(description="A text, its token ids, or a list of texts or of lists of token ids."),
    ]
    echo: Annotated[bool | None, Field(description="Whether the prompt stands before the answer.")] = None
    logprobs: _TopLogprobs = None

    best_of: Annotated[Any, Unsupported("`best_of` must be 1.", 1)] = None
    suffix: Annotated[Any, Unsupported("`suffix` is not supported.", "")] = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Its prompts."""
        prompt: Any = self.prompt
        return list(prompt) if _kind_of_prompt(prompt) == TAGS[2] else [prompt]


MODELS: dict[str, type[BaseModel]] = {
    "ChatRequest": ChatRequest,
    "CompletionRequest": CompletionRequest,
    "stream_options": StreamOptions,
    "messages": ChatMessage,
    "content": TextPart,
}
"""The models by their own name, or by the field that holds them."""
