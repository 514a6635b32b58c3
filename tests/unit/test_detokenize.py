"""Text is released when it is final, and joined it is the whole."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from adacd_cli.engine.answer import Detokenizer, StopGate, TextStream
from tests.fakes import BYTE_EOS, ByteTokenizer


def pieces(detokenizer, ids):
    return [detokenizer.push(token_id) for token_id in ids]


def test_a_character_comes_when_its_last_byte_does():
    stream = TextStream(ByteTokenizer())
    assert pieces(stream, "aé€😀".encode()) == ["a", "", "é", "", "", "€", "", "", "", "😀"]
    assert stream.flush() == ""


def test_what_never_becomes_whole_comes_out_at_the_end():
    stream = TextStream(ByteTokenizer())
    assert pieces(stream, [*b"ok", 0xF0, 0x9F]) == ["o", "k", "", ""]
    assert stream.flush() == "\ufffd"


def test_bytes_that_are_no_text_are_released_as_soon_as_that_is_clear():
    stream = TextStream(ByteTokenizer())
    assert "".join(pieces(stream, [0xFF] * 9)) + stream.flush() == "\ufffd" * 9


def test_a_text_that_is_continued_keeps_its_space():
    backend = Tokenizer(models.WordLevel({"▁kill": 0, "▁it": 1, "s": 2}, unk_token="s"))
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert pieces(TextStream(tokenizer), [1, 2]) == ["it", "s"]
    assert pieces(TextStream(tokenizer, [0]), [1, 2]) == [" it", "s"]
    assert pieces(TextStream(ByteTokenizer(), b"a\xe2\x82"), b"b") == [
        "b"
    ]  # half a character is left as it is


@given(st.text(max_size=40))
def test_any_text_comes_back_whole(text):
    stream = TextStream(ByteTokenizer())
    assert "".join(pieces(stream, text.encode())) + stream.flush() == text


@example("\ufffd" * 4 + "\u20ac", ["\u20ac"])  # more than a character has bytes, then one in parts
@given(
    st.text(alphabet="ab\u20ac\ufffd", max_size=12),
    st.lists(st.text(alphabet="ab\u20ac", min_size=1), max_size=3),
)
def test_the_answer_ends_before_the_first_stop_string(text, stops):
    detokenizer = Detokenizer(ByteTokenizer(), stops)
    out = ""
    for token_id in text.encode():
        out += detokenizer.push(token_id)
        if detokenizer.stopped:
            break
    out += detokenizer.flush()
    assert bool(detokenizer.stopped) == any(stop in text for stop in stops)
    # the first stop string to be complete ends the answer; of several at once, the one that began first
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    first = min((end for end, _ in ends), default=None)
    expected = text if first is None else text[: min(begin for end, begin in ends if end == first)]
    assert out == expected
    assert detokenizer.stopped is None or text[len(out) :].startswith(detokenizer.stopped)


@pytest.mark.parametrize(
    ("pushed", "given_out"),
    [
        (["a", "b", "c"], ["a", "", ""]),  # "bc" waits for the d of "bcd"
        (["a", "bc", "x"], ["a", "", "bcx"]),
        (["abcd", "e"], ["a", "e"]),
    ],
)
def test_half_a_stop_string_waits(pushed, given_out):
    gate = StopGate(["bcd"])
    assert [gate.push(text) for text in pushed] == given_out
    assert gate.stopped == ("bcd" if "abcd" in pushed else None)


def test_control_tokens_are_left_out_and_leading_space_goes_after_thinking():
    detokenizer = Detokenizer(ByteTokenizer(), [], strip_start=True)
    assert "".join(pieces(detokenizer, [*b"\n\n ", BYTE_EOS, *b"Yes no"])) == "Yes no"


class SpaceDropper:
    """Like a sentencepiece tokenizer: ids are words, and decoding drops the first word's space."""

    words = (" I", " am", " here", "!")

    def decode(self, ids, skip_special_tokens=False, clean_up_tokenization_spaces=False):
        return "".join(self.words[token_id] for token_id in ids).removeprefix(" ")


def test_the_space_between_words_survives_a_tokenizer_that_drops_the_first():
    assert pieces(TextStream(SpaceDropper()), [0, 1, 2, 3]) == ["I", " am", " here", "!"]
