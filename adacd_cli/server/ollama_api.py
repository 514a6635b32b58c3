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
from adacd_cli.server.errors import refused
from adacd_cli.server.fields import JSON, OpenBody, TextOrObject, TextOrSwitch, Unsupported
from adacd_cli.server.routes import Responder, read_body
from adacd_cli.server.schema import MAX_MESSAGES
from adacd_cli.server.translation import EFFORTS, ChunkWriter, Translation, pieces

_AS_IN_A_CHAT = (
    *("temperature", "top_k", "top_p", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty"),
    *("logit_bias", "min_tokens", "stop_token_ids", "ignore_eos"),
)
_OPTIONS = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
_OPTIONS |= {name: name for name in _AS_IN_A_CHAT}
"""The options of an answer, and a chat's fields for them."""

_OF_THE_MACHINE = (
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "numa", "low_vram"),
    *("use_mmap", "use_mlock", "vocab_only", "f16_kv", "logits_all", "embedding_only"),
)
"""Options that are not for an answer, or not for this server; they change nothing."""

_DETAILS = {"parent_model": "", "format": "adacd", "family": "adacd", "families": ["adacd"]}
_DETAILS |= {"parameter_size": "", "quantization_level": ""}


class OllamaRequest(OpenBody):
    """What both kinds of request have; what is not listed is as in a chat."""

    model: str | None = None
    stream: bool | None = None
    options: dict[str, Any] | None = None
    format: TextOrObject | None = None
    think: TextOrSwitch | None = None
    keep_alive: Annotated[Any, Field(description="Accepted; the model stays loaded.")] = None


class OllamaMessage(OpenBody):
    """A message; what is not listed is as in a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: Annotated[Any, Unsupported("Images are not supported.", [])] = None


class OllamaChat(OllamaRequest):
    """A request of /api/chat."""

    messages: Annotated[list[OllamaMessage] | None, Field(max_length=MAX_MESSAGES)] = None
    tools: Any = None


class OllamaGenerate(OllamaRequest):
    """A request of /api/generate."""

    prompt: str | None = None
    system: str | None = None
    suffix: Annotated[Any, Unsupported("`suffix` is not supported.", "")] = None
    template: Annotated[Any, Unsupported("The model's own template is used.", "")] = None
    context: Annotated[Any, Unsupported("Send the conversation to /api/chat.", [])] = None
    raw: Annotated[Any, Unsupported("Send a text without a template to /v1/completions.", False)] = None
    images: Annotated[Any, Unsupported("Images are not supported.", [])] = None


def chat_of(body: OllamaChat | OllamaGenerate) -> Translation:
    """The same request as one of a chat."""
    chat = Translation(body)
    options = body.options or {}
    for name in options.keys() & _OPTIONS.keys():
        chat.put(_OPTIONS[name], options[name], f"options.{name}")
    chat.leave(options, (*_OPTIONS, *_OF_THE_MACHINE), "options")
    if isinstance(length := options.get("num_predict"), int) and length < 0:
        chat.fields["max_tokens"] = -1  # -2: as long as the context
    if isinstance(body, OllamaChat):
        for place, message in enumerate(body.messages or ()):
            _add(chat, message, f"messages[{place}]")
        chat.put("tools", body.tools, "tools")
    else:
        chat.paths["messages"] = "prompt"
        if body.system:
            chat.add({"role": "system", "content": body.system}, "system", content="")
        chat.add({"role": "user", "content": body.prompt or ""}, "prompt", content="")
    if isinstance(body.format, str) and body.format not in ("", "json"):
        raise refused("`format` is json or a JSON schema.", "format")
    if body.format:
        schema = {"type": "json_schema", "json_schema": {"schema": body.format}}
        wanted = {"type": "json_object"} if isinstance(body.format, str) else schema
        chat.put("response_format", wanted, "format")
    if body.think is not None:
        chat.put("reasoning_effort", EFFORTS.get(body.think, body.think), "think")
    chat.fields |= {"model": _name(body.model), "stream": body.stream is not False}
    return chat


def _name(model: Any) -> str | None:
    return None if model is None else str(model).removesuffix(":latest")  # the newest version


def _add(chat: Translation, message: OllamaMessage, path: str) -> None:
    given = message.model_dump(exclude_none=True)
    renamed = {"name": "tool_name", "reasoning_content": "thinking"}
    own = {name: given.pop(other) for name, other in renamed.items() if other in given}
    given.pop("images", None)
    chat.add({"content": "", **given, **own}, path, **{name: renamed[name] for name in own})


class OllamaWriter(ChunkWriter):
    """The answer as Ollama's client reads it; of a chat, or of generate."""

    media_type = "application/x-ndjson"

    def __init__(self, body: OllamaChat | OllamaGenerate) -> None:
        self._model, self._is_chat = body.model, isinstance(body, OllamaChat)
        self._began = time.perf_counter_ns()
        self._first: int | None = None
        self._end: JSON = {}

    def whole(self, response: JSON) -> JSON:
        choice = response["choices"][0]
        self.chunk({**response, "choices": [{**choice, "delta": {}, "logprobs": None}]})
        return {**self.line(choice["message"], response), **_logprobs(choice), **self._last()}

    def chunk(self, chunk: JSON) -> bytes:
        self._end.update({name: chunk[name] for name in ("model", "usage", "adacd") if chunk.get(name)})
        sent = b""
        for choice in chunk["choices"]:
            if pieces(choice["delta"]) or choice["logprobs"]:
                self._first = self._first or time.perf_counter_ns()
                line = {**self.line(choice["delta"], chunk), **_logprobs(choice), "done": False}
                sent += to_json(line) + b"\n"
            if choice["finish_reason"] is not None:
                self._end["reason"] = choice["finish_reason"]
        return sent

    def fail(self, error: JSON) -> bytes:
        return to_json({"error": error["error"]["message"]}) + b"\n"

    def end(self) -> bytes:
        return to_json({**self.line({}, self._end), **self._last()}) + b"\n"

    def line(self, message: JSON, chunk: JSON) -> JSON:
        """A line without numbers."""
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


def _logprobs(choice: JSON) -> JSON:
    return {"logprobs": choice["logprobs"]["content"]} if choice["logprobs"] else {}


def add_routes(app: FastAPI, responder: Responder) -> None:
    state = responder.state

    def loaded(body: OllamaChat | OllamaGenerate) -> JSON | None:
        """By asking nothing, Ollama's clients have a model loaded."""
        if body.messages if isinstance(body, OllamaChat) else body.prompt:
            return None
        state.check_model(_name(body.model))
        line = OllamaWriter(body).line({}, {"model": state.model_id})
        return {**line, "done": True, "done_reason": "load"}

    responder.add_translated(app, "/api/chat", OllamaChat, chat_of, OllamaWriter, loaded)
    responder.add_translated(app, "/api/generate", OllamaGenerate, chat_of, OllamaWriter, loaded)

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
        state.check_model(_name(given))
        length = None if state.model is None else state.model.context_length
        info = {"general.architecture": "adacd", "general.basename": state.model_id}
        return {
            "details": _DETAILS,
            "model_info": {**info, **({"adacd.context_length": length} if length else {})},
            "capabilities": ["completion"],
        }
