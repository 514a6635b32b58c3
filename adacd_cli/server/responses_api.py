"""OpenAI's Responses: a request as one of a chat, and the answer as items or as the events of a stream."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import Field

from adacd_cli.server.errors import refused
from adacd_cli.server.fields import JSON, OpenBody, TextOrObjects, Unsupported
from adacd_cli.server.routes import Responder
from adacd_cli.server.translation import ChunkWriter, Translation, pieces, sent_event

_NOT_STORED = "This server stores nothing; send the whole conversation as `input`."
_ECHOED: JSON = {"instructions": None, "metadata": {}, "temperature": None, "top_p": None, "tools": []}
_ECHOED |= {"tool_choice": "auto", "parallel_tool_calls": True, "max_output_tokens": None}
"""What a response repeats of its request, with what stands where that is left out."""

_LOGPROBS = "message.output_text.logprobs"


class ResponsesRequest(OpenBody):
    """A request of /v1/responses; what is not listed is as in a chat."""

    input: TextOrObjects
    instructions: Annotated[str | None, Field(description="A system message.")] = None
    max_output_tokens: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    include: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    previous_response_id: Annotated[Any, Unsupported(_NOT_STORED)] = None
    conversation: Annotated[Any, Unsupported(_NOT_STORED)] = None
    prompt: Annotated[Any, Unsupported(_NOT_STORED)] = None
    background: Annotated[Any, Unsupported("Answers are given at once.", False)] = None


def chat_of(body: ResponsesRequest) -> Translation:
    """The same request as one of a chat; raises ApiError, 400, with the item that has no counterpart."""
    chat = Translation(body, {"messages": "input"})
    if body.instructions:
        chat.add({"role": "system", "content": body.instructions}, "instructions", content="")
    if isinstance(body.input, str):
        chat.add({"role": "user", "content": body.input}, "input", content="")
    else:
        thought = ""
        for place, item in enumerate(body.input):
            thought = _add(chat, item, f"input[{place}]", thought)
    chat.put("max_tokens", body.max_output_tokens, "max_output_tokens")
    if body.tools is not None:
        chat.put("tools", [_nested(each, "function") for each in body.tools], "tools")
    chat.put("tool_choice", _nested(body.tool_choice, "function"), "tool_choice")
    chat.put("response_format", _nested((body.text or {}).get("format"), "json_schema"), "text.format")
    chat.paths["response_format.json_schema"] = "text.format"
    chat.leave(body.text, ("format",), "text")
    chat.put("reasoning_effort", (body.reasoning or {}).get("effort"), "reasoning.effort")
    chat.leave(body.reasoning, ("effort",), "reasoning")
    include = body.include or []
    if _LOGPROBS in include or chat.fields.get("top_logprobs"):
        chat.fields["logprobs"] = True
    chat.unused["include"] = [each for each in include if each != _LOGPROBS]
    return chat


def _nested(flat: Any, kind: str) -> Any:
    """An object of this type as a chat has it, with its fields under the type's name."""
    if not isinstance(flat, dict) or flat.get("type") != kind:
        return flat
    return {"type": kind, kind: {name: value for name, value in flat.items() if name != "type"}}


