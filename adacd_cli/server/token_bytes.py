"""A token's own bytes, which its text does not show where a character is made of several tokens."""

from __future__ import annotations

import re
from typing import Any

_ONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""How SentencePiece writes a byte that no piece has."""


def _byte_alphabet() -> dict[str, int]:
    """The byte of each character in a byte-level vocabulary (GPT-2's): printable ones are themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    moved = {chr(0x100 + index): byte for index, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | moved


_ALPHABET = _byte_alphabet()


class TokenBytes:
    """The bytes of a vocabulary's tokens, as lists of log-probabilities show them.

    Args:
        tokenizer: the model's.
        ends: ids that end an answer; they are no part of it.
    """

    def __init__(self, tokenizer: Any, ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._left_out = ends.union(getattr(tokenizer, "all_special_ids", ()))

    def bytes_of(self, token_id: int, text: str) -> bytes:
        """The token's bytes.

        Args:
            token_id: the token.
            text: what it decodes to by itself.
        """
        if "\ufffd" not in text:
            return text.encode("utf-8", "surrogatepass")
        piece = str(self._tokenizer.convert_ids_to_tokens(token_id))
        if (one := _ONE_BYTE.fullmatch(piece)) is not None:
            return bytes.fromhex(one[1])
        if all(character in _ALPHABET for character in piece):
            return bytes(_ALPHABET[character] for character in piece)
        return text.encode("utf-8", "surrogatepass")

    def in_text(self, token_id: int) -> bool:
        """Whether the token is part of the answer's text: control tokens are left out of it."""
        return token_id not in self._left_out


def readable(own: bytes) -> str:
    r"""Bytes as text; `bytes:\xf0\x9f`, as OpenAI writes, where they are no whole characters."""
    try:
        return own.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)
