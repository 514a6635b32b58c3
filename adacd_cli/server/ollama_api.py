"""Ollama's chat and generate: a request as one of a chat, and the answer as lines of JSON, or whole."""

from __future__ import annotations

import hashlib
import time
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from pydantic import Field
from pydantic_core import to_json

from adacd_cli import __version__
from adacd_cli.server.description import read_body
from adacd_cli.server.errors import refused
from adacd_cli.server.openai_format import JSON
from adacd_cli.server.routes import Responder
from adacd_cli.server.schema import EFFORTS, MAX_MESSAGES, OpenBody, Unsupported
from adacd_cli.server.streaming import ChunkWriter, pieces

NAMES = {"max_tokens": "options.num_predict", "response_format": "format", "reasoning_effort": "think"}
NAMES |= {name: f"options.{name}" for name in ("temperature", "top_k", "top_p", "seed", "stop", "min_p")}
"""What a chat's fields are called here."""

_OPTIONS = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
_OF_THE_MACHINE = (
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "numa", "low_vram"),
    *("use_mmap", "use_mlock", "vocab_only", "f16_kv", "logits_all", "repeat_last_n", "typical_p"),
)
"""Options that are not for an answer, or not for this server; they change nothing."""

_DETAILS = {"parent_model": "", "format": "adacd", "family": "adacd", "families": ["adacd"]}
_DETAILS |= {"parameter_size": "", "quantization_level": ""}


class OllamaRequest(OpenBody):
    """What both kinds of request have; what is not listed is as in a chat."""

    model: str | None = None
    stream: bool | None = None
    options: dict[str, Any] | None = None
    format: Annotated[str | dict[str, Any] | None, Field(description="`json`, or a JSON schema.")] = None
    think: bool | str | None = None
    keep_alive: Annotated[Any, Field(description="Accepted; the model stays loaded.")] = None


