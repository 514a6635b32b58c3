"""OpenAI's Responses: a request as one of a chat, and the answer as items or as the events of a stream."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import Field

from adacd_cli.server.errors import refused
from adacd_cli.server.openai_format import JSON
from adacd_cli.server.routes import Responder
from adacd_cli.server.schema import OpenBody, TextOrObjects, Unsupported
from adacd_cli.server.streaming import ChunkWriter, pieces, sent_event

NAMES = {"messages": "input", "max_tokens": "max_output_tokens", "response_format": "text.format"}
"""What a chat's fields are called here."""

_NOT_STORED = "This server stores nothing; send the whole conversation as `input`."
_ECHOED: JSON = {
    "instructions": None,
    "metadata": {},
    "temperature": None,
    "top_p": None,
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "max_output_tokens": None,
}
"""What a response repeats of its request, with what stands where that is left out."""

_NOT_OF_A_CHAT = (
    *("input", "instructions", "max_output_tokens", "text", "reasoning", "store", "include", "truncation"),
    *("previous_response_id", "conversation", "prompt", "background", "stream_options", "top_logprobs"),
)


class ResponsesRequest(OpenBody):
    """A request of /v1/responses; what is not listed is as in a chat."""

    input: TextOrObjects
    instructions: Annotated[str | None, Field(description="A system message.")] = None
    max_output_tokens: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    store: Annotated[bool | None, Field(description="Accepted; nothing is stored.")] = None
    previous_response_id: Annotated[Any, Unsupported(_NOT_STORED)] = None
    conversation: Annotated[Any, Unsupported(_NOT_STORED)] = None
    prompt: Annotated[Any, Unsupported(_NOT_STORED)] = None
    background: Annotated[Any, Unsupported("Answers are given at once.", False)] = None
    top_logprobs: Annotated[Any, Unsupported("`top_logprobs` is not supported here.", 0)] = None


def chat_of(body: ResponsesRequest) -> JSON:
    """The same request as one of a chat; raises ApiError, 400, with the item that has no counterpart."""
    given = body.model_dump(exclude_unset=True)
    chat = {name: value for name, value in given.items() if name not in _NOT_OF_A_CHAT}
    items = [{"role": "user", "content": body.input}] if isinstance(body.input, str) else body.input
    messages: list[JSON] = [{"role": "system", "content": body.instructions}] if body.instructions else []
    for place, item in enumerate(items):
        _add(messages, item, f"input[{place}].type")
    chat |= {"messages": messages, "max_tokens": body.max_output_tokens}
    tools, choice = given.get("tools"), given.get("tool_choice")
    if isinstance(tools, list):
        chat["tools"] = [_nested(each, "function") for each in tools]
    if isinstance(choice, dict):
        chat["tool_choice"] = _nested(choice, "function")
    wanted = (body.text or {}).get("format")
    if wanted is not None:
        chat["response_format"] = _nested(wanted, "json_schema")
    if (effort := (body.reasoning or {}).get("effort")) is not None:
        chat["reasoning_effort"] = effort
    return chat


def _nested(flat: Any, kind: str) -> Any:
    """An object of this type as a chat has it, with its fields under the type's name."""
    if not isinstance(flat, dict) or flat.get("type") != kind:
        return flat
    return {"type": kind, kind: {name: value for name, value in flat.items() if name != "type"}}


