"""The fields of a request; FastAPI's description of the API is made of these models. A field that would change what
the answer means and cannot be honoured is declared all the same: a value that asks for nothing is accepted,
anything else is refused with the reason. Other fields that are not declared are named in the answer's warnings. The
settings of `adacd` are checked by themselves (`params`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError, from_json

from adacd_cli.config import SETTINGS, Settings
from adacd_cli.server.errors import refused
from adacd_cli.server.fields import OpenBody, Text, TextOrList, TextOrObject, Unsupported, unsupported

MAX_MESSAGES = 10_000
_MAX_PARTS = 1_000
_MAX_STOPS = 16
_MAX_STOP_LENGTH = 500
_MAX_LOGPROBS = 20
MAX_CHOICES = 128  # answers to one request at most, to all of its prompts together
_MAX_LISTED = 1_000  # tools, tool calls, biases and stop tokens at most

CHOSEN_AT_START = ("expert", "draft", "direction")  # settings of a method that name files: not for a request
REQUEST_SETTINGS = (
    *(name for name, each in SETTINGS.items() if each.panel == "Method" and name not in CHOSEN_AT_START),
    *("contrast_prompt", "contrast_placement", "thinking"),
)
"""The settings that a request's `adacd` object may hold, besides `trace` and `candidates`."""


def _describe_settings(schema: dict[str, Any]) -> None:
    known = Settings.model_json_schema()["properties"]
    for name in REQUEST_SETTINGS:
        left_out = {"title", "default"}
        schema["properties"][name] = {key: known[name][key] for key in known[name] if key not in left_out}
    schema["properties"]["method"]["enum"] = list(SETTINGS["method"].choices)
    schema["additionalProperties"] = False


class Own(OpenBody):
    """The fields of adacd's own; its settings are checked by themselves (`params`)."""

    model_config = ConfigDict(json_schema_extra=_describe_settings)

    trace: bool = Field(False, description="Report the numbers of every token.")
    candidates: int = Field(
        0, ge=0, le=20, description="With trace: how many of the most probable tokens to report."
    )


class TextPart(OpenBody):
    """A part of a message's text."""

    type: Literal["text", "input_text", "output_text", "refusal"]
    text: Annotated[str, Field(validation_alias=AliasChoices("text", "refusal"))]


_Parts = Annotated[list[TextPart], Field(max_length=_MAX_PARTS), Tag("<list>")]
_Content = Annotated[Text | _Parts, TextOrList]


class FunctionCall(OpenBody):
    """The function that was called, and its arguments as JSON."""

    name: str
    arguments: TextOrObject | None = None


class ToolCall(OpenBody):
    """A tool call of an earlier answer."""

    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCall


class ChatMessage(OpenBody):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: _Content | None = Field(None, description="Only an assistant's may be null.")
    name: Annotated[str | None, Field(description="Given to the chat template.")] = None
    refusal: Annotated[str | None, Field(description="The text, where there is no content.")] = None
    tool_calls: Annotated[list[ToolCall] | None, Field(max_length=_MAX_LISTED)] = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    audio: Annotated[Any, Unsupported("Audio is not supported; send the text as `content`.")] = None
    reasoning_content: Annotated[str | None, Field(description="Given to the chat template.")] = None
    reasoning: Annotated[Any, Field(description="The same, as a text.")] = None

    @property
    def text(self) -> str:
        """Its text; parts are joined by line breaks."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.refusal or "" if self.content is None else self.content

    @property
    def calls(self) -> list[ToolCall]:
        own = [ToolCall(function=self.function_call)] if self.function_call else []
        return [*(self.tool_calls or ()), *own]


class StreamOptions(OpenBody):
    """What a stream contains besides the answer."""

    include_usage: bool | None = None
    continuous_usage_stats: Annotated[bool | None, Field(description="With it: usage in each chunk.")] = None


def _stops(stop: Any) -> Any:
    stops = [stop] if isinstance(stop, str) else stop
    if isinstance(stops, list):
        if len(stops) > _MAX_STOPS:
            raise unsupported(f"`stop` holds at most {_MAX_STOPS} strings.")
        if any(isinstance(each, str) and len(each) > _MAX_STOP_LENGTH for each in stops):
            raise unsupported(f"A string of `stop` has at most {_MAX_STOP_LENGTH} characters.")
    return stop


_Texts = Annotated[Text | Annotated[list[str], Tag("<list>")], TextOrList]
_Length = Annotated[int | None, Field(ge=-1, le=2**31 - 1, description="Longest answer, in tokens; -1: any.")]
_Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
_IdAsText = Annotated[str, Field(pattern="^[0-9]{1,9}$")]
_Id = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Penalty = Annotated[float | None, Field(ge=-2, le=2, allow_inf_nan=False)]
_TopLogprobs = Annotated[int | None, Field(ge=0, le=_MAX_LOGPROBS)]
_Ignored = Field(description="Accepted; nothing depends on it.")


def _of_json(schema: Any) -> Any:
    """A schema that is sent as JSON text, as vLLM takes it, too."""
    if not isinstance(schema, str):
        return schema
    try:
        return from_json(schema)
    except ValueError as error:
        raise PydanticCustomError("json", "is no JSON: {error}", {"error": str(error)}) from None


def _grammar(name: str, *allowed: Any) -> Unsupported:
    return Unsupported(f"Answers can be held to JSON alone, by `response_format`, not by `{name}`.", *allowed)


_Schema = Annotated[dict[str, Any], BeforeValidator(_of_json)]
_ANY_OBJECT: _Schema = {"type": "object"}


class NamedSchema(OpenBody):
    """A JSON schema as OpenAI has it; whatever its name, its description, and whether it is strict."""

    json_schema: Annotated[_Schema, Field(alias="schema")]


class ResponseFormat(OpenBody):
    """What the answer is held to."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @property
    def wanted(self) -> _Schema | None:
        """The schema; None for any text. Raises ApiError, 400, where it is missing."""
        if self.type != "json_schema":
            return _ANY_OBJECT if self.type == "json_object" else None
        if self.json_schema is None:
            message = "`response_format` of type json_schema needs a `json_schema`."
            raise refused(message, "response_format")
        return self.json_schema.json_schema