def _add(chat: Translation, item: JSON, path: str, thought: str) -> str:
    """Adds an item, behind a thought of the assistant's that is told with it; gives the thought, if it is one."""
    kind = item.get("type", "message")
    if kind == "message":
        told = {"reasoning_content": thought} if thought and item.get("role") == "assistant" else {}
        chat.add({name: value for name, value in item.items() if name != "type"} | told, path)
    elif kind == "function_call":
        messages = chat.fields["messages"]
        if not messages or messages[-1]["role"] != "assistant":
            chat.add({"role": "assistant", "content": ""}, path)
        if thought:
            earlier = messages[-1].get("reasoning_content")
            messages[-1]["reasoning_content"] = f"{earlier}\n{thought}" if earlier else thought
        calls = messages[-1].setdefault("tool_calls", [])
        own = f"messages[{len(messages) - 1}].tool_calls[{len(calls)}]"
        chat.paths |= {own: path, f"{own}.id": f"{path}.call_id", f"{own}.function": path}
        call = {"name": item.get("name"), "arguments": item.get("arguments")}
        calls.append({"id": item.get("call_id"), "type": "function", "function": call})
        chat.leave(item, ("type", "id", "call_id", "name", "arguments", "status"), path)
    elif kind == "function_call_output":
        message = {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
        chat.add({**message, "name": item.get("name")}, path, content="output", tool_call_id="call_id")
        chat.leave(item, ("type", "id", "call_id", "name", "output", "status"), path)
    elif kind == "reasoning":
        chat.leave(item, ("type", "id", "summary", "content", "status"), path)
        parts = item.get("content") or ()
        return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
    else:
        raise refused("An item is a message, a function_call or its output, or reasoning.", f"{path}.type")
    return ""


class ResponsesWriter(ChunkWriter):
    """The answer as OpenAI's client reads it: the response grows, and events tell of it; the whole response is made
    of a stream's last. The item that is begun is the last one, with one part."""

    def __init__(self, body: ResponsesRequest) -> None:
        given = body.model_dump(exclude_unset=True)
        self._response = {name: given.get(name, value) for name, value in _ECHOED.items()}
        self._items: list[JSON] = []
        self._logprobs: list[JSON] = []
        self._kind: str | None = None
        self._number = 0

    def whole(self, response: JSON) -> JSON:
        self.begin(response, 0)
        choice = response["choices"][0]
        self.chunk({**response, "choices": [{**choice, "delta": choice["message"]}]})
        return self._response

    def begin(self, head: JSON, prompt_tokens: int) -> bytes:
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
        sent = b""
        for choice in chunk["choices"]:
            self._logprobs += (choice["logprobs"] or {}).get("content", ())
            for kind, text in pieces(choice["delta"]):
                if kind != self._kind:
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
            self._response["usage"] = {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": usage["completion_tokens_details"],
                "total_tokens": usage["total_tokens"],
            }
        return sent

    def fail(self, error: JSON) -> bytes:
        told = error["error"]
        self._response |= {"status": "failed", "error": {"code": "server_error", "message": told["message"]}}
        return self._whole_event("failed")

    def end(self) -> bytes:
        return self._whole_event(str(self._response["status"]))

    def _open(self, kind: str) -> bytes:
        self._kind, own = kind, secrets.token_hex(12)
        item: JSON = {"type": "reasoning", "id": f"rs_{own}", "summary": []}
        part: JSON = {"type": "reasoning_text", "text": ""}
        if kind == "text":
            item = {"type": "message", "id": f"msg_{own}", "role": "assistant"}
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self._items.append({**item, "content": [], "status": "in_progress"})
        sent = self._event("output_item.added", item=self._items[-1])
        self._items[-1]["content"].append(part)
        return sent + self._part_event("content_part.added", part=part)

    def _extend(self, text: str) -> bytes:
        """Adds a text, and the log-probabilities that came since, to the part."""
        part, new = self._items[-1]["content"][0], self._logprobs
        part["text"] += text
        if self._kind == "text":
            part["logprobs"] += new
            self._logprobs = []
        logprobs = {"logprobs": new} if self._kind == "text" else {}
        return self._part_event(f"{part['type']}.delta", delta=text, **logprobs)

    def _close(self) -> bytes:
        if self._kind is None:
            return b""
        item, part = self._items[-1], self._items[-1]["content"][0]
        logprobs = {"logprobs": part["logprobs"] + self._logprobs} if self._kind == "text" else {}
        part |= logprobs
        self._kind, item["status"], self._logprobs = None, "completed", []
        sent = self._part_event(f"{part['type']}.done", text=part["text"], **logprobs)
        sent += self._part_event("content_part.done", part=part)
        return sent + self._event("output_item.done", item=item)

    def _part_event(self, name: str, **fields: Any) -> bytes:
        return self._event(name, item_id=self._items[-1]["id"], content_index=0, **fields)

    def _event(self, name: str, **fields: Any) -> bytes:
        return self._sent(name, output_index=len(self._items) - 1, **fields)

    def _whole_event(self, name: str) -> bytes:
        return self._sent(name, response=self._response)

    def _sent(self, name: str, **fields: Any) -> bytes:
        kind = f"response.{name}"
        self._number += 1
        return sent_event({"type": kind, "sequence_number": self._number - 1, **fields}, kind)


def add_routes(app: FastAPI, responder: Responder) -> None:
    responder.add_translated(app, "/v1/responses", ResponsesRequest, chat_of, ResponsesWriter)
