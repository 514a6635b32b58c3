"""Reads keyword.yaml: the rules of the `keyword` judge, compiled, with their weights.

The file explains its own form. Interpreting the rules is left to keyword.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

Kind = Literal["refusals", "cues", "question_dependent_cues"]
_KINDS: tuple[Kind, ...] = ("refusals", "cues", "question_dependent_cues")
_FRAGMENT = re.compile(r"<([A-Z_]+)>")


@dataclass(frozen=True, slots=True)
class Rule:
    """A named signal; see the head of keyword.yaml for what its attributes mean."""

    name: str
    kind: Kind
    weight: float
    patterns: tuple[str, ...] = ()
    later: float | None = None
    first: bool = False
    whole: bool = False
    fit: bool = True
    tale: str = ""
    asks: str = ""
    learned: Mapping[str, tuple[str, ...]] | None = None

    def without(self, model: str) -> re.Pattern[str]:
        """All patterns as one, those learned from the model left out; nothing matches where none is left."""
        learned = [own for name, own in (self.learned or {}).items() if name != model]
        return re.compile("|".join([*self.patterns, *(one for own in learned for one in own)]) or r"(?!)")


@dataclass(frozen=True)
class RuleBook:
    """All that keyword.yaml holds.

    Attributes:
        rules: in the file's order.
        computed: priors of the bias and of the signals that code finds.
        unfitted: weights of the signals that code finds and no calibration fits.
        questions, context: named patterns.
        wrappers: named patterns of speakers' names.
        common_words: words that do not say what a question is about.
        fitted: weights that a calibration found.
        languages: named patterns of each language besides English.
        english_words, languages_words, other_languages: frequent words, by language.
        english_trigrams: groups of three letters that are frequent in English, `_` a word's edge.
    """

    rules: tuple[Rule, ...]
    computed: Mapping[str, float]
    unfitted: Mapping[str, float]
    questions: Mapping[str, re.Pattern[str]]
    context: Mapping[str, re.Pattern[str]]
    wrappers: Mapping[str, re.Pattern[str]]
    common_words: frozenset[str]
    fitted: Mapping[str, float]
    languages: Mapping[str, Mapping[str, re.Pattern[str]]]
    english_words: frozenset[str]
    languages_words: Mapping[str, frozenset[str]]
    other_languages: Mapping[str, frozenset[str]]
    english_trigrams: frozenset[str]

    @cached_property
    def priors(self) -> Mapping[str, float]:
        """What every signal is thought to weigh; fitted weights stay near it."""
        own = {rule.name: rule.weight for rule in self.rules}
        return {
            **self.computed,
            **self.unfitted,
            **own,
            **{later(r.name): r.later for r in self.rules if r.later is not None},
        }

    @cached_property
    def refusals(self) -> frozenset[str]:
        """The signals of a refusal in so many words: it is one, whatever a sample says."""
        own = (rule.name for rule in self.rules if rule.kind == "refusals")
        found = {name for rule in own for name in (rule, later(rule)) if name in self.priors}
        return frozenset(found | {"refuses", "answers no"})

    @cached_property
    def fixed(self) -> frozenset[str]:
        """The signals whose weight is not fitted."""
        return self.refusals.union(self.unfitted, (rule.name for rule in self.rules if not rule.fit))

    @cached_property
    def weights(self) -> Mapping[str, float]:
        """What every signal weighs."""
        return {**self.priors, **self.fitted}


def later(name: str) -> str:
    """The name of a rule's signal when it is found after the opening."""
    return f"{name}, later"


@lru_cache(maxsize=1)
def rule_book() -> RuleBook:
    """The rules that come with adacd."""
    text = Path(__file__).with_name("keyword.yaml").read_text(encoding="utf-8")
    found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    fragments = _Fragments(found["fragments"])
    languages = found["languages"]
    words = {code: _words(entry.pop("words", "")) for code, entry in languages.items()}
    return RuleBook(
        rules=tuple(fragments.rule(kind, entry) for kind in _KINDS for entry in found[kind]),
        computed=found["computed"],
        unfitted=found["unfitted"],
        questions=fragments.compiled(found["questions"]),
        context=fragments.compiled({**found["context"], "remarks": found["remarks"]}),
        wrappers=fragments.compiled(found["wrappers"], re.IGNORECASE | re.MULTILINE),
        common_words=_words(found["common_words"]),
        fitted=found["fitted"],
        languages={code: fragments.compiled(entry) for code, entry in languages.items()},
        english_words=_words(found["english_words"]),
        languages_words=words,
        other_languages={code: _words(text) for code, text in found["other_languages"].items()},
        english_trigrams=_words(found["english_trigrams"]),
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


class _Fragments(dict[str, str]):
    """Fragments by name, each with those it uses written out; a list of them is a group of alternatives."""

    def __init__(self, given: Mapping[str, str | list[str]]) -> None:
        for name, text in given.items():
            self[name] = f"(?:{'|'.join(map(self.expand, [text] if isinstance(text, str) else text))})"

    def expand(self, pattern: str) -> str:
        return _FRAGMENT.sub(lambda match: self[match[1]], pattern)

    def patterns(self, given: Iterable[str] = ()) -> tuple[str, ...]:
        return tuple(map(self.expand, given))

    def compiled(self, named: Mapping[str, list[str]], flags: int = 0) -> dict[str, re.Pattern[str]]:
        return {name: re.compile("|".join(self.patterns(given)), flags) for name, given in named.items()}

    def rule(self, kind: Kind, entry: dict[str, Any]) -> Rule:
        learned = {model: self.patterns(own) for model, own in entry.pop("learned", {}).items()}
        return Rule(kind=kind, patterns=self.patterns(entry.pop("patterns", ())), learned=learned, **entry)
