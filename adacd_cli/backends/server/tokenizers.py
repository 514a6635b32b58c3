"""Whether a server encodes text as the tokenizer that was given does, by a few texts encoded by both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adacd_cli.backends.server.dialect import Dialect
from adacd_cli.backends.server.errors import OWN_TOKENIZER, ServerRefused
from adacd_cli.errors import ModelError

_PIECES = (
    "Hello",
    " world",
    " 12345",
    "ünïcödé",
    " Привет",
    "你好",
    "こんにちは",
    " 🙂",
    "\n\tdef f(x):",
    "Ω≈ç",
)
"""What both tokenizers encode: words, digits and several scripts."""


def whole_token(tokenizer: Any) -> int:
    """A token whose text is whole characters.

    Raises:
        ModelError: the tokenizer has none for a plain letter.
    """
    ids = tokenizer.encode("a", add_special_tokens=False)
    if not ids:
        raise ModelError('The tokenizer encodes "a" as nothing.', "Name the model's own with --tokenizer.")
    return int(ids[-1])


async def compare_tokenizers(address: str, dialect: Dialect, tokenizer: Any, warnings: list[str]) -> bool:
    """Whether both could be compared; text by text, so that one odd text does not make it another tokenizer.

    Args:
        address: the server's, for messages.
        dialect: how it is asked.
        tokenizer: what the prompts are encoded with.
        warnings: a sentence is added where some text is encoded in another way.

    Raises:
        ModelError: they differ in a control token of the tokenizer, or in most of the text.
    """
    controls = _controls(tokenizer)
    different = []
    for piece in (*controls, *_PIECES):
        mine = [int(each) for each in tokenizer.encode(piece, add_special_tokens=False)]
        try:
            theirs = await dialect.tokenize(piece)
        except ServerRefused:
            theirs = None
        if theirs is None:
            return False
        if mine != theirs:
            different.append((piece, mine, theirs))
    wrong = [each for each in different if each[0] in controls]
    if wrong or len(different) > len(_PIECES) // 2:
        piece, mine, theirs = (wrong or different)[0]
        raise ModelError(
            f"The server at {address} has another tokenizer than the one given: {piece!r} is {_ids(theirs)} "
            f"there and {_ids(mine)} here.",
            OWN_TOKENIZER,
        )
    if different:
        piece, mine, theirs = different[0]
        warnings.append(
            f"The server encodes some text in another way than the tokenizer: {piece!r} is {_ids(theirs)} "
            f"there and {_ids(mine)} here."
        )
    return True


def _controls(tokenizer: Any) -> tuple[str, ...]:
    """The control tokens that prompts and ends are made of, as far as the tokenizer writes each as one."""
    found = dict.fromkeys(
        str(token) for token in (tokenizer.bos_token, tokenizer.eos_token) if isinstance(token, str) and token
    )
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    found |= dict.fromkeys(token for token in added if token.strip() and token in template)
    return tuple(found)[:16]


def _ids(ids: Sequence[int]) -> str:
    return "[" + ", ".join(str(each) for each in ids[:8]) + (", …]" if len(ids) > 8 else "]")
