"""Chats over a scripted model and byte tokens: what was said is what is fed."""

from __future__ import annotations

import hashlib
import sys

from adacd_cli.cli.chat.talk import Chat, Talk
from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.prompts import Prompts
from tests.fakes import BYTE_EOS, BYTE_VOCAB, named, two_streams

CONTRAST = "refuse"


def hashed(ids):
    """Logits that any change of what was fed changes: letters, and sometimes the end of the turn."""
    seed = hashlib.sha256(bytes(token % 256 for token in ids)).digest()
    logits = [-20.0] * BYTE_VOCAB
    for letter in range(26):
        logits[97 + letter] = seed[letter] / 32
    logits[BYTE_EOS] = seed[26] / 40
    return logits


def byte_pair(conversation: Conversation, settings: Settings) -> Prompts:
    """A template of bytes: a question ends in a newline, an answer in byte 3, a system message in byte 2."""
    ends = {"user": "\n", "assistant": "\x03"}
    turns = "".join(message.content + ends[message.role] for message in conversation.messages)
    system = f"{conversation.system}\x02" if conversation.system else ""
    unprompted = f"{system}{turns}".encode()
    return named(two_streams(unprompted, f"{settings.contrast_prompt}\x02".encode() + unprompted), settings)


EMPTY = Conversation()


def talk(model, *, conversation=EMPTY, build=byte_pair, **settings) -> Talk:
    values = {"contrast_prompt": CONTRAST, "max_new_tokens": 40, "stats": False} | settings
    return Talk(model, Settings(**values), build, conversation)


def chat(model, *, interactive=False, **values) -> Chat:
    """A chat on this process's stdout and stderr, for capsys to read; `values` as `talk` takes them."""
    return Chat(talk(model, **values), out=sys.stdout, err=sys.stderr, interactive=interactive)
