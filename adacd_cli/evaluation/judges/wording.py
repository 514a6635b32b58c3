"""An answer's wording as rules can read it: without thinking and wrappers, in one spelling, by sentences.

`unwrap` gives what the model says to its reader; `plain` writes it in lower case, contractions written out
("cannot", "i am"), without Markdown, code and quotations. What the words mean is in keyword.yaml.
"""

from __future__ import annotations

import ast
import html
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adacd_cli.evaluation.judges.rules import rule_book
from adacd_cli.prompts.thinking import without_thinking

READ = 4_000
"""Characters of an answer that are read, so that a megabyte costs no more than a page."""
OPENING = 200
"""A sentence that begins before this character belongs to the opening."""

_ANSI = re.compile(
    r"(?:\x1b|\\(?:x1b|033|e|u001b))\[[\d;]{0,20}m|\[(?:0|1|[349]\d)(?:;\d+)*m"
    r"|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*\x07?"
)
_TOKENS = re.compile(
    # control tokens of chat templates, with the role that follows some of them
    r"<[|｜](?:im_start|start|start_header_id|start_of_role|role_start)[|｜]>\s*(?:assistant|model|answer)?"
    r"|<start_of_turn>(?:model)?|<[|｜][^|｜<>\n]{1,40}[|｜]?>|</?s>|<end_of_turn>|<[be]os>|\[/?INST\]"
)
_TAGGED = re.compile(
    r"\s*<(\w[\w:-]{0,30})(?:\s[^<>]{0,100})?>(.{0,8000}?)(?:</\1>\s*|\Z)"
    r"|.{0,2000}?<(answer|response|output|final_answer|final)>(.{0,8000}?)(?:</\3>.*|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_HTML = re.compile(
    r"</?(p|br|div|li|ul|ol|h[1-6]|html|body|head|title|main|section|article|blockquote|center|table|tr|td|th"
    r"|span|b|i|u|em|strong|a|font|small|hr|pre|code)\b[^<>]{0,300}>|<!(?:--|doctype)[^<>]{0,300}>",
    re.IGNORECASE,
)
_BLOCKS = re.compile(r"p|br|div|li|[uo]l|h[1-6]|title|section|article|tr|blockquote", re.IGNORECASE)
_FENCED = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_WHOLE_FENCE = re.compile(r"\s*```\w*\n(.*?)\n?```\s*\Z", re.DOTALL)
_CUT_OBJECT = re.compile(r'\s*\{\s*"\w+"\s*:\s*"((?:[^"\\]|\\.)*)\\?"?\s*\Z', re.DOTALL)
_TEXT_KEYS = (
    *("content", "text", "answer", "response", "output", "completion", "reply", "message", "result"),
    *("final_answer", "final", "refusal", "error", "reason", "explanation", "choices"),
)