class StructuredOutputs(OpenBody):
    """What vLLM has in place of it."""

    json_: Annotated[_Schema | None, Field(alias="json")] = None
    json_object: bool | None = None
    regex: Annotated[Any, _grammar("regex")] = None
    choice: Annotated[Any, _grammar("choice")] = None
    grammar: Annotated[Any, _grammar("grammar")] = None
    structural_tag: Annotated[Any, _grammar("structural_tag")] = None

    @property
    def wanted(self) -> _Schema | None:
        return _ANY_OBJECT if self.json_object and self.json_ is None else self.json_


class CommonRequest(OpenBody):
    """The fields of both kinds of completion."""

    model: Annotated[str | None, Field(description="An id of /v1/models; null is the model served.")] = None
    max_tokens: _Length = None
    max_completion_tokens: _Length = None
    temperature: Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, allow_inf_nan=False)] = None
    top_k: int | None = Field(None, ge=-1, description="Sample from this many tokens; 0 or -1: all.")
    min_p: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)] = None
    repetition_penalty: Annotated[float | None, Field(gt=0, le=100, allow_inf_nan=False)] = None
    presence_penalty: _Penalty = None
    frequency_penalty: _Penalty = None
    logit_bias: dict[_IdAsText, _Bias] | None = Field(None, max_length=_MAX_LISTED)
    min_tokens: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None
    stop_token_ids: Annotated[list[_Id] | None, Field(max_length=_MAX_LISTED)] = None
    ignore_eos: bool | None = None
    seed: Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1)] = None
    stop: Annotated[_Texts | None, BeforeValidator(_stops)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[Any, _Ignored] = None
    metadata: Annotated[Any, _Ignored] = None
    adacd: Own | None = None
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES, description="How many answers.")] = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: _Schema | None = None
    guided_regex: Annotated[Any, _grammar("guided_regex", "")] = None
    guided_choice: Annotated[Any, _grammar("guided_choice", [])] = None
    guided_grammar: Annotated[Any, _grammar("guided_grammar", "")] = None
    grammar: Annotated[Any, _grammar("grammar", "")] = None
    json_schema: Annotated[_Schema | None, Field(description="As llama.cpp has it.")] = None
    use_beam_search: Annotated[Any, Unsupported("Beam search is not supported.", False)] = None
    bad_words: Annotated[Any, Unsupported("Use `logit_bias` in place of `bad_words`.", [])] = None


_NO_CALLS = (
    "No model can be made to call a function: let `{}` be auto, and read a call from the answer's text."
)


class ChatRequest(CommonRequest):
    """A request of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    logprobs: bool | None = None
    top_logprobs: _TopLogprobs = None
    safety_identifier: Annotated[Any, _Ignored] = None
    prompt_cache_key: Annotated[Any, _Ignored] = None
    prompt_cache_retention: Annotated[Any, _Ignored] = None
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Given to the chat template; `enable_thinking` is a setting."
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="none: no thinking; else thinking, where the model can."
    )
    continue_final_message: bool | None = Field(
        None, description="An assistant's last message is continued in any case."
    )
    add_generation_prompt: bool | None = None
    tools: list[dict[str, Any]] | None = Field(
        None, max_length=_MAX_LISTED, description="Given to the chat template; calls are told as text."
    )
    functions: list[dict[str, Any]] | None = Field(None, max_length=_MAX_LISTED)
    tool_choice: Annotated[Any, Unsupported(_NO_CALLS.format("tool_choice"), "none", "auto")] = None
    function_call: Annotated[Any, Unsupported(_NO_CALLS.format("function_call"), "none", "auto")] = None
    chat_template: Annotated[Any, Unsupported("The chat template is the model's; leave it out.")] = None
    modalities: Annotated[Any, Unsupported("Answers are text only.", ["text"])] = None
    audio: Annotated[Any, Unsupported("Audio is not supported.")] = None
    web_search_options: Annotated[Any, Unsupported("Web search is not supported.")] = None


_TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Tag("<list>")]
_Prompt = Annotated[Text | _TokenIds, TextOrList]
_Prompts = Annotated[list[_Prompt], Field(max_length=MAX_CHOICES), Tag("<lists>")]


def _kind_of_prompt(value: Any) -> str:
    several = isinstance(value, list) and bool(value) and isinstance(value[0], (str, list))
    return "<lists>" if several else "<list>" if isinstance(value, list) else "<text>"


class CompletionRequest(CommonRequest):
    """A request of /v1/completions."""

    prompt: Annotated[
        Text | _TokenIds | _Prompts,
        Discriminator(_kind_of_prompt),
        Field(description="A text, its token ids, or a list of texts or of lists of token ids."),
    ]
    echo: Annotated[bool | None, Field(description="Whether the prompt stands before the answer.")] = None
    logprobs: _TopLogprobs = None
    best_of: Annotated[Any, Unsupported("`best_of` must be 1.", 1)] = None
    suffix: Annotated[Any, Unsupported("`suffix` is not supported.", "")] = None

    @property
    def prompts(self) -> list[str | list[int]]:
        prompt: Any = self.prompt
        return list(prompt) if _kind_of_prompt(prompt) == "<lists>" else [prompt]
