"""Anthropic's Messages: a request as one of a chat, and the answer as content blocks or a stream's events."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from pydantic import Field

from adacd_cli.server.errors import refused
from adacd_cli.server.fields import JSON, OpenBody, TextOrObjects
from adacd_cli.server.routes import Responder, read_body
from adacd_cli.server.schema import MAX_MESSAGES
from adacd_cli.server.translation import EFFORTS, ChunkWriter, Translation, pieces, sent_event

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class Turn(OpenBody):
    """A message."""

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
    cache_control: Annotated[Any, Field(description="Accepted; prefixes are kept in any case.")] = None
    output_format: Annotated[dict[str, Any] | None, Field(description="Formerly its format.")] = None


def chat_of(body: MessagesRequest) -> Translation:
    """The same request as one of a chat; raises ApiError, 400, with the block that has no counterpart."""
    chat = Translation(body, not_shown=("logprobs", "top_logprobs"))
    if body.system:
        chat.add({"role": "system", "content": _texts(body.system, "system")}, "system", content="")
    for place, turn in enumerate(body.messages):
        _add(chat, turn, f"messages[{place}]")
    chat.put("max_tokens", body.max_tokens, "max_tokens")
    chat.put("stop", body.stop_sequences, "stop_sequences")
    thinking, output = body.thinking or {}, body.output_config or {}
    kind = thinking.get("type")
    enabled = {"enabled": True, "disabled": False}.get(str(kind))
    if enabled is not None:
        effort = output.get("effort") if enabled else None
        where = "output_config.effort" if effort else "thinking"
        chat.put("reasoning_effort", effort or EFFORTS[enabled], where)
    chat.leave(output, ("format", *(("effort",) if enabled else ())), "output_config")
    known = enabled is not None or kind == "adaptive"  # which may be no thinking at all
    chat.leave(thinking, ("type",) if known else (), "thinking")
    formats = {"output_format": body.output_format, "output_config.format": output.get("format")}
    for path, wanted in formats.items():
        if wanted is not None:
            chat.put("response_format", {"type": "json_schema", "json_schema": wanted}, path)
            chat.paths["response_format.json_schema"] = path
    if body.tools is not None:
        tools = [_tool(chat, each, f"tools[{number}]") for number, each in enumerate(body.tools)]
        chat.put("tools", tools, "tools")
    if body.tool_choice is not None:
        named = {"type": "function", "function": {"name": body.tool_choice.get("name")}}
        chat.put("tool_choice", _CHOICES.get(str(body.tool_choice.get("type")), named), "tool_choice")
    return chat


def _tool(chat: Translation, tool: JSON, path: str) -> JSON:
    if (tool.get("type") or "custom") != "custom":
        return tool  # one that a server would run: a warning says that it is not used
    chat.leave(tool, ("type", "name", "description", "input_schema"), path)
    own = {"name": tool.get("name"), "parameters": tool.get("input_schema")}
    return {"type": "function", "function": {**own, "description": tool.get("description") or ""}}


def _texts(content: Any, path: str) -> Any:
    """A text, or blocks of text as parts of a chat's message."""
    if not isinstance(content, list):
        return content
    for place, block in enumerate(content):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise refused("Only text and tools are supported.", f"{path}[{place}].type")
    return content


