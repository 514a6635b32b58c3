"""A token's bytes, by the two ways in which vocabularies write what is no whole character."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from adacd_cli.demo import model_folder
from adacd_cli.server.openai_format import TokenBytes, readable

EMOJI = "🎉é"


def test_the_bytes_of_a_texts_tokens_are_the_texts() -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    ids = tokenizer.encode(EMOJI, add_special_tokens=False)
    assert len(ids) > len(EMOJI)  # the demo's tokens are of bytes
    token_bytes = TokenBytes(tokenizer, frozenset({7}))
    assert b"".join(token_bytes.bytes_of(each, tokenizer.decode([each])) for each in ids) == EMOJI.encode()
    assert [token_bytes.in_text(each) for each in (ids[0], 7, tokenizer.all_special_ids[0])] == [
        True,
        False,
        False,
    ]


class Pieces:
    all_special_ids = ()

    def __init__(self, piece: str) -> None:
        self._piece = piece

    def convert_ids_to_tokens(self, token_id: int) -> str:
        return self._piece


@pytest.mark.parametrize(
    ("piece", "text", "own", "written"),
    [
        ("<0xF0>", "\ufffd", b"\xf0", "bytes:\\xf0"),
        ("\ufffd", "\ufffd", "\ufffd".encode(), "\ufffd"),
        ("▁Hi", "Hi", b"Hi", "Hi"),
        ("ðŁ", "\ufffd", b"\xf0\x9f", "bytes:\\xf0\\x9f"),
    ],
)
def test_a_piece(piece: str, text: str, own: bytes, written: str) -> None:
    found = TokenBytes(Pieces(piece), frozenset()).bytes_of(3, text)
    assert (found, readable(found)) == (own, written)