def _add(messages: list[JSON], item: JSON, path: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        messages.append({"role": item.get("role"), "content": item.get("content")})
    elif kind == "function_call":
        call = {"name": item.get("name"), "arguments": item.get("arguments")}
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": ""})
        calls = messages[-1].setdefault("tool_calls", [])
        calls.append({"id": item.get("call_id"), "type": "function", "function": call})
    elif kind == "function_call_output":
        answer = {"tool_call_id": item.get("call_id"), "content": item.get("output")}
        messages.append({"role": "tool", **answer})
    elif kind != "reasoning":  # which no template reads again
        raise refused("An item is a message, a function_call or its output, or reasoning.", path)


class ResponsesWriter(ChunkWriter):
    """The answer as OpenAI's client reads it: the response grows, and events tell of it."""

    def __init__(self, body: ResponsesRequest) -> None:
        given = body.model_dump(exclude_unset=True)
        self._response = {name: given.get(name, value) for name, value in _ECHOED.items()}
        self._items: list[JSON] = []
        self._part: str | None = None
        self._number = 0

    def whole(self, response: JSON) -> JSON:
        """The whole response, made of a stream's last event."""
        self.begin(response, 0)
        choice = response["choices"][0]
        self.chunk({**response, "choices": [{**choice, "delta": choice["message"]}]})
        return self._response

    def begin(self, head: JSON, prompt_tokens: int) -> bytes:
        """The response, which is only begun."""
        self._response |= {
            "id": f"resp_{head['id']}",
            "object": "response",
            "created_at": head["created"],
            "model": head["model"],
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "output": self._items,
            "usage": None,
        }
        return self._whole_event("created") + self._whole_event("in_progress")

    def chunk(self, chunk: JSON) -> bytes:
        """What the chunk adds to the items, the one that is begun being the last."""
        sent = b""
        for choice in chunk["choices"]:
            for kind, text in pieces(choice["delta"]):
                if kind != self._part:
                    sent += self._close() + self._open(kind)
                sent += self._extend(text)
            if (reason := choice["finish_reason"]) is not None:
                sent += self._close()
                cut = reason == "length"
                self._response["status"] = "incomplete" if cut else "completed"
                self._response["incomplete_details"] = {"reason": "max_output_tokens"} if cut else None
        if "adacd" in chunk:
            self._response["adacd"] = chunk["adacd"]
        if (usage := chunk.get("usage")) is not None:
            details = usage["completion_tokens_details"]
            self._response["usage"] = {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": details["reasoning_tokens"]},
                "total_tokens": usage["total_tokens"],
            }
        return sent

    def fail(self, error: JSON) -> bytes:
        """The response, which failed."""
        told = error["error"]
        self._response |= {"status": "failed", "error": {"code": "server_error", "message": told["message"]}}
        return self._whole_event("failed")

    def end(self) -> bytes:
        """The response, completed or cut off."""
        return self._whole_event(str(self._response["status"]))

    def _open(self, kind: str) -> bytes:
        self._part, own = kind, secrets.token_hex(12)
        part: JSON
        if kind == "text":
            item: JSON = {"type": "message", "id": f"msg_{own}", "role": "assistant"}
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        else:
            item = {"type": "reasoning", "id": f"rs_{own}", "summary": []}
            part = {"type": "reasoning_text", "text": ""}
        self._items.append({**item, "content": [], "status": "in_progress"})
        sent = self._event("output_item.added", item=self._items[-1])
        self._items[-1]["content"].append(part)
        return sent + self._part_event("content_part.added", part=part)

    def _extend(self, text: str) -> bytes:
        part = self._items[-1]["content"][0]
        part["text"] += text
        return self._part_event(f"{part['type']}.delta", delta=text)

    def _close(self) -> bytes:
        if self._part is None:
            return b""
        item, self._part = self._items[-1], None
        item["status"], part = "completed", item["content"][0]
        sent = self._part_event(f"{part['type']}.done", text=part["text"])
        sent += self._part_event("content_part.done", part=part)
        return sent + self._event("output_item.done", item=item)

    def _part_event(self, name: str, **fields: Any) -> bytes:
        """An event of the last item's one part."""
        logprobs: JSON = {"logprobs": []} if name.startswith("output_text") else {}
        return self._event(name, item_id=self._items[-1]["id"], content_index=0, **fields, **logprobs)

    def _event(self, name: str, **fields: Any) -> bytes:
        return self._sent(name, output_index=len(self._items) - 1, **fields)

    def _whole_event(self, name: str) -> bytes:
        return self._sent(name, response=self._response)

    def _sent(self, name: str, **fields: Any) -> bytes:
        kind = f"response.{name}"
        self._number += 1
        return sent_event({"type": kind, "sequence_number": self._number - 1, **fields}, kind)


def add_routes(app: FastAPI, responder: Responder) -> None:
    """Adds the route to the application."""
    responder.add_translated(app, "/v1/responses", ResponsesRequest, chat_of, ResponsesWriter, NAMES)
