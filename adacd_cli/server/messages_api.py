"""Anthropic's Messages: a request as one of a chat, and the answer as content blocks or a stream's events."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from adacd_cli.server.description import describes, read_body
from adacd_cli.server.errors import refused
from adacd_cli.server.openai_format import JSON
from adacd_cli.server.routes import Responder
from adacd_cli.server.schema import EFFORTS, MAX_MESSAGES, OpenBody, TextOrObjects
from adacd_cli.server.streaming import ChunkWriter, pieces, sent_event

NAMES = {"stop": "stop_sequences", "response_format": "output_config"}
"""What a chat's fields are called here."""

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_TRANSLATED = (
    *("system", "stop_sequences", "thinking", "metadata", "service_tier", "tools", "tool_choice"),
    *("output_config", "output_format"),
)


class Turn(BaseModel):
    """A message."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["user", "assistant", "system"]
    content: TextOrObjects


class MessagesRequest(OpenBody):
    """A request of /v1/messages; what is not listed is as in a chat."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None
    system: TextOrObjects | None = None
    stop_sequences: list[str] | None = None
    thinking: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: Annotated[dict[str, Any] | None, Field(description="Formerly its format.")] = None


def chat_of(body: MessagesRequest) -> JSON:
    """The same request as one of a chat; raises ApiError, 400, with the block that has no counterpart."""
    given = body.model_dump(exclude_unset=True)
    chat = {name: value for name, value in given.items() if name not in _TRANSLATED}
    messages: list[JSON] = (
        [{"role": "system", "content": _texts(body.system, "system")}] if body.system else []
    )
    for place, turn in enumerate(body.messages):
        messages += _messages(turn, f"messages[{place}]")
    chat |= {"messages": messages, "stop": body.stop_sequences}
    if body.thinking and body.thinking.get("type") in ("enabled", "disabled"):
        chat["reasoning_effort"] = EFFORTS[body.thinking["type"] == "enabled"]
    if (wanted := (body.output_config or {}).get("format") or body.output_format) is not None:
        chat["response_format"] = {"type": "json_schema", "json_schema": wanted}
    if body.tools is not None:
        chat["tools"] = [_tool(each) for each in body.tools]
    if body.tool_choice is not None:
        named = {"type": "function", "function": {"name": body.tool_choice.get("name")}}
        chat["tool_choice"] = _CHOICES.get(str(body.tool_choice.get("type")), named)
    return chat


def _tool(tool: JSON) -> JSON:
    if tool.get("type", "custom") != "custom":
        return tool  # one that a server would run: a warning says that it is not used
    own = {"name": tool.get("name"), "parameters": tool.get("input_schema")}
    return {"type": "function", "function": {**own, "description": tool.get("description") or ""}}


def _texts(content: Any, path: str) -> Any:
    """A text, or blocks of text as parts of a chat's message."""
    if not isinstance(content, list):
        return content
    for place, block in enumerate(content):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise refused("Only text and tools are supported.", f"{path}[{place}].type")
    return [{"type": "text", "text": block.get("text")} for block in content]


def _messages(turn: Turn, path: str) -> list[JSON]:
    """A message as those of a chat, in which the result of a tool is one of its own."""
    if isinstance(turn.content, str):
        return [{"role": turn.role, "content": turn.content}]
    results, calls, texts = [], [], []
    for place, block in enumerate(turn.content):
        kind, own = block.get("type"), f"{path}.content[{place}]"
        if kind == "tool_result":
            content = _texts(block.get("content") or "", f"{own}.content")
            results.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content})
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": block.get("input")}
            calls.append({"id": block.get("id"), "function": function})
        elif kind == "text":
            texts.append({"type": "text", "text": block.get("text")})
        elif kind not in ("thinking", "redacted_thinking"):  # which no template reads again
            raise refused("Only text and tools are supported.", f"{own}.type")
    own_message: JSON = {"role": turn.role, "content": texts or ""}
    if calls:
        own_message["tool_calls"] = calls
    return [*results, own_message] if texts or calls or not results else results


class MessagesWriter(ChunkWriter):
    """The answer as Anthropic's client reads it."""

    def __init__(self) -> None:
        self._block: str | None = None
        self._blocks = 0
        self._end: JSON = {}

    def whole(self, response: JSON) -> JSON:
        """The whole message."""
        choice = response["choices"][0]
        content = [{**_block(kind), kind: text} for kind, text in pieces(choice["message"])]
        end = {"stop_reason": _reason(choice["finish_reason"]), "stop_sequence": None}
        own = {"usage": _usage(response["usage"]), "adacd": response["adacd"]}
        return {**_message(response), "content": content, **end, **own}

    def begin(self, head: JSON, prompt_tokens: int) -> bytes:
        """The message, which is empty."""
        end = {"stop_reason": None, "stop_sequence": None}
        usage = {"input_tokens": prompt_tokens, "output_tokens": 0}
        return self._sent("message_start", message={**_message(head), "content": [], **end, "usage": usage})

    def chunk(self, chunk: JSON) -> bytes:
        """What the chunk adds to the blocks."""
        sent = b""
        for choice in chunk["choices"]:
            for kind, text in pieces(choice["delta"]):
                if kind != self._block:
                    sent += self._close()
                    self._block = kind
                    sent += self._sent("content_block_start", content_block=_block(kind))
                sent += self._sent("content_block_delta", delta={"type": f"{kind}_delta", kind: text})
            if (reason := choice["finish_reason"]) is not None:
                sent += self._close()
                stop = {"stop_reason": _reason(reason), "stop_sequence": None}
                self._end = {"delta": stop, "adacd": chunk.get("adacd")}
        if (usage := chunk.get("usage")) is not None:
            self._end["usage"] = _usage(usage)
        return sent

    def fail(self, error: JSON) -> bytes:
        """The error."""
        return self._sent("error", **error)

    def end(self) -> bytes:
        """Why the message ended."""
        return self._sent("message_delta", **self._end) + self._sent("message_stop")

    def _close(self) -> bytes:
        if self._block is None:
            return b""
        sent, self._block = self._sent("content_block_stop"), None
        self._blocks += 1
        return sent

    def _sent(self, name: str, **fields: Any) -> bytes:
        index = {"index": self._blocks} if name.startswith("content_block") else {}
        return sent_event({"type": name, **index, **fields}, name)


def _message(head: JSON) -> JSON:
    return {"id": f"msg_{head['id']}", "type": "message", "role": "assistant", "model": head["model"]}


def _block(kind: str) -> JSON:
    """An empty one."""
    return {"type": kind, kind: "", **({"signature": ""} if kind == "thinking" else {})}


def _reason(finish_reason: str) -> str:
    return "max_tokens" if finish_reason == "length" else "end_turn"


def _usage(usage: JSON) -> JSON:
    return {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}


def add_routes(app: FastAPI, responder: Responder) -> None:
    """Adds the routes to the application."""
    writer = lambda body: MessagesWriter()  # noqa: E731
    responder.add_translated(app, "/v1/messages", MessagesRequest, chat_of, writer, NAMES)

    @app.post(
        "/v1/messages/count_tokens",
        dependencies=[Depends(responder.check)],
        **describes(MessagesRequest),
    )
    async def count_tokens(request: Request) -> JSON:
        """The length of the prompt that a conversation would be."""
        body = await read_body(request, MessagesRequest)
        return {"input_tokens": await responder.count_tokens(chat_of(body), NAMES)}
