"""What a request may hold, field by field; FastAPI's description of the API is made of these models.

Unknown fields are refused. What a number of a setting may be is the setting's own to say (`asked`), except
where OpenAI's range is narrower.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Tag, WithJsonSchema

from adacd_cli.server.extras import adacd_schema
from adacd_cli.server.fields import LIST, TEXT, TEXT_OR_LIST, NothingBut, refuse

MOST_MESSAGES = 10_000
_MOST_PARTS = 1_000
_MOST_STOPS = 16
_LONGEST_STOP = 500
MOST_LOGPROBS = 20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    """A piece of a message's text."""

    type: Annotated[
        Literal["text"],
        BeforeValidator(lambda kind: kind if kind in ("text", None) else _no_part()),
    ]
    text: str


def _no_part() -> None:
    raise refuse("Only parts of type `text` can be read: no images, no audio, no files.")


def _role(role: Any) -> Any:
    if role in ("tool", "function"):
        raise refuse("There are no tools here, so no message has the role tool or function.")
    return role


def _content(content: Any) -> Any:
    if content is None:
        raise refuse("A message's `content` is its text; it cannot be null.")
    return content


_Parts = Annotated[list[TextPart], Field(max_length=_MOST_PARTS)]
TextOrParts = Annotated[Annotated[str, Tag(TEXT)] | Annotated[_Parts, Tag(LIST)], TEXT_OR_LIST]
TextOrTexts = Annotated[Annotated[str, Tag(TEXT)] | Annotated[list[str], Tag(LIST)], TEXT_OR_LIST]
_TokenId = Annotated[int, Field(ge=0)]
TextOrIds = Annotated[Annotated[str, Tag(TEXT)] | Annotated[list[_TokenId], Tag(LIST)], TEXT_OR_LIST]

_LENGTH = Field(ge=0, le=2**31 - 1, description="Longest answer, in tokens.")
_NO_TOOLS = "There are no tools and no functions here."


class ChatMessage(_Strict):
    """One message of a conversation."""

    role: Annotated[Literal["system", "developer", "user", "assistant"], BeforeValidator(_role)]
    content: Annotated[TextOrParts, BeforeValidator(_content)]
    name: Annotated[Any, NothingBut("A chat template knows no names of participants.")] = None
    refusal: Annotated[Any, NothingBut("Give the text of a refusal as `content`.")] = None
    tool_calls: Annotated[Any, NothingBut(_NO_TOOLS, [])] = None
    function_call: Annotated[Any, NothingBut(_NO_TOOLS)] = None
    audio: Annotated[Any, NothingBut("There is no audio here.")] = None
    annotations: Annotated[Any, NothingBut("There are no annotations here.", [])] = None
    reasoning_content: Annotated[str | None, Field(description="Accepted, and not read.")] = None

    @property
    def text(self) -> str:
        """Its text; parts are joined by line breaks."""
        content: str | list[TextPart] = self.content
        return content if isinstance(content, str) else "\n".join(part.text for part in content)


class StreamOptions(_Strict):
    """What a stream tells besides."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, NothingBut("Chunks are not padded.", False)] = None


def _stops(stop: Any) -> Any:
    stops = [stop] if isinstance(stop, str) else stop
    if isinstance(stops, list):
        if len(stops) > _MOST_STOPS:
            raise refuse(f"`stop` holds at most {_MOST_STOPS} texts.")
        if any(isinstance(each, str) and not 0 < len(each) <= _LONGEST_STOP for each in stops):
            raise refuse(f"A text of `stop` has 1 to {_LONGEST_STOP} characters.")
    return stop


class _Asked(_Strict):
    """What both kinds of completion are asked with."""

    model: Annotated[
        str | None, Field(description="The model's id, as /v1/models tells it; none is the one served.")
    ] = None
    max_tokens: Annotated[int | None, _LENGTH] = None
    temperature: Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, allow_inf_nan=False)] = None
    top_k: Annotated[int | None, Field(ge=0, description="Sample from this many tokens; 0: all.")] = None
    seed: Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1)] = None
    stop: Annotated[TextOrTexts | None, BeforeValidator(_stops)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str | None, Field(description="Accepted; nothing depends on it.")] = None
    metadata: Annotated[dict[str, str] | None, Field(description="Accepted; nothing depends on it.")] = None
    adacd: Annotated[dict[str, Any] | None, WithJsonSchema(adacd_schema())] = None

    n: Annotated[Any, NothingBut("`n` is 1: one choice an answer; ask several times for several.", 1)] = None
    frequency_penalty: Annotated[
        Any, NothingBut("There are no penalties here; `frequency_penalty` is 0.", 0)
    ] = None
    presence_penalty: Annotated[
        Any, NothingBut("There are no penalties here; `presence_penalty` is 0.", 0)
    ] = None
    logit_bias: Annotated[Any, NothingBut("`logit_bias` is not supported.", {})] = None


class ChatRequest(_Asked):
    """A request of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int | None, _LENGTH] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MOST_LOGPROBS)] = None
    safety_identifier: Annotated[str | None, Field(description="Accepted; nothing depends on it.")] = None
    prompt_cache_key: Annotated[str | None, Field(description="Accepted; nothing depends on it.")] = None

    tools: Annotated[Any, NothingBut(_NO_TOOLS, [])] = None
    tool_choice: Annotated[Any, NothingBut(_NO_TOOLS, "none", "auto")] = None
    parallel_tool_calls: Annotated[Any, NothingBut(_NO_TOOLS, True, False)] = None
    functions: Annotated[Any, NothingBut(_NO_TOOLS, [])] = None
    function_call: Annotated[Any, NothingBut(_NO_TOOLS, "none", "auto")] = None
    response_format: Annotated[
        Any, NothingBut("Answers are text; `response_format` is `text`.", {"type": "text"})
    ] = None
    modalities: Annotated[Any, NothingBut("Answers are text.", ["text"])] = None
    audio: Annotated[Any, NothingBut("There is no audio here.")] = None
    prediction: Annotated[Any, NothingBut("`prediction` is not supported.")] = None
    reasoning_effort: Annotated[
        Any, NothingBut('Use {"adacd": {"thinking": true}} instead of `reasoning_effort`.')
    ] = None
    verbosity: Annotated[Any, NothingBut("`verbosity` is not supported.", "medium")] = None
    service_tier: Annotated[Any, NothingBut("There are no service tiers here.", "auto", "default")] = None
    store: Annotated[Any, NothingBut("Nothing is stored here.", False)] = None
    web_search_options: Annotated[Any, NothingBut("There is no web search here.")] = None


def _one_prompt(prompt: Any) -> Any:
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list)):
        if len(prompt) > 1:
            raise refuse("One prompt a request; ask several times for several.")
        return prompt[0]
    return prompt


class CompletionRequest(_Asked):
    """A request of /v1/completions."""

    prompt: Annotated[
        TextOrIds,
        BeforeValidator(_one_prompt),
        Field(description="A text, or its token ids."),
    ]
    logprobs: Annotated[int | None, Field(ge=0, le=MOST_LOGPROBS)] = None

    best_of: Annotated[Any, NothingBut("`best_of` is 1: one choice an answer.", 1)] = None
    echo: Annotated[Any, NothingBut("The prompt is not repeated; `echo` is false.", False)] = None
    suffix: Annotated[Any, NothingBut("`suffix` is not supported.", "")] = None


ASKED: dict[str, type[BaseModel]] = {
    "stream_options": StreamOptions,
    "messages": ChatMessage,
    "content": TextPart,
}
"""The models inside of a request, by the field that holds them."""
