"""What another format is made of: a `Translation` of its body to a request as one of a chat, so that errors and
warnings name the fields that the client sent, and a `ChunkWriter` of the answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from adacd_cli.server.errors import ApiError, api_error
from adacd_cli.server.fields import JSON
from adacd_cli.server.schema import ChatRequest

EFFORTS: dict[Any, str] = {True: "medium", False: "none"}  # where another format only says whether to think
_QUOTED = re.compile(r"`([^`]+)`")


@dataclass
class Translation:
    """A request of another format as one of a chat."""

    body: BaseModel  # the request; what it holds besides the format's own fields is as in a chat
    # what a place in the chat is called in the request, by the beginning of its path
    paths: dict[str, str] = field(default_factory=dict)
    not_shown: tuple[str, ...] = ()  # fields of a chat whose results the format has no place for
    fields: dict[str, Any] = field(init=False)  # the chat's
    # what the chat has no counterpart for, by its path in the request
    unused: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fields = {**(self.body.model_extra or {}), "messages": []}

    def put(self, name: str, value: Any, path: str) -> None:
        """Sets a field of the chat to a value, which is at this path in the request; None leaves it out."""
        if value is not None:
            self.fields[name], self.paths[name] = value, path

    def leave(self, given: Mapping[str, Any] | None, used: Collection[str], path: str) -> None:
        """Notes what is in an object of the request, at this path, besides the names that are used."""
        self.unused |= {f"{path}.{name}": value for name, value in (given or {}).items() if name not in used}

    def add(self, message: dict[str, Any], path: str, **renamed: str) -> str:
        """Adds a message of the chat, which is at this path in the request, with some of its fields at others there
        ("": the path itself); gives its path in the chat."""
        own = f"messages[{len(self.fields['messages'])}]"
        self.fields["messages"].append(message)
        self.paths[own] = path
        self.paths |= {f"{own}.{name}": f"{path}.{other}".rstrip(".") for name, other in renamed.items()}
        return own

    def request(self) -> ChatRequest:
        """The chat's request; ValidationError where it is none."""
        options = self.fields.pop("stream_options", None)
        for name in ("n", *self.not_shown):
            self.fields.pop(name, None)
        for name, value in (self.body.model_extra or {}).items():
            if name != "stream_options" and self.fields.get(name) != value:
                self.unused[name] = value
        own = self.fields.get("adacd")
        if self.fields.get("stream") and isinstance(own, dict):
            self.unused["adacd.trace"] = own.get("trace") or None  # its steps have no place in the stream
        self.leave(options if isinstance(options, dict) else {}, (), "stream_options")
        usage = {"include_usage": True} if self.fields.get("stream") else None
        return ChatRequest.model_validate({**self.fields, "stream_options": usage})

    def renamed(self, sentence: str) -> str:
        """A sentence with its fields as the request calls them."""
        return _QUOTED.sub(lambda found: f"`{self._path(found[1])}`", sentence)

    def _path(self, path: str) -> str:
        end = len(path)
        while end > 0:
            if path[:end] in self.paths:
                return self.paths[path[:end]] + path[end:]
            end = max(path.rfind(".", 0, end), path.rfind("[", 0, end))
        return path

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors name fields as the request does."""
        try:
            yield
        except (ApiError, ValidationError) as error:
            refusal = api_error(error)
            refusal.param = refusal.param and self._path(refusal.param)
            refusal.message = self.renamed(refusal.message)
            raise refusal from None


class ChunkWriter:
    """How an answer is sent: whole, or as server-sent events, a chunk each; other formats' are subclasses."""

    media_type = "text/event-stream"

    def __init__(self, body: Any = None) -> None:
        """Writes the answer to such a body."""

    def whole(self, response: JSON) -> JSON:
        return response

    def begin(self, head: JSON, prompt_tokens: int) -> bytes:
        """What opens a stream of chunks with these fields in common: `id`, `created` and `model`."""
        return b""

    def chunk(self, chunk: JSON) -> bytes:
        return sent_event(chunk)

    def fail(self, error: JSON) -> bytes:
        """What ends a stream that failed: an error in OpenAI's format."""
        return sent_event(error)

    def end(self) -> bytes:
        return b"data: [DONE]\n\n"


def sent_event(data: JSON, name: str = "") -> bytes:
    """A server-sent event, with or without a name."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + to_json(data) + b"\n\n"


def pieces(delta: JSON) -> list[tuple[str, str]]:
    """What a chunk adds, or a whole message holds: ("thinking", its text) and ("text", its text)."""
    names = (("thinking", "reasoning_content"), ("text", "content"))
    return [(kind, delta[name]) for kind, name in names if delta.get(name)]