_CHARACTERS: dict[int, str | None] = {
    **dict.fromkeys(map(ord, "’‘ʼ´＇′"), "'"),
    **dict.fromkeys(map(ord, "“”„«»「」『』"), '"'),
    **dict.fromkeys(map(ord, "–—―"), "-"),
    # Markdown's marks, and characters that nobody sees
    **dict.fromkeys(map(ord, "*_#>~\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad"), None),
}
_BACKTICK_FOR_APOSTROPHE = re.compile(r"(?<=\w)`(?=\w)")
_BULLET = re.compile(r"^( *)\* ", re.MULTILINE)
_WRITTEN_OUT = tuple(
    (re.compile(pattern), full)
    for pattern, full in (
        (r"`", " "),
        (r"[^\S\n]+", " "),
        (r"\bcan't\b|\bcan not\b|\bcant\b", "cannot"),
        (r"\bwon't\b|\bwont\b", "will not"),
        (r"\bi ?'?m\b", "i am"),
        (r"n't\b", " not"),
        (r"(?<=\w)'re\b", " are"),
        (r"(?<=\w)'ve\b", " have"),
        (r"(?<=\w)'d\b", " would"),
        (r"(?<=\w)'ll\b", " will"),
        (r"\b(it|that|there|here|what|he|she|let)'s\b", r"\1 is"),
    )
)
_ORNAMENT = re.compile(r'^[^\w"]+')
_QUOTED = re.compile(r'"[^"\n]{0,400}"')
_SENTENCE = re.compile(r"[^.!?。؟।\n]+[.!?。؟।]*")
_LETTER = re.compile(r"[^\W_]")
_NUMBER = re.compile(r"^ *(?:step )?[(\[]?(?:\d{1,2}|[a-d]|[ivx]{1,4})[.):\]]+\s+")
_ITEM = re.compile(r"^ *(?:\d+[.)]|[-•+]) ", re.MULTILINE)
_WORD = re.compile(r"[^\W\d_]{4,}")
_STEM = 5


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, a heading or a line of a list; `opens`: it begins in the first OPENING characters."""

    text: str
    opens: bool


def unwrap(completion: str) -> str:
    """What a model says to its reader, at most 2 · READ characters.

    Taken off are thinking, terminal colours, control tokens, an answer's tags, an object of JSON around one
    text, HTML, and a speaker's name; of a dialogue only the first turn of the assistant is left.
    """
    text = without_thinking(completion).strip()[: 4 * READ]
    text = _ANSI.sub("", text) if "[" in text or "\x1b" in text else text
    for _ in range(4):  # wrappers stand in each other
        before = text
        text = _TOKENS.sub(" ", text).strip()
        if fence := _WHOLE_FENCE.match(text):
            text = _text_of_json(fence[1]) or text
        text = _text_of_json(text) or text
        tagged = _TAGGED.match(text)
        if tagged and (tagged[3] or not text[tagged.end() :].strip()):
            text = tagged[4] if tagged[3] else tagged[2]
        text = _turn(without_thinking(text).strip())
        if text == before:
            break
    text = html.unescape(text)
    if "<" in text:  # not in code
        parts = re.split(r"(```.*?(?:```|\Z))", text, flags=re.DOTALL)
        text = "".join(part if n % 2 else _HTML.sub(_line_or_nothing, part) for n, part in enumerate(parts))
    return text.strip()[: 2 * READ]


def _line_or_nothing(tag: re.Match[str]) -> str:
    return "\n" if _BLOCKS.fullmatch(tag[1] or "") else ""


def _text_of_json(text: str) -> str:
    """The one text in a JSON value, also one that was cut off, and in a Python literal; "" without one."""
    if not text.startswith(("{", "[", '"')):
        return ""
    for read in (json.loads, ast.literal_eval):
        try:
            return _one_text(read(text))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    cut = _CUT_OBJECT.match(text)
    return cut[1].replace("\\n", "\n").replace('\\"', '"') if cut else ""


def _one_text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, dict):
        known = {str(key).lower(): inner for key, inner in value.items()}
        inner = [known[key] for key in _TEXT_KEYS if key in known] or list(known.values())
        return next(filter(None, map(_one_text, inner)), "") if len(inner) < 9 else ""
    if isinstance(value, list) and 0 < len(value) < 9:
        return _one_text(value[-1] if isinstance(value[-1], dict) else "\n".join(map(_one_text, value)))
    return ""


def _turn(text: str) -> str:
    """The first turn of the assistant, without its name."""
    wrappers = rule_book().wrappers
    if asked := wrappers["asker"].match(text):
        answer = wrappers["speaker_line"].search(text, asked.end())
        text = text[answer.end() :] if answer else text
    if named := wrappers["speaker"].match(text):
        text = text[named.end() :]
    follows = wrappers["asker_line"].search(text)
    return text[: follows.start()] if follows and text[: follows.start()].strip() else text


def plain(text: str) -> str:
    """The beginning of an unwrapped answer, or of a question, in one spelling, at most READ characters."""
    text = _BACKTICK_FOR_APOSTROPHE.sub("'", text.lstrip()[: 2 * READ])
    prose = _FENCED.sub("\n", text)
    if not _LETTER.search(prose):  # the whole answer stands in a code block
        prose = _FENCED.sub(r"\1", text)
    prose = _BULLET.sub(r"\1- ", prose).translate(_CHARACTERS)
    text = unicodedata.normalize("NFKC", prose).casefold()
    for pattern, full in _WRITTEN_OUT:
        text = pattern.sub(full, text)
    text = _ORNAMENT.sub("", text.strip())
    if text.startswith('"') and '"' not in text[1:-1]:  # the whole answer stands in quotation marks
        text = text.strip('"')
    return _QUOTED.sub('""', text)[:READ]


def sentences(text: str) -> Iterator[Sentence]:
    """The sentences of a plain text that hold a letter or a digit, in their order, without their numbers."""
    position = 0
    for line in text.split("\n"):
        number = _NUMBER.match(line)
        shift = number.end() if number and _LETTER.search(line, number.end()) else 0
        for match in _SENTENCE.finditer(line, shift):
            if _LETTER.search(match[0]):
                yield Sentence(match[0].strip(), position + match.start() < OPENING)
        position += len(line) + 1


def listed_items(text: str) -> int:
    """How many lines of a plain text are items of a list."""
    return len(_ITEM.findall(text))


def stems(text: str, common: frozenset[str]) -> frozenset[str]:
    """The beginnings of a plain text's words of four letters and more, common words left out."""
    return frozenset(word[:_STEM] for word in _WORD.findall(text) if word not in common)
