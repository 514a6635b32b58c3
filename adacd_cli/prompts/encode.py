"""Rendered text to token ids, where control tokens count only if the template wrote them.

`Escape` hides, before a template is rendered, each character of the user's texts that a control token can begin
with behind an unused private-use character, one for one: whatever the template does to the texts then (trim, cut,
join), what still reads as a control token was written by the template. Where nothing of the user's reads as one,
the ids are the tokenizer's own for the text. Elsewhere the text is encoded by a copy of the tokenizer that knows
control tokens by other names, which the text does not hold; so what the user wrote is plain text to it, in the very
segments the tokenizer would make of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise
from typing import Any
from weakref import WeakKeyDictionary

from adacd_cli.errors import PromptError

# code points that Unicode gives no meaning; text holds few of them if any
PRIVATE_USE = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))


class ControlTokens:
    """The added tokens of a tokenizer, special or not, that stand for more than their own text. Tokens of white
    space alone (blank lines, runs of spaces) are ordinary text and not among them."""

    def __init__(self, tokenizer: Any) -> None:
        added = tokenizer.added_tokens_decoder.items()
        kept = [(str(token), index, token) for index, token in added if str(token).replace("▁", " ").strip()]
        self.tokens = {text: token for text, _, token in kept}  # the tokenizer's own AddedToken by content
        self.ids = {text: index for text, index, _ in kept}
        self.pattern = _any_of(self.tokens)  # matches any of them, the longest first
        # A sign like `<` is hidden wherever it stands, a letter only where a whole token follows: templates
        # look for words in the messages ("/no_think"), and seldom for signs.
        texts = [text.strip() for text in self.tokens]
        signs = {text[0] for text in texts if not text[0].isalnum()}
        words = [text for text in texts if text[0].isalnum()]
        self.anchors = "".join(sorted(signs | {word[0] for word in words}))  # what `starts` can match
        starts = [re.escape(sign) for sign in sorted(signs)] + ([f"(?={_trie(words)})."] if words else [])
        # matches each character of a text that a control token may begin with
        self.starts = re.compile("|".join(starts) or "(?!)")
        self._normalizer: Any = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        loose = [text for text, token in self.tokens.items() if token.normalized] if self._normalizer else []
        self._loose = _any_of({self._normalize(text) for text in loose}) if loose else None

    def reads_when_normalized(self, text: str) -> bool:
        """Whether the tokenizer would see a control token in another spelling of it in the text."""
        return self._loose is not None and self._loose.search(self._normalize(text)) is not None

    def _normalize(self, text: str) -> str:
        return str(self._normalizer.normalize_str(text))


class Escape:
    """Stand-ins for the characters that control tokens begin with, one for one: characters that neither the user's
    texts nor the template (`source`) hold. `loose` tells whether the tokenizer would see a control token in another
    spelling of it in one of the texts. PromptError where the texts leave no character to stand in."""

    def __init__(self, control: ControlTokens, texts: Sequence[str], source: str = "") -> None:
        used = set(source).union(*texts, *control.tokens)
        names = unused_characters(used, len(control.anchors))
        self._stand_ins = dict(zip(control.anchors, names, strict=True))
        self._shown = {ord(name): anchor for anchor, name in self._stand_ins.items()}
        self._control = control
        # other spellings are such as full-width signs
        self.loose = any(control.reads_when_normalized(text) for text in texts)

    def hide(self, text: str, keep: Sequence[str] = ()) -> str:
        """The text with stand-ins; the strings of `keep` stay as they are."""
        if keep:
            pieces = re.split(f"({'|'.join(map(re.escape, keep))})", text)
            return "".join(piece if place % 2 else self.hide(piece) for place, piece in enumerate(pieces))
        return self._control.starts.sub(lambda match: self._stand_ins[match[0]], text)

    def show(self, text: str) -> str:
        """The text as it was."""
        return text.translate(self._shown)


def unused_characters(used: set[str], count: int) -> list[str]:
    """So many private-use characters that are not used; raises PromptError where there are fewer."""
    found = list(islice((chr(code) for code in PRIVATE_USE if chr(code) not in used), count))
    if len(found) < count:
        raise PromptError(
            "The conversation holds so many private-use characters that none is left to protect it with.",
            "Take the characters of the private-use areas out of the text.",
        )
    return found


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the words, the longest first; nothing when there is none."""
    return re.compile(_trie(list(words)) or "(?!)")


def _trie(words: Sequence[str]) -> str:
    """A regular expression for any of the words; a trie, so that its cost does not grow with their number."""
    rests: dict[str, list[str]] = {}
    for word in words:
        if word:
            rests.setdefault(word[0], []).append(word[1:])
    branches = "|".join(re.escape(first) + _trie(rest) for first, rest in rests.items())
    if branches and "" in words:
        return f"(?:{branches})?"
    return f"(?:{branches})" if len(rests) > 1 else branches


_Spans = list[tuple[int, int]]
_ENCODERS: WeakKeyDictionary[Any, Encoder] = WeakKeyDictionary()


