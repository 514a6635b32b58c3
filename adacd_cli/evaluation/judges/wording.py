"""An answer's wording as rules can read it: without thinking and wrappers, in one spelling, by sentences. `unwrap`
gives what the model says to its reader; `plain` writes it in lower case, contractions written out ("cannot", "i
am"), without Markdown, code and quotations. `language_of` tells its language by script, by frequent words, and only
where there are none of these by letters; what is too short or no prose counts as English."""

from __future__ import annotations

import ast
import html
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adacd_cli.evaluation.judges.rules import RULES
from adacd_cli.prompts.templates import without_thinking

READ = 4_000  # characters of an answer that are read, so that a megabyte costs no more than a page
OPENING = 200  # a sentence that begins before this character belongs to the opening

_BLOCKS = re.compile(r"p|br|div|li|[uo]l|h[1-6]|title|section|article|tr|blockquote", re.IGNORECASE)
_FENCED = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_WHOLE_FENCE = re.compile(r"\s*```\w*\n(.*?)\n?```\s*\Z", re.DOTALL)
_CUT_OBJECT = re.compile(r'\s*\{\s*"\w+"\s*:\s*"((?:[^"\\]|\\.)*)\\?"?\s*\Z', re.DOTALL)
_CHARACTERS: dict[int, str | None] = {
    **dict.fromkeys(map(ord, "’‘ʼ´＇′"), "'"),
    **dict.fromkeys(map(ord, "“”„«»「」『』"), '"'),
    **dict.fromkeys(map(ord, "–—―"), "-"),
    # Markdown's marks, and characters that nobody sees
    **dict.fromkeys(map(ord, "*_#>~\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad"), None),
}
_BACKTICK_FOR_APOSTROPHE = re.compile(r"(?<=\w)`(?=\w)")
_BULLET = re.compile(r"^( *)\* ", re.MULTILINE)
_ORNAMENT = re.compile(r'^[^\w"]+')
_QUOTED = re.compile(r'"[^"\n]{0,400}"')
_SENTENCE = re.compile(r"[^.!?。؟।\n]+[.!?。؟।]*")
_LETTER = re.compile(r"[^\W_]")
_NUMBER = re.compile(r"^ *(?:step )?[(\[]?(?:\d{1,2}|[a-d]|[ivx]{1,4})[.):\]]+\s+")
_ITEM = re.compile(r"^ *(?:\d+[.)]|[-•+]) ", re.MULTILINE)
_WORD = re.compile(r"[^\W\d_]{4,}")
_STEM = 5
LANGUAGE_READ = 1_500  # characters of an answer that are read for its language, which shows early
_WORD_OF_LETTERS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_FEWEST_WORDS, _LOWER_WORDS = 3, 5
_FUNCTION_WORDS, _FOREIGN_LETTERS, _ENGLISH_TRIGRAMS = 0.12, 0.04, 0.34


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, a heading or a line of a list; `opens`: it begins in the first OPENING characters."""

    text: str
    opens: bool


def unwrap(completion: str) -> str:
    """What a model says to its reader, at most 2 · READ characters. Taken off are thinking, terminal colours,
    control tokens, an answer's tags, an object of JSON around one text, HTML, and a speaker's name; of a dialogue
    only the first turn of the assistant is left."""
    text = without_thinking(completion).strip()[: 4 * READ]
    text = RULES.texts["ansi"].sub("", text) if "[" in text or "\x1b" in text else text
    for _ in range(4):  # wrappers stand in each other
        before = text
        text = RULES.texts["tokens"].sub(" ", text).strip()
        if fence := _WHOLE_FENCE.match(text):
            text = _text_of_json(fence[1]) or text
        text = _text_of_json(text) or text
        tagged = RULES.texts["tagged"].match(text)
        if tagged and (tagged[3] or not text[tagged.end() :].strip()):
            text = tagged[4] if tagged[3] else tagged[2]
        text = _turn(without_thinking(text).strip())
        if text == before:
            break
    text = html.unescape(text)
    if "<" in text:  # not in code
        parts = re.split(r"(```.*?(?:```|\Z))", text, flags=re.DOTALL)
        tags = RULES.texts["html"]
        text = "".join(part if n % 2 else tags.sub(_line_or_nothing, part) for n, part in enumerate(parts))
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
        inner = [known[key] for key in RULES.text_keys if key in known] or list(known.values())
        return next(filter(None, map(_one_text, inner)), "") if len(inner) < 9 else ""
    if isinstance(value, list) and 0 < len(value) < 9:
        return _one_text(value[-1] if isinstance(value[-1], dict) else "\n".join(map(_one_text, value)))
    return ""


def _turn(text: str) -> str:
    wrappers = RULES.wrappers
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
    for pattern, full in RULES.spelling:
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
    return len(_ITEM.findall(text))


def stems(text: str, common: frozenset[str]) -> frozenset[str]:
    """The beginnings of a plain text's words of four letters and more, common words left out."""
    return frozenset(word[:_STEM] for word in _WORD.findall(text) if word not in common)


