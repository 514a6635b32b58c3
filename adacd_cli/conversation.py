"""A conversation: an optional system message and its turns; saved and loaded as JSON. It knows no template and no
tokenizer: `prompts` turns it into token ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from adacd_cli.errors import OutputError, PromptError, UsageError

Role = Literal["user", "assistant", "tool", "system"]


@dataclass(frozen=True)
class Message:
    """One turn: its role, the text, and what else a chat template may read, such as `tool_calls`."""

    role: Role
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Conversation:
    """An immutable conversation; each change gives a new one, so that undo is keeping the old."""

    # the turns, user and assistant in alternation, user first; an assistant's at the end begins the answer
    messages: tuple[Message, ...] = ()
    system: str | None = None  # the user's own system message, in both streams; None or "" for none
    variables: Mapping[str, Any] = field(default_factory=dict, hash=False)  # of the template, such as `tools`

    @classmethod
    def ask(cls, prompt: str, system: str | None = None) -> Conversation:
        """The one-question conversation."""
        return cls((Message("user", prompt),), system)

    @classmethod
    def of(cls, messages: Sequence[Mapping[str, object]]) -> Conversation:
        """The conversation that is a list of `{"role", "content"}`, as clients and chat templates have it: roles
        user and assistant, the first may be system; the content is text, or a list of parts `{"type": "text",
        "text": …}`. PromptError where a message has another role, or content that is not text."""
        read = _read_messages(messages)
        if isinstance(read, str):
            raise PromptError(
                f"The messages are no conversation: {read}.",
                'Give a list of {"role": "user" or "assistant", "content": text}; the first may be "system".',
            )
        return read

    @property
    def as_messages(self) -> list[dict[str, str]]:
        """What `of` reads, and `apply_chat_template` of a tokenizer: the system message first."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + [{"role": message.role, "content": message.content} for message in self.messages]

    def with_user(self, text: str) -> Conversation:
        return replace(self, messages=(*self.messages, Message("user", text)))

    def with_assistant(self, text: str) -> Conversation:
        """With an answer, which goes on with the assistant's message where the last one is that."""
        if self.messages and self.messages[-1].role == "assistant":
            last = self.messages[-1]
            return replace(self, messages=(*self.messages[:-1], replace(last, content=last.content + text)))
        return replace(self, messages=(*self.messages, Message("assistant", text)))

    def with_system(self, system: str | None) -> Conversation:
        return replace(self, system=system)

    def without_last_turn(self) -> Conversation:
        """The conversation before its last user message; unchanged when there is none."""
        users = self.questions
        return replace(self, messages=self.messages[: users[-1]]) if users else self

    @property
    def questions(self) -> list[int]:
        return [index for index, message in enumerate(self.messages) if message.role == "user"]

    def save(self, path: Path) -> None:
        """Writes `{"messages": [{"role", "content"}, …]}`, the system message first, in UTF-8. OutputError where
        the file cannot be written."""
        text = json.dumps({"messages": self.as_messages}, ensure_ascii=False, indent=2)
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"The conversation could not be saved to {path}: {error.strerror or error}.",
                "Name a file in a folder that exists and that you may write to.",
            ) from error

    @classmethod
    def load(cls, path: Path) -> Conversation:
        """Reads what `save` wrote, or a bare list of messages. UsageError where the file cannot be read or is not a
        conversation."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            messages = data.get("messages") if isinstance(data, dict) else data
            read = _read_messages(messages) if isinstance(messages, list) else "it has no list of messages"
        except OSError as error:
            raise UsageError(
                f"The conversation {path} could not be read: {error.strerror or error}.",
                "Name a file that /save wrote.",
            ) from error
        except UnicodeDecodeError:
            read = "it is not UTF-8"
        except json.JSONDecodeError as error:
            read = f"it is not JSON (line {error.lineno}, column {error.colno})"
        if isinstance(read, str):
            raise UsageError(f"{path} is not a saved conversation: {read}.", "Name a file that /save wrote.")
        return read


def _read_messages(messages: Sequence[object]) -> Conversation | str:
    system: str | None = None
    turns: list[Message] = []
    for position, entry in enumerate(messages):
        role = entry.get("role") if isinstance(entry, Mapping) else None
        content = _text_of(entry.get("content")) if isinstance(entry, Mapping) else None
        if content is None:
            return f"message {position} has no text"
        if role == "system" and position == 0:
            system = content
        elif role == "user" or role == "assistant":
            turns.append(Message(role, content))
        else:
            return f"message {position} has role {role!r}"
    return Conversation(tuple(turns), system)


def _text_of(content: object) -> str | None:
    """Text, or the texts of a list of parts joined; None where something else is among them."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, (list, tuple)) else ()
    texts = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"]
    whole = texts and len(texts) == len(parts) and all(isinstance(text, str) for text in texts)
    return "".join(map(str, texts)) if whole else None