class Encoder:
    """Encodes for one tokenizer, whose control tokens are `control`."""

    def __init__(self, tokenizer: Any) -> None:
        self.control = ControlTokens(tokenizer)
        self.size = len(tokenizer)
        self._renamed: _RenamedTokenizer | None = None

    @classmethod
    def of(cls, tokenizer: Any) -> Encoder:
        """The encoder of a tokenizer, made anew when tokens were added to it."""
        encoder = _ENCODERS.get(tokenizer)
        if encoder is None or encoder.size != len(tokenizer):
            encoder = _ENCODERS[tokenizer] = cls(tokenizer)
        return encoder

    def encode(self, tokenizer: Any, hidden: str, escape: Escape) -> tuple[int, ...]:
        """The ids of a rendered text, without any special token that is not written in it; `hidden` is that text
        with the stand-ins of `escape`."""
        shown = escape.show(hidden)

        def spans_in(text: str) -> _Spans:
            return [match.span() for match in self.control.pattern.finditer(text)]

        if not escape.loose and (shown == hidden or spans_in(hidden) == spans_in(shown)):  # none is forged
            return tuple(_plain_ids(tokenizer, shown))
        spans = spans_in(hidden)
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            return tuple(_encode_by_sections(tokenizer, self.control, shown, spans))
        if self._renamed is None or self._renamed.names.intersection(shown):
            self._renamed = _RenamedTokenizer(tokenizer, self.control, shown)
        return tuple(self._renamed.encode(shown, spans))


def beginning(tokenizer: Any) -> tuple[int, ...]:
    """The id that the tokenizer begins a text with, if any; not those that end it, as the answer follows."""
    special = tokenizer("", add_special_tokens=True)["input_ids"]
    return tuple(index for index in special[:1] if index == tokenizer.bos_token_id)


class _RenamedTokenizer:
    """A copy of a fast tokenizer whose control tokens have one private-use character each as their names, which
    `text` does not hold. The model inside it forgets the old names too: some would find them in plain text
    (Unigram, or BPE that takes whole words from its vocabulary)."""

    def __init__(self, tokenizer: Any, control: ControlTokens, text: str) -> None:
        from tokenizers import AddedToken, Tokenizer

        names = unused_characters(set(text), len(control.tokens))
        self._name_of = dict(zip(control.tokens, names, strict=True))
        self.names = frozenset(self._name_of.values())
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        _rename(state["model"], self._name_of)
        self._copy = Tokenizer.from_str(json.dumps(state))
        self._original: dict[int, int] = {}
        for index, token in tokenizer.added_tokens_decoder.items():
            name = self._name_of.get(str(token), str(token))
            flags = {"lstrip": token.lstrip, "rstrip": token.rstrip, "normalized": token.normalized}
            self._copy.add_tokens([AddedToken(name, single_word=False, special=False, **flags)])
            renamed = self._copy.token_to_id(name)
            assert renamed is not None
            self._original[renamed] = index

    def encode(self, text: str, spans: _Spans) -> list[int]:
        """The ids of the text, where control tokens stand at the spans and nowhere else."""
        pieces, end = [], 0
        for start, stop in spans:
            pieces += [text[end:start], self._name_of[text[start:stop]]]
            end = stop
        ids = self._copy.encode("".join([*pieces, text[end:]]), add_special_tokens=False).ids
        return [self._original.get(index, index) for index in ids]


def _rename(model: dict[str, Any], names: dict[str, str]) -> None:
    """Renames entries of a tokenizer model's vocabulary, in place, and drops the merges that made them."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    else:
        model["vocab"] = {names.get(piece, piece): index for piece, index in vocabulary.items()}
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if names.keys().isdisjoint((*pair, "".join(pair)))]


def _plain_ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _encode_by_sections(tokenizer: Any, control: ControlTokens, text: str, spans: _Spans) -> list[int]:
    """The ids for a tokenizer without a backend to copy: section by section between control tokens."""
    ids: list[int] = []
    end, trim = 0, False
    for start, stop in [*spans, (len(text), len(text))]:
        token = control.tokens.get(text[start:stop])
        section = text[end:start].lstrip() if trim else text[end:start]
        if token is not None and token.lstrip:
            section = section.rstrip()
        ids += _section_ids(tokenizer, control, section)
        if token is not None:
            ids.append(control.ids[text[start:stop]])
        end, trim = stop, token is not None and token.rstrip
    return ids


def _section_ids(tokenizer: Any, control: ControlTokens, section: str) -> list[int]:
    ids: list[int] = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(section, split_special_tokens=True))
    if control.pattern.search(section) is None or set(control.ids.values()).isdisjoint(ids):
        return ids
    # The tokenizer finds control tokens in plain text all the same: cut them in two, and encode the cuts.
    cuts = [match.start() + 1 for match in control.pattern.finditer(section)]
    pieces = [section[start:stop] for start, stop in pairwise([0, *cuts, len(section)])]
    ids = _plain_ids(tokenizer, pieces[0])
    for piece in pieces[1:]:
        ids += continued(lambda text: _plain_ids(tokenizer, text), piece)
    return ids


def continued(encode: Callable[[str], Sequence[int]], text: str) -> tuple[int, ...]:
    """The ids of a text that continues another: without the space that SentencePiece puts in front."""
    for lead in (".", "0", "\n"):
        before, ids = encode(lead), encode(lead + text)
        if before and ids[: len(before)] == before:
            return tuple(ids[len(before) :])
    return tuple(encode(text))