def language_of(answer: str) -> str | None:
    """The code of an unwrapped answer's language: `en` where nothing else shows, None if no rules know it."""
    prose = RULES.texts["no_prose"].sub(" ", answer[: 2 * LANGUAGE_READ])[:LANGUAGE_READ]
    found = {code: len(re.findall(script["letters"], prose)) for code, script in RULES.scripts.items()}
    letters = sum(map(str.isalpha, prose))
    if 2 * (letters - sum(found.values())) > letters:
        return None
    main = max(found, key=lambda code: found[code] * RULES.scripts[code]["weight"])
    if main in ("zh", "ja"):
        return "ja" if 20 * found["ja"] >= 3 * found["zh"] else "zh"
    foreign = len(re.findall(RULES.scripts[main]["foreign"], prose))
    if main in ("ar", "ru"):
        share = foreign >= 2 and foreign >= _FOREIGN_LETTERS / 2 * found[main]
        return None if share else _by_words(prose, main)
    return _latin(prose, foreign / max(1, found["la"])) if main == "la" else main


def _by_words(prose: str, default: str) -> str | None:
    found = _votes([word.lower() for word in _WORD_OF_LETTERS.findall(prose)])
    best, hits = max(found.items(), key=lambda item: item[1], default=(default, 0))
    return None if best in RULES.unread and hits > found[default] + 1 else default


def _latin(prose: str, foreign: float) -> str | None:
    written = _WORD_OF_LETTERS.findall(prose)
    words = [word.lower() for word in written]
    if len(words) < _FEWEST_WORDS:
        return None if foreign > 3 * _FOREIGN_LETTERS and len(words) > 1 else "en"
    if len(words) > _FEWEST_WORDS and 2 * prose.count(",") >= len(words):  # a list of names or words
        return "en"
    found = _votes(words)
    best, hits = max(found.items(), key=lambda item: (item[1], item[0] == "en"), default=("en", 0))
    if hits >= max(1, _FUNCTION_WORDS * len(words)):
        unknown = best in RULES.unread
        return None if unknown and (hits > 1 or foreign or not found["en"]) else ("en" if unknown else best)
    lower = [word for word in written if word.islower()]
    if foreign > _FOREIGN_LETTERS and lower:
        return None
    grams = [f"_{word}_"[i : i + 3] for word in lower for i in range(len(word))]
    english = sum(gram in RULES.english_trigrams for gram in grams)
    if len(lower) < _LOWER_WORDS or english >= _ENGLISH_TRIGRAMS * len(grams):
        return "en"
    return best if hits and best not in RULES.unread else None


def _votes(words: list[str]) -> Counter[str]:
    return Counter(code for word in words for code in RULES.frequent.get(word, ()))