class OllamaMessage(OpenBody):
    """A message; what is not listed is as in a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: Annotated[Any, Unsupported("Images are not supported.", [])] = None


class OllamaChat(OllamaRequest):
    """A request of /api/chat."""

    messages: Annotated[list[OllamaMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Any = None


class OllamaGenerate(OllamaRequest):
    """A request of /api/generate."""

    prompt: str
    system: str | None = None
    suffix: Annotated[Any, Unsupported("`suffix` is not supported.", "")] = None
    template: Annotated[Any, Unsupported("The model's own template is used.", "")] = None
    context: Annotated[Any, Unsupported("Send the conversation to /api/chat.", [])] = None
    raw: Annotated[Any, Unsupported("Send a text without a template to /v1/completions.", False)] = None
    images: Annotated[Any, Unsupported("Images are not supported.", [])] = None


def chat_of(body: OllamaChat | OllamaGenerate) -> JSON:
    """The same request as one of a chat."""
    chat: JSON = dict(body.model_extra or {})
    for name, value in (body.options or {}).items():
        if name not in _OF_THE_MACHINE:
            chat[_OPTIONS.get(name, name)] = value
    if isinstance(chat.get("max_tokens"), int) and chat["max_tokens"] < 0:
        del chat["max_tokens"]  # as long as it gets
    if isinstance(body, OllamaChat):
        chat["messages"] = [_message(each) for each in body.messages]
        chat["tools"] = body.tools
    else:
        system = [{"role": "system", "content": body.system}] if body.system else []
        chat["messages"] = [*system, {"role": "user", "content": body.prompt}]
    if isinstance(body.format, str) and body.format not in ("", "json"):
        raise refused("`format` is json or a JSON schema.", "format")
    if body.format:
        schema = {"type": "json_schema", "json_schema": {"schema": body.format}}
        chat["response_format"] = {"type": "json_object"} if isinstance(body.format, str) else schema
    if body.think is not None:
        chat["reasoning_effort"] = EFFORTS.get(body.think, body.think)
    model = None if body.model is None else body.model.removesuffix(":latest")
    return {**chat, "model": model, "stream": body.stream is not False}


def _message(message: OllamaMessage) -> JSON:
    given = message.model_dump(exclude_none=True)
    own: JSON = {name: given[name] for name in ("role", "content", "tool_calls") if name in given}
    return {"content": "", **own, "name": given.get("tool_name")}


class OllamaWriter(ChunkWriter):
    """The answer as Ollama's client reads it; of a chat, or of generate."""

    media_type = "application/x-ndjson"

    def __init__(self, body: OllamaChat | OllamaGenerate) -> None:
        self._model, self._is_chat = body.model, isinstance(body, OllamaChat)
        self._began = time.perf_counter_ns()
        self._first: int | None = None
        self._end: JSON = {}

    def whole(self, response: JSON) -> JSON:
        """The whole answer."""
        choice = response["choices"][0]
        self.chunk({**response, "choices": [{**choice, "delta": {}}]})
        return {**self._line(choice["message"], response), **self._last()}

    def chunk(self, chunk: JSON) -> bytes:
        """A line, where there is text."""
        self._end.update({name: chunk[name] for name in ("model", "usage", "adacd") if chunk.get(name)})
        sent = b""
        for choice in chunk["choices"]:
            if pieces(choice["delta"]):
                self._first = self._first or time.perf_counter_ns()
                sent += to_json({**self._line(choice["delta"], chunk), "done": False}) + b"\n"
            if choice["finish_reason"] is not None:
                self._end["reason"] = choice["finish_reason"]
        return sent

    def fail(self, error: JSON) -> bytes:
        """A line with the error."""
        return to_json({"error": error["error"]["message"]}) + b"\n"

    def end(self) -> bytes:
        """The line with the numbers."""
        return to_json({**self._line({}, self._end), **self._last()}) + b"\n"

    def _line(self, message: JSON, chunk: JSON) -> JSON:
        made = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
        head = {"model": self._model or chunk["model"], "created_at": made}
        own = dict(pieces(message))
        text = own.pop("text", "")  # what is left is the thinking
        if self._is_chat:
            return {**head, "message": {"role": "assistant", "content": text, **own}}
        return {**head, "response": text, **own}

    def _last(self) -> JSON:
        now, usage = time.perf_counter_ns(), self._end["usage"]
        first = self._first or self._began
        return {
            "done": True,
            "done_reason": "length" if self._end["reason"] == "length" else "stop",
            "total_duration": now - self._began,
            "load_duration": 0,
            "prompt_eval_count": usage["prompt_tokens"],
            "prompt_eval_duration": first - self._began,
            "eval_count": usage["completion_tokens"],
            "eval_duration": now - first,
            "adacd": self._end["adacd"],
        }


def add_routes(app: FastAPI, responder: Responder) -> None:
    """Adds the routes to the application."""
    state, lines = responder.state, OllamaWriter.media_type
    responder.add_translated(app, "/api/chat", OllamaChat, chat_of, OllamaWriter, NAMES, stream=lines)
    responder.add_translated(app, "/api/generate", OllamaGenerate, chat_of, OllamaWriter, NAMES, stream=lines)

    @app.get("/api/version", include_in_schema=False)
    async def version() -> JSON:
        return {"version": __version__}

    @app.get("/api/tags", include_in_schema=False)
    @app.get("/api/ps", include_in_schema=False)
    async def tags() -> JSON:
        name = state.model_id
        digest = hashlib.sha256(name.encode()).hexdigest()
        made = datetime.fromtimestamp(state.created, timezone.utc).isoformat()
        times, sizes = {"modified_at": made, "expires_at": made}, {"size": 0, "size_vram": 0}
        own = {"name": name, "model": name, "digest": digest, "details": _DETAILS}
        return {"models": [{**own, **times, **sizes}]}

    @app.post("/api/show", include_in_schema=False)
    async def show(request: Request) -> JSON:
        responder.worker.check_state()
        body = await read_body(request, OllamaRequest)
        given = body.model or (body.model_extra or {}).get("name")
        state.check_model(None if given is None else str(given).removesuffix(":latest"))
        length = None if state.model is None else state.model.context_length
        info = {"general.architecture": "adacd", "general.basename": state.model_id}
        return {
            "details": _DETAILS,
            "model_info": {**info, **({"adacd.context_length": length} if length else {})},
            "capabilities": ["completion"],
        }