def _add(chat: Translation, turn: Turn, path: str) -> None:
    """Adds a message as those of a chat, in which the result of a tool is one of its own."""
    if isinstance(turn.content, str):
        chat.add({"role": turn.role, "content": turn.content, **(turn.model_extra or {})}, path)
        return
    texts: list[tuple[JSON, str]] = []
    calls: list[tuple[JSON, str]] = []
    thoughts, results = "", False
    for number, block in enumerate(turn.content):
        kind, place = block.get("type"), f"{path}.content[{number}]"
        if kind == "tool_result":
            content = _texts(block.get("content") or "", f"{place}.content")
            result = {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}
            chat.add(result, place, tool_call_id="tool_use_id")
            chat.leave(block, ("type", "tool_use_id", "content"), place)
            results = True
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": block.get("input")}
            calls.append(({"id": block.get("id"), "function": function}, place))
            chat.leave(block, ("type", "id", "name", "input"), place)
        elif kind == "text":
            texts.append((block, place))
        elif kind == "thinking":
            thoughts += str(block.get("thinking", ""))
        elif kind != "redacted_thinking":
            raise refused("Only text and tools are supported.", f"{place}.type")
    if results and not (texts or calls):
        return
    own = {"tool_calls": [call for call, _ in calls], "reasoning_content": thoughts}
    told: JSON = {
        "role": turn.role,
        "content": [block for block, _ in texts] or "",
        **(turn.model_extra or {}),
    }
    added = chat.add(told | {name: value for name, value in own.items() if value}, path)
    for number, (_, place) in enumerate(texts):
        chat.paths[f"{added}.content[{number}]"] = place
    for number, (_, place) in enumerate(calls):
        call = f"{added}.tool_calls[{number}]"
        chat.paths |= {call: place, f"{call}.function": place, f"{call}.function.arguments": f"{place}.input"}


class MessagesWriter(ChunkWriter):
    """The answer as Anthropic's client reads it."""

    def __init__(self, body: MessagesRequest) -> None:
        self._block: str | None = None
        self._blocks = 0
        self._end: JSON = {}

    def whole(self, response: JSON) -> JSON:
        choice = response["choices"][0]
        content = [{**_block(kind), kind: text} for kind, text in pieces(choice["message"])]
        own = {"usage": _usage(response["usage"]), "adacd": response["adacd"]}
        return {**_message(response), "content": content, **_end(choice), **own}

    def begin(self, head: JSON, prompt_tokens: int) -> bytes:
        end = {"stop_reason": None, "stop_sequence": None}
        usage = {"input_tokens": prompt_tokens, "output_tokens": 0}
        return self._sent("message_start", message={**_message(head), "content": [], **end, "usage": usage})

    def chunk(self, chunk: JSON) -> bytes:
        sent = b""
        for choice in chunk["choices"]:
            for kind, text in pieces(choice["delta"]):
                if kind != self._block:
                    sent += self._close()
                    self._block = kind
                    sent += self._sent("content_block_start", content_block=_block(kind))
                sent += self._sent("content_block_delta", delta={"type": f"{kind}_delta", kind: text})
            if choice["finish_reason"] is not None:
                sent += self._close()
                self._end = {"delta": _end(choice), "adacd": chunk.get("adacd")}
        if (usage := chunk.get("usage")) is not None:
            self._end["usage"] = _usage(usage)
        return sent

    def fail(self, error: JSON) -> bytes:
        return self._sent("error", **error)

    def end(self) -> bytes:
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
    return {"type": kind, kind: "", **({"signature": ""} if kind == "thinking" else {})}


def _end(choice: JSON) -> JSON:
    stop = choice.get("stop_reason")
    reason = "max_tokens" if choice["finish_reason"] == "length" else "stop_sequence" if stop else "end_turn"
    return {"stop_reason": reason, "stop_sequence": stop}


def _usage(usage: JSON) -> JSON:
    return {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}


def add_routes(app: FastAPI, responder: Responder) -> None:
    responder.add_translated(app, "/v1/messages", MessagesRequest, chat_of, MessagesWriter)

    @app.post("/v1/messages/count_tokens", **responder.describes(MessagesRequest))
    async def count_tokens(request: Request) -> JSON:
        """The length of the prompt that a conversation would be."""
        body = await read_body(request, MessagesRequest)
        tokens, warnings = await responder.count_tokens(chat_of(body))
        return {"input_tokens": tokens, **({"adacd": {"warnings": warnings}} if warnings else {})}
