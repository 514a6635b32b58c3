"""Control tokens, and how the user's texts are kept from forging them.

`Escape` hides, before a template is rendered, each character of the user's texts that a control token can
begin with behind an unused private-use character, one for one. Whatever the template does to the texts then
(trim, cut, join), what still reads as a control token afterwards was written by the template. `encode` shows
the characters again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

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
